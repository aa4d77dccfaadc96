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
	"dormouse/store/cache/catalog"
	"dormouse/store/client"
	"dormouse/store/manifest"
	"dormouse/store/storetest"
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

// TestVerifyWithASnapshot verifies an archive whose manifest was cut, and a segment of which only a part was committed.
func TestVerifyWithASnapshot(t *testing.T) {
	s := archivedSystem(t)
	s.Publish("a.b", "v")
	s.Publish("a.c", "w")
	in, extents := s.Put("0/four.sst", 11, "a.b", "a.c")
	s.Commit(in, extents[0])
	run := manifest.Run{UpTo: 3, Extents: 4, Entries: 6} // the claim and two commits
	var rows []catalog.Row
	for _, l := range s.Mu.Extents {
		if l.Segment.Key == "0/one.sst" || l.Segment.Key == "0/two.sst" {
			rows = append(rows, catalog.RowOf(l.Extent, l.Segment))
		}
	}
	catalog.Sort(rows)
	err := catalog.WriteParts(func(yield func(catalog.Row, error) bool) {
		for _, r := range rows {
			if !yield(r, nil) {
				return
			}
		}
	}, func(part []byte) error {
		run.Parts = append(run.Parts, extent.Segment{Key: "0/catalog/one.rows", Size: uint64(len(part))})
		return s.Bucket.Put(t.Context(), "0/catalog/one.rows", part)
	})
	if err != nil {
		t.Fatal(err)
	}
	snapshot := &manifest.Snapshot{UpTo: 3, UpToID: s.RecordID(3), Runs: []manifest.Run{run}}
	s.Append(manifest.Record{Kind: manifest.TakeSnapshot, Epoch: 1, Owner: "n", Snapshot: snapshot})
	if err := manifest.Purge(t.Context(), s.JS, 0, snapshot); err != nil {
		t.Fatal(err)
	}
	if r, bad := s.verify(""); bad != "" || r != (Report{Segments: 4, Extents: 7, Entries: 10}) {
		t.Errorf("%+v\n%s", r, bad)
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
			in := s.Mu.Extents[0].Segment
			s.Commit(in, extent.Extent{Log: "a.b", First: 1, Last: 2, Count: 1, Bytes: 2})
		}, "0/one.sst"},
		"an overlap": {func(_ *testing.T, s *system) {
			first := s.Mu.Extents[0]
			s.Commit(first.Segment, first.Extent)
		}, "overlaps"},
		"a part that was committed otherwise": { // of a segment with more: it is looked at extent by extent
			func(_ *testing.T, s *system) {
				in := s.Mu.Extents[0].Segment
				s.Mu.Extents = s.Mu.Extents[1:]
				s.Commit(in, extent.Extent{Log: "a.b", First: 1, Last: 1, Count: 1, Bytes: 1})
			}, "0/one.sst: it does not hold log a.b from 1 to 1"},
		"a snapshot that is gone": {func(_ *testing.T, s *system) {
			s.Append(manifest.Record{Kind: manifest.TakeSnapshot, Epoch: 1, Owner: "n",
				Snapshot: &manifest.Snapshot{UpTo: 2, UpToID: s.RecordID(2),
					Runs: []manifest.Run{{UpTo: 2, Extents: 2, Entries: 3,
						Parts: []extent.Segment{{Key: "0/catalog/gone.rows", Size: 9}}}}}})
		}, "gone.rows"},
		"a catalog with less": {func(_ *testing.T, s *system) {
			s.Mu.Extents = s.Mu.Extents[1:]
		}, "the catalog of shard 0 has 5 extents"},
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
