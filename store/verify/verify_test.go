package verify

import (
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"dormouse/internal/extent"
	"dormouse/store/bucket"
	"dormouse/store/bucket/buckettest"
	"dormouse/store/client"
	"dormouse/store/manifest"
	"dormouse/store/storetest"
	"dormouse/store/tree"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// system is one that is verified.
type system struct{ *storetest.System }

// archivedSystem has three segments of two logs, and an owner.
func archivedSystem(t *testing.T) *system {
	s := &system{storetest.New(t)}
	s.Claim(1)
	s.Own(1)
	for i, key := range []string{"0/one.sst", "0/two.sst", "0/three.sst"} {
		s.Publish("a.b", "x", "y")
		s.Publish("a.c", strings.Repeat("z", 1000))
		s.Archive(key, uint64(3*i+3), "a.b", "a.c")
	}
	return s
}

func (s *system) verify(log string) (Report, string) {
	s.T.Helper()
	var bad []string
	v := &Verifier{Client: client.New(s.NC, s.JS), Bucket: s.Bucket,
		Bad: func(err error) { bad = append(bad, err.Error()) }}
	r, err := v.Verify(s.T.Context(), log)
	if err != nil {
		s.T.Fatal(err)
	}
	return r, strings.Join(bad, "\n")
}

func TestVerifySound(t *testing.T) {
	s := archivedSystem(t)
	if r, bad := s.verify(""); bad != "" || r != (Report{Segments: 3, Extents: 6, Entries: 9}) {
		t.Errorf("everything: %+v\n%s", r, bad)
	}
	if r, bad := s.verify("a.b"); bad != "" || r != (Report{Segments: 3, Extents: 3, Entries: 6}) {
		t.Errorf("one log: %+v\n%s", r, bad)
	}
	s.Publish("a.new", "x")
	if r, bad := s.verify("a.new"); bad != "" || r != (Report{}) {
		t.Errorf("a log of which nothing is archived yet: %+v\n%s", r, bad)
	}
	v := &Verifier{Client: client.New(s.NC, s.JS), Bucket: s.Bucket}
	if _, err := v.Verify(t.Context(), "a.nothing"); !errors.Is(err, client.ErrNoLog) {
		t.Errorf("unknown log: %v", err)
	}
}

// checkpoint puts what the tree was at a record, or something else, into the bucket and has it recorded.
func (s *system) checkpoint(at tree.Tree, upTo uint64, size uint64) *manifest.Checkpoint {
	s.T.Helper()
	data, err := at.Encode()
	if err == nil {
		err = s.Bucket.Put(s.T.Context(), "0/checkpoint/one.tree", data)
	}
	if err != nil {
		s.T.Fatal(err)
	}
	if size == 0 {
		size = uint64(len(data))
	}
	c := &manifest.Checkpoint{UpTo: upTo, UpToID: s.RecordID(upTo),
		Object: extent.Segment{Key: "0/checkpoint/one.tree", Size: size}}
	s.Append(manifest.Record{Kind: manifest.TakeCheckpoint, Epoch: 1, Owner: "n", Checkpoint: c})
	return c
}

// TestVerifyWithACheckpoint verifies an archive whose manifest was cut, with a segment of which only a part was
// committed, before and after a merge.
func TestVerifyWithACheckpoint(t *testing.T) {
	s := archivedSystem(t)
	at, upTo := s.Mu.Tree, s.Mu.Version
	s.Publish("a.b", "v")
	s.Publish("a.c", "w")
	in, extents := s.Put("0/four.sst", 11, "a.b", "a.c")
	s.CommitPart(in, []string{"a.c"}, extents[0])
	if err := manifest.Purge(t.Context(), s.JS, 0, s.checkpoint(at, upTo, 0)); err != nil {
		t.Fatal(err)
	}
	if r, bad := s.verify(""); bad != "" || r != (Report{Segments: 4, Extents: 7, Entries: 10}) {
		t.Errorf("%+v\n%s", r, bad)
	}
	s.Merge("0/merged.sst", "0/one.sst", "0/two.sst")
	if r, bad := s.verify(""); bad != "" || r != (Report{Segments: 3, Extents: 5, Entries: 10}) {
		t.Errorf("merged: %+v\n%s", r, bad)
	}
	if r, bad := s.verify("a.c"); bad != "" || r != (Report{Segments: 2, Extents: 2, Entries: 3}) {
		t.Errorf("one log of it: %+v\n%s", r, bad)
	}
}

func TestVerifyNamesWhatIsBad(t *testing.T) {
	file := func(s *system, key string) string {
		return filepath.Join(strings.TrimPrefix(s.Bucket.URL(), "file://"), key)
	}
	for name, tc := range map[string]struct {
		harm func(*testing.T, *system)
		want string
	}{
		"a flipped byte": {func(t *testing.T, s *system) {
			data, err := os.ReadFile(file(s, "0/two.sst"))
			if err != nil {
				t.Fatal(err)
			}
			data[10] ^= 1
			if err := os.WriteFile(file(s, "0/two.sst"), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}, "0/two.sst"},
		"a short object": {func(t *testing.T, s *system) {
			if err := os.Truncate(file(s, "0/two.sst"), 100); err != nil {
				t.Fatal(err)
			}
		}, "0/two.sst"},
		"a missing object": {func(t *testing.T, s *system) {
			if err := os.Remove(file(s, "0/three.sst")); err != nil {
				t.Fatal(err)
			}
		}, "0/three.sst"},
		"another number of entries": {func(_ *testing.T, s *system) {
			in := s.Mu.Tree.Runs()[0].Segments[0].Object
			s.Commit(in, extent.Extent{Log: "a.b", First: 1, Last: 2, Count: 1, Bytes: 2})
		}, "0/one.sst: it has"},
		"an overlap": {func(t *testing.T, s *system) {
			again, err := s.Bucket.Get(t.Context(), s.Mu.Tree.Runs()[0].Segments[0].Object)
			if err == nil {
				err = s.Bucket.Put(t.Context(), "0/again.sst", again)
			}
			if err != nil {
				t.Fatal(err)
			}
			summary := s.Mu.Tree.Runs()[0].Segments[0]
			summary.Object.Key = "0/again.sst"
			s.Append(manifest.Record{Kind: manifest.Commit, Epoch: 1, Owner: "n", Segments: []extent.Summary{summary}})
		}, "goes on at 1 in segment 0/again.sst"},
		"logs that were refused and are none": {func(_ *testing.T, s *system) {
			summary := s.Mu.Tree.Runs()[2].Segments[0]
			summary.Refused = []string{"a.c"}
			tree, err := tree.Tree{}.Commit(1, []extent.Summary{summary})
			if err != nil {
				s.T.Fatal(err)
			}
			s.Mu.Tree = tree
		}, "0/three.sst: it has"},
		"a checkpoint that is gone": {func(t *testing.T, s *system) {
			s.checkpoint(s.Mu.Tree, s.Mu.Version, 0)
			if err := s.Bucket.Delete(t.Context(), "0/checkpoint/one.tree"); err != nil {
				t.Fatal(err)
			}
		}, "one.tree"},
		"a checkpoint of another size": {func(_ *testing.T, s *system) {
			s.checkpoint(s.Mu.Tree, s.Mu.Version, 5)
		}, "one.tree: it has"},
		"a checkpoint with less": {func(_ *testing.T, s *system) {
			s.checkpoint(tree.Tree{}, s.Mu.Version, 0)
		}, "the owner of shard 0 has 3 live segments"},
		"an owner with less": {func(_ *testing.T, s *system) {
			s.Mu.Tree = tree.Tree{}
		}, "the owner of shard 0 has 0 live segments"},
	} {
		t.Run(name, func(t *testing.T) {
			s := archivedSystem(t)
			tc.harm(t, s)
			if r, bad := s.verify(""); r.Bad == 0 || !strings.Contains(bad, tc.want) {
				t.Errorf("got %+v\n%s\nwant %q", r, bad, tc.want)
			}
		})
	}
}

// TestVerifyOfABucketThatDoesNotAnswer: what could not be read is not called bad, and a bucket that gives nothing at
// all ends the verification.
func TestVerifyOfABucketThatDoesNotAnswer(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "test")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	s3, err := buckettest.NewS3()
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(s3)
	t.Cleanup(server.Close)
	s := &system{storetest.New(t)}
	if s.Bucket, err = bucket.Open(t.Context(), "s3://"+buckettest.S3Bucket+"?endpoint="+server.URL); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Bucket.Close() })
	s.Claim(1)
	s.Own(1)
	put := func(n int) {
		for i := range n {
			last := s.Publish("a.b", "x")
			s.Archive(fmt.Sprintf("0/%d-%d.sst", n, i), last, "a.b")
		}
	}
	put(mostUnread - 1)
	s3.Set(buckettest.S3Faults{DenyReads: true})
	if r, told := s.verify(""); r.Bad != 0 || r.Unread != mostUnread-1 || !strings.Contains(told, "not allowed") {
		t.Errorf("a bucket that denies reads: %+v\n%s", r, told)
	}
	s3.Set(buckettest.S3Faults{})
	put(1)
	if r, told := s.verify(""); r.Bad != 0 || r.Unread != 0 || told != "" {
		t.Errorf("it is readable again: %+v\n%s", r, told)
	}
	s3.Set(buckettest.S3Faults{DenyReads: true})
	v := &Verifier{Client: client.New(s.NC, s.JS), Bucket: s.Bucket, Bad: func(error) {}}
	if r, err := v.Verify(t.Context(), ""); !errors.Is(err, ErrUnread) || r.Bad != 0 {
		t.Errorf("it gives nothing at all: %+v, %v", r, err)
	}
}
