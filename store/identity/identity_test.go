package identity

import (
	"bytes"
	"context"
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"dormouse/internal/extent"
	"dormouse/internal/natstest"
	"dormouse/internal/topology"
	"dormouse/internal/wire"
	"dormouse/store/bucket"
	"dormouse/store/bucket/buckettest"
	"dormouse/store/manifest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// system is a NATS server with the streams of a system.
type system struct {
	*testing.T
	js jetstream.JetStream
}

func newSystem(t *testing.T) system {
	t.Helper()
	_, js := natstest.Dial(t, natstest.Start(t))
	s := system{t, js}
	if _, err := topology.Ensure(t.Context(), js, topology.Config{RequeueAfter: time.Minute,
		Lease: 2 * time.Second}); err != nil {
		t.Fatal(err)
	}
	return s
}

// process is one that was given a bucket.
func (s system) process(url string) *Bucket {
	s.Helper()
	b, err := bucket.Open(s.Context(), url)
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { _ = b.Close() })
	return New(Config{JS: s.js, Bucket: b})
}

// begin is one that starts.
func (s system) begin(url string) (*Bucket, error) {
	s.Helper()
	p := s.process(url)
	return p, p.Check(s.Context())
}

func (s system) mustBegin(url string) *Bucket {
	s.Helper()
	p, err := s.begin(url)
	if err != nil {
		s.Fatalf("%s: %v", url, err)
	}
	return p
}

// refused holds that a start is, with all that somebody must know.
func (s system) refused(url string, names ...string) {
	s.Helper()
	p, err := s.begin(url)
	s.tells(err, names...)
	if !errors.Is(err, ErrRefused) {
		s.Errorf("%s: %v may pass", url, err)
	}
	if err := p.Put(s.Context(), "0/x.sst", []byte("x")); !errors.Is(err, ErrRefused) {
		s.Errorf("%s: a put into it: %v", url, err)
	}
}

func (s system) tells(err error, names ...string) {
	s.Helper()
	if err == nil {
		s.Errorf("no error that names %q", names)
		return
	}
	for _, name := range names {
		if !strings.Contains(err.Error(), name) {
			s.Errorf("%v: does not name %q", err, name)
		}
	}
}

// commit lets an owner commit a segment, which the process puts unless it is nil.
func (s system) commit(key string, p *bucket.Bucket) {
	s.Helper()
	m, err := manifest.Open(s.Context(), s.js, 0)
	if err != nil {
		s.Fatal(err)
	}
	last, _ := m.Last()
	for _, r := range []manifest.Record{
		{Kind: manifest.Claim, Epoch: last.Epoch + 1},
		{Kind: manifest.Commit, Epoch: last.Epoch + 1, Segments: []extent.Summary{extent.Summarize(
			extent.Segment{Key: key, Size: 3}, []extent.Extent{{Log: "a.b", First: 1, Last: 1, Count: 1}})}},
		{Kind: manifest.Floor, Epoch: last.Epoch + 1, Floor: 1},
	} {
		if _, err := m.Append(s.Context(), r); err != nil {
			s.Fatal(err)
		}
	}
	if p != nil {
		if err := p.Put(s.Context(), key, []byte("sst")); err != nil {
			s.Fatal(err)
		}
	}
}

func folder(t *testing.T) string { t.Helper(); return "file://" + t.TempDir() }

func path(url string) string { return strings.TrimPrefix(url, "file://") }

// TestAnotherBucketIsRefused: the id decides, not the URL. Copying an archive moves it.
func TestAnotherBucketIsRefused(t *testing.T) {
	s := newSystem(t)
	first, other := folder(t), folder(t)
	p := s.mustBegin(first)
	if err := p.Put(t.Context(), "0/a.sst", []byte("a")); err != nil {
		t.Fatal(err)
	}
	s.refused(other, other, first, Key, p.ID())
	if entries, err := os.ReadDir(path(other)); err != nil || len(entries) > 0 {
		t.Errorf("a bucket that is refused has %v, %v", entries, err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(path(first), link); err != nil {
		t.Fatal(err)
	}
	for _, same := range []string{first + "/", "file://" + link, first + "/../" + filepath.Base(first)} {
		if again := s.mustBegin(same); again.ID() != p.ID() {
			t.Errorf("%s is bucket %s, and %s is %s", same, again.ID(), first, p.ID())
		}
	}
	if err := os.CopyFS(path(other), os.DirFS(path(first))); err != nil {
		t.Fatal(err)
	}
	s.mustBegin(other)
	third := newSystem(t)
	third.refused(first, p.ID(), "knows no system")
	third.mustBegin(folder(t))
	third.refused(first, first, p.ID())
}

// TestGarbageIsNoIdentity: what somebody with rights to the manifest publishes there stays, and counts for nothing. An
// identity of a newer version is not passed over.
func TestGarbageIsNoIdentity(t *testing.T) {
	s := newSystem(t)
	publish := func(data string) {
		if _, err := s.js.Publish(t.Context(), wire.SystemSubject, []byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	publish("garbage")
	ours, other := folder(t), folder(t)
	s.mustBegin(ours)
	publish("")
	publish(`{"kind":"another","version":1}`)
	s.mustBegin(ours)
	s.refused(other, ours, other)
	publish(`{"kind":"dormouse archive","version":2}`)
	s.refused(ours, "version is 2")
}

// TestManyStartAtOnce: processes with one bucket agree; of several buckets one wins, and nobody else puts anything.
func TestManyStartAtOnce(t *testing.T) {
	for name, buckets := range map[string][]string{"one": {folder(t)}, "three": {folder(t), folder(t), folder(t)}} {
		t.Run(name, func(t *testing.T) {
			s := newSystem(t)
			processes, errs := make([]*Bucket, 9), make([]error, 9)
			var group sync.WaitGroup
			for i := range processes {
				processes[i] = s.process(buckets[i%len(buckets)])
				group.Go(func() { errs[i] = processes[i].Check(t.Context()) })
			}
			group.Wait()
			ids := make(map[string]int)
			for i, err := range errs {
				if err == nil {
					ids[processes[i].ID()]++
				} else if !errors.Is(err, ErrRefused) {
					t.Error(err)
				}
			}
			for id, n := range ids {
				if len(ids) != 1 || n != len(processes)/len(buckets) {
					t.Errorf("%d took bucket %s; all: %v", n, id, ids)
				}
			}
		})
	}
}

// TestStartThatCrashes ends the first start after each of its steps; the next one goes on. Until the bucket has its
// object that may be another one.
func TestStartThatCrashes(t *testing.T) {
	s := newSystem(t)
	half := newIdentity("0d9488a5-6f6d-4b0c-8d6e-4f4a3c1f0001", "", "")
	if err := record(t.Context(), s.js, half, 0); err != nil {
		t.Fatal(err)
	}
	put := newIdentity(half.System, "0d9488a5-6f6d-4b0c-8d6e-4f4a3c1f0002", "file:///a")
	bucket := folder(t)
	if err := os.WriteFile(filepath.Join(path(bucket), Key), put.encode(), 0o600); err != nil {
		t.Fatal(err)
	}
	if p := s.mustBegin(bucket); p.ID() != put.Bucket {
		t.Errorf("bucket %s, and it was put as %s", p.ID(), put.Bucket)
	}
	s.refused(folder(t), put.Bucket)
}

// TestSystemOfAnOlderVersion has commits, and a bucket that says nothing of itself: it is known by the newest segment.
func TestSystemOfAnOlderVersion(t *testing.T) {
	s := newSystem(t)
	bucket, old := folder(t), folder(t)
	before := s.process(bucket)
	s.commit("0/gone.sst", nil)
	s.commit("0/new.sst", before.cfg.Bucket)
	s.refused(old, "0/new.sst", old)
	if err := os.MkdirAll(filepath.Join(path(old), "0"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(path(old), "0/new.sst"), []byte("longer"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.refused(old, "0/new.sst", old)
	s.mustBegin(bucket)
	s.mustBegin(bucket)
	s.refused(old, bucket)
	newSystem(t).refused(old, "0/new.sst", "empty place")
}

// TestIdentityObject that is gone or damaged is named, at the start and later, and nothing is put until it is mended.
func TestIdentityObject(t *testing.T) {
	s := newSystem(t)
	bucket := folder(t)
	name := filepath.Join(path(bucket), Key)
	p := s.mustBegin(bucket)
	right, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	change := func(from, to string) []byte { return []byte(strings.Replace(string(right), from, to, 1)) }
	wrong := map[string][]byte{ // by what the error says; nil is no object
		"has no object":                    nil,
		"no JSON object":                   {},
		"its kind is":                      []byte("{}"),
		"5000 bytes":                       bytes.Repeat([]byte(" "), 5000),
		"of that form":                     append(bytes.Clone(right), "{}"...),
		"a newer":                          change(`"version":1`, `"version":2`),
		"its ids":                          change(`"bucket":"`, `"bucket":"x`),
		"names no bucket":                  change(`"bucket"`, `"other"`),
		"The system's is bucket " + p.ID(): change(p.ID(), "0d9488a5-6f6d-4b0c-8d6e-4f4a3c1f0001"),
	}
	for says, content := range wrong {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if content == nil {
			if err := os.Remove(name); err != nil {
				t.Fatal(err)
			}
		}
		s.refused(bucket, says, Key)
		p.mu.failed = time.Time{} // so that it looks again at once
		s.tells(p.Put(t.Context(), "0/a.sst", []byte("a")), says, Key)
		if _, err := os.Stat(filepath.Join(path(bucket), "0")); err == nil {
			t.Errorf("something was put while the object said: %s", says)
		}
	}
	if err := os.WriteFile(name, right, 0o600); err != nil {
		t.Fatal(err)
	}
	s.tells(p.Failing(), "the last 9 puts failed", Key)
	p.mu.failed = time.Time{}
	if err := p.Put(t.Context(), "0/a.sst", []byte("a")); err != nil || p.Failing() != nil {
		t.Errorf("when it is mended: %v, %v", err, p.Failing())
	}
	if _, err := p.Get(t.Context(), extent.Segment{Key: "0/a.sst", Size: 1}); err != nil {
		t.Error(err)
	}
}

// TestMemory that ended held nothing, or what the system archived.
func TestMemory(t *testing.T) {
	s := newSystem(t)
	s.mustBegin("mem://")
	p := s.mustBegin("mem://")
	if err := p.Put(t.Context(), "0/a.sst", []byte("a")); err != nil {
		t.Error(err)
	}
	s.commit("0/a.sst", nil)
	if err := p.Check(t.Context()); err != nil {
		t.Errorf("the process that goes on: %v", err)
	}
	s.refused("mem://", "is gone", "--data")
	s.refused(folder(t), p.ID())
	s.tells(Verify(t.Context(), s.js, p.cfg.Bucket), "memory of the server")
}

// TestAccepts: an owner commits what is in the system's bucket, whether its own has answered or not.
func TestAccepts(t *testing.T) {
	s := newSystem(t)
	p := s.process(folder(t))
	owner := s.process(folder(t))
	s.tells(owner.Accepts(t.Context(), "0d9488a5-6f6d-4b0c-8d6e-4f4a3c1f0001"), "not this system's")
	if err := p.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := owner.Accepts(t.Context(), p.ID()); err != nil {
			t.Error(err)
		}
		s.tells(owner.Accepts(t.Context(), ""), "older version")
		s.tells(owner.Accepts(t.Context(), "0d9488a5-6f6d-4b0c-8d6e-4f4a3c1f0001"), "not this system's", p.ID())
		owner = p
	}
}

// TestReaders are refused with another archive, and not with one of a system that has no identity yet.
func TestReaders(t *testing.T) {
	s := newSystem(t)
	bucket, other := folder(t), folder(t)
	verify := func(url string) error {
		t.Helper()
		return Verify(t.Context(), s.js, s.process(url).cfg.Bucket)
	}
	if err := verify(other); err != nil {
		t.Errorf("before the first start: %v", err)
	}
	s.mustBegin(bucket)
	if err := verify(bucket); err != nil {
		t.Error(err)
	}
	s.tells(verify(other), other, bucket, Key)
	newSystem(t).mustBegin(other)
	s.tells(verify(other), other, bucket)
}

// TestS3 has the identity where it can do little: a server that may not be listed, whose answers are lost, or that has
// no conditional writes.
func TestS3(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "test")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	t.Setenv("AWS_MAX_ATTEMPTS", "2")
	s3, err := buckettest.NewS3()
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(s3)
	t.Cleanup(server.Close)
	url := func(bucket string) string { return "s3://" + bucket + "?endpoint=" + server.URL }
	s := newSystem(t)
	s3.Set(buckettest.S3Faults{NoConditions: true})
	_, err = s.begin(url("logs/a"))
	s.tells(err, "If-None-Match")
	if !errors.Is(err, ErrRefused) {
		t.Errorf("%v may pass", err)
	}
	s3.Set(buckettest.S3Faults{DenyPuts: true})
	_, err = s.begin(url("logs/a"))
	s.tells(err, "not allowed to put", Key)
	if errors.Is(err, ErrRefused) {
		t.Errorf("%v: permissions may be given", err)
	}
	s3.Set(buckettest.S3Faults{DenyLists: true, LoseAnswers: true})
	p := s.mustBegin(url("logs/a"))
	if err := p.Put(t.Context(), "0/a.sst", []byte("a")); err != nil {
		t.Error(err)
	}
	if err := p.Check(t.Context()); err != nil {
		t.Error(err)
	}
	s.refused(url("logs/b"), "logs/b", "logs/a")
	s3.Set(buckettest.S3Faults{})
	_, err = s.begin(url("none"))
	s.tells(err, "does not exist")
	if errors.Is(err, ErrRefused) {
		t.Errorf("%v: a bucket may be made", err)
	}
}

// TestBucketThatDoesNotAnswer: nothing is put until it has said whose it is, and it is asked again.
func TestBucketThatDoesNotAnswer(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "test")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	s := newSystem(t)
	p := s.process("s3://logs?endpoint=http://127.0.0.1:1")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := p.Check(ctx); err == nil || errors.Is(err, ErrRefused) || p.ID() != "" {
		t.Errorf("%v, id %q", err, p.ID())
	}
	for range 3 {
		if err := p.Put(t.Context(), "0/a.sst", nil); err == nil {
			t.Error("a put went through")
		}
	}
	s.tells(p.Failing(), "the last 3 puts failed")
}
