package rebuild

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/entry"
	"dormouse/internal/natstest"
	"dormouse/internal/topology"
	"dormouse/internal/wire"
	"dormouse/store/alone"
	"dormouse/store/bucket"
	"dormouse/store/identity"
	"dormouse/store/manifest"
	"dormouse/store/reader"
	"dormouse/store/segment"
	"dormouse/store/storetest"
	"dormouse/store/tree"
)

var errKilled = errors.New("killed")

// lost is a system whose JetStream was lost: a bucket, and a NATS server that knows nothing of it.
type lost struct {
	t      *testing.T
	bucket *bucket.Bucket
	folder string
	js     jetstream.JetStream
	system *storetest.System // as it was before
	bad    []string
}

// before is a system with a checkpoint, a segment since, which has an older entry of another log, and one that was put
// in vain.
func before(t *testing.T) *lost {
	s := storetest.New(t)
	who := identity.New(identity.Config{JS: s.JS, Bucket: s.Bucket})
	if err := who.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.Claim(1)
	s.Publish("a.d", "0")
	s.Publish("a.b", "1", "2")
	s.Publish("a.c", "3")
	s.Archive(at(0), 4, "a.b", "a.c")
	s.Publish("a.b", "4")
	s.Archive(at(1), 5, "a.b")
	data, err := s.Mu.Tree.Encode()
	if err == nil {
		err = s.Bucket.Put(t.Context(), "0/checkpoint/"+name(2)+".tree", data)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.Publish("a.b", "5")
	s.Put(at(3), 6, "a.b")
	s.Publish("a.b", "6")
	s.Archive(at(4), 7, "a.b", "a.d")
	_, js := natstest.Dial(t, natstest.Start(t))
	return &lost{t: t, bucket: s.Bucket, folder: strings.TrimPrefix(s.Bucket.URL(), "file://"), js: js, system: s}
}

// name names the nth object, of an hour ago.
func name(n int) string {
	id := uuid.New()
	when := time.Now().Add(-time.Hour).Add(time.Duration(n) * time.Second)
	binary.BigEndian.PutUint64(id[:], uint64(when.UnixMilli())<<16|7<<12|0x123)
	return id.String()
}

func at(n int) string { return "0/" + name(n) + ".sst" }

func (l *lost) config() Config {
	return Config{Config: topology.Config{RequeueAfter: time.Minute, Lease: time.Second}, JS: l.js, Bucket: l.bucket,
		Quiet: time.Millisecond, Tell: Tell{Bad: func(err error) { l.bad = append(l.bad, err.Error()) }}}
}

// killed rebuilds until a step, and reports whether there is one.
func (l *lost) killed(at int) bool {
	l.t.Helper()
	r := &rebuilding{Config: l.config(), before: func(step int) error {
		if step == at {
			return errKilled
		}
		return nil
	}}
	_, err := r.run(l.t.Context())
	if err != nil && !errors.Is(err, errKilled) {
		l.t.Fatalf("until step %d: %v", at, err)
	}
	return err != nil
}

func (l *lost) rebuild() error {
	_, err := Rebuild(l.t.Context(), l.config())
	return err
}

// refused holds that it is refused, and says why.
func (l *lost) refused(when string, why ...string) {
	l.t.Helper()
	err := l.rebuild()
	if !errors.Is(err, ErrRefused) && !errors.Is(err, topology.ErrRefused) && !errors.Is(err, identity.ErrRefused) {
		l.t.Errorf("%s: %v, want it refused", when, err)
		return
	}
	for _, part := range why {
		if !strings.Contains(err.Error(), part) {
			l.t.Errorf("%s: %v does not say %s", when, err, part)
		}
	}
}

// tree is that which the next owner makes of the manifest.
func (l *lost) tree() (t tree.Tree, last manifest.Record) {
	l.t.Helper()
	m, err := manifest.Open(l.t.Context(), l.js, 0)
	if err != nil {
		l.t.Fatal(err)
	}
	last, _ = m.Last()
	if _, err := m.Append(l.t.Context(), manifest.Record{Kind: manifest.Claim, Epoch: last.Epoch + 1, Owner: "n",
		Floor: last.Floor, Source: last.Source}); err != nil {
		l.t.Fatal(err)
	}
	at, err := m.Checkpoint(l.t.Context())
	if err != nil || at == nil {
		l.t.Fatalf("checkpoint %v, %v", at, err)
	}
	data, err := l.bucket.Get(l.t.Context(), at.Object)
	if err == nil {
		t, err = tree.Decode(data)
	}
	if err == nil {
		err = manifest.Scan(l.t.Context(), l.js, 0, at.Mark(), m.Mark(), func(seq, _ uint64, r manifest.Record) (err error) {
			if seq <= t.Record() {
				l.t.Errorf("record %d comes after the tree knows of %d", seq, t.Record())
			}
			t, _, err = r.Apply(t, seq)
			return err
		})
	}
	if err != nil {
		l.t.Fatal(err)
	}
	return t, last
}

// whole holds that the system goes on with everything.
func (l *lost) whole(when string) {
	l.t.Helper()
	t, last := l.tree()
	if n, _ := t.Segments(); n != 3 {
		l.t.Errorf("%s: %d segments are live, want 3", when, n)
	}
	stream, err := l.js.Stream(l.t.Context(), wire.DefaultSource)
	if err != nil {
		l.t.Fatal(err)
	}
	first := stream.CachedInfo().State.FirstSeq
	if first <= 7 || last.Floor != 7 || last.Source.Seq+1 != first {
		l.t.Errorf("%s: the stream begins at %d, the floor is %d, and %d is said to be taken in", when, first, last.Floor,
			last.Source.Seq)
	}
	if subjects := stream.CachedInfo().Config.Subjects; len(subjects) != 1 || subjects[0] != "logs.>" {
		l.t.Errorf("%s: the stream takes %v", when, subjects)
	}
	if err := identity.Verify(l.t.Context(), l.js, l.bucket); err != nil {
		l.t.Errorf("%s: %v", when, err)
	}
	if got := read(l.t, l.bucket, "a.b"); got != "1 2 4 5 6" {
		l.t.Errorf("%s: the bucket alone reads %s", when, got)
	}
}

func read(t *testing.T, b *bucket.Bucket, log string) string {
	t.Helper()
	a, err := alone.Open(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	if err := a.Read(t.Context(), reader.Query{Log: log}, func(e entry.Entry) error {
		got = append(got, string(e.Data))
		return nil
	}); err != nil {
		return err.Error()
	}
	return strings.Join(got, " ")
}

// TestKilledAtEachStep: killed before any step, also between the records, it is run again and the system is whole. In
// every other one a process that was started before had made its streams.
func TestKilledAtEachStep(t *testing.T) {
	for _, step := range []int{1, 2, 3, 4, 5, recordSteps, recordSteps + 1, 6, 7} {
		when := fmt.Sprintf("killed before step %d", step)
		l := before(t)
		if step%2 == 1 {
			if _, err := topology.Ensure(t.Context(), l.js, l.config().Config); err != nil {
				t.Fatal(err)
			}
		}
		if !l.killed(step) {
			t.Errorf("%s: there is no such step", when)
		}
		l.mayServe(when, step == 7)
		if err := l.rebuild(); err != nil {
			t.Errorf("%s: %v", when, err)
			continue
		}
		l.refused(when+", and again", "rebuilt from", "already")
		l.whole(when)
		l.refused(when+", and when it is owned", "manifest is not empty", "by n")
	}
}

// mayServe holds that a process is, or is not, refused that is started now. One that served before the records are
// there would take all that was archived for garbage.
func (l *lost) mayServe(when string, want bool) {
	l.t.Helper()
	if _, err := l.js.Stream(l.t.Context(), wire.ManifestStream); errors.Is(err, jetstream.ErrStreamNotFound) {
		return // it makes this first; every other case has it
	}
	err := identity.New(identity.Config{JS: l.js, Bucket: l.bucket}).Check(l.t.Context())
	if (err == nil) != want || err != nil && !errors.Is(err, identity.ErrRefused) {
		l.t.Errorf("%s: a process that starts is told %v", when, err)
	}
}

// TestRefusals: each thing that somebody has to decide is refused by name, and nothing is recorded.
func TestRefusals(t *testing.T) {
	l := before(t)
	other := l.js
	l.js = l.system.JS
	l.refused("a system whose manifest is there", "manifest is not empty", "shard 0")
	l.js = other
	l.bucketOf("an empty bucket", "file://"+t.TempDir(), alone.ErrEmpty)

	if _, err := topology.Ensure(t.Context(), l.js, l.config().Config); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := l.js.Publish(t.Context(), "logs.a.b", []byte("early")); err != nil {
			t.Fatal(err)
		}
	}
	l.refused("entries under archived sequences", "stream LOGS", "3 messages from sequence 1", "up to 7")
	if stream := natstest.Stream(t, l.js, wire.DefaultSource); stream.CachedInfo().State.Msgs != 3 {
		t.Errorf("the stream has %d messages, want 3", stream.CachedInfo().State.Msgs)
	}
	if err := l.js.DeleteStream(t.Context(), wire.DefaultSource); err != nil {
		t.Fatal(err)
	}
	kv, err := l.js.KeyValue(t.Context(), wire.LeaseBucket)
	if err == nil {
		_, err = kv.PutString(t.Context(), wire.NodeKeys+"n1", `{"node":"n1"}`)
	}
	if err != nil {
		t.Fatal(err)
	}
	l.refused("a process that lives", "processes of this system run", "n1")
	if err := kv.Purge(t.Context(), wire.NodeKeys+"n1"); err != nil {
		t.Fatal(err)
	}
	cfg := l.config()
	cfg.Shards = 2
	for topology.PartitionOf("a", cfg.Shards) == 0 {
		cfg.Shards++
	}
	if _, err := Rebuild(t.Context(), cfg); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "log a.") {
		t.Errorf("another number of shards: %v", err)
	}
	if shards, err := topology.Manifests(t.Context(), l.js); err != nil || len(shards) > 0 {
		t.Errorf("there are records of shards %v, %v", shards, err)
	}
}

// bucketOf holds that another bucket is refused.
func (l *lost) bucketOf(when, url string, want error) {
	l.t.Helper()
	b, err := bucket.Open(l.t.Context(), url)
	if err != nil {
		l.t.Fatal(err)
	}
	defer b.Close()
	cfg := l.config()
	cfg.Bucket = b
	if _, err := Rebuild(l.t.Context(), cfg); !errors.Is(err, want) {
		l.t.Errorf("%s: %v, want %v", when, err, want)
	}
}

// TestSomebodyWrites: an object that comes while it waits, or while it works, is somebody's.
func TestSomebodyWrites(t *testing.T) {
	l := before(t)
	put := func() {
		id, err := uuid.NewV7()
		if err == nil {
			err = l.bucket.Put(t.Context(), "0/"+id.String()+".sst", []byte("x"))
		}
		if err != nil {
			t.Error(err)
		}
	}
	r := &rebuilding{Config: l.config(), before: func(step int) error {
		if step == 2 {
			put()
		}
		return nil
	}}
	if _, err := r.run(t.Context()); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "somebody writes") {
		t.Errorf("while it works: %v", err)
	}
	cfg := l.config()
	cfg.Quiet = 100 * time.Millisecond
	put()
	cfg.Tell.Step = func(what string) {
		if strings.Contains(what, "waiting whether another one comes") {
			time.Sleep(2 * time.Millisecond) // the next name is a later one
			put()
		}
	}
	_, err := Rebuild(t.Context(), cfg)
	if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "somebody writes") {
		t.Errorf("while it waits: %v", err)
	}
}

// TestDamage: what is missing or damaged is named; without it everything else goes on if somebody says so.
func TestDamage(t *testing.T) {
	for what, harm := range map[string]func(l *lost) (named string, reads string){
		"a segment of the checkpoint is missing": func(l *lost) (string, string) {
			key := l.keys()[0]
			l.must(os.Remove(filepath.Join(l.folder, key)))
			return key, "4 5 6"
		},
		"a segment of the checkpoint is damaged": func(l *lost) (string, string) {
			key := l.keys()[1]
			l.flip(key)
			return key, "1 2 5 6"
		},
		"a younger segment is damaged": func(l *lost) (string, string) {
			key := l.keys()[3]
			l.flip(key)
			return key, "1 2 4 5"
		},
		"the checkpoint is damaged": func(l *lost) (string, string) {
			found, err := filepath.Glob(filepath.Join(l.folder, "0", "checkpoint", "*"))
			l.must(err)
			l.must(os.WriteFile(found[0], []byte("no tree"), 0o600))
			return filepath.Base(found[0]), "1 2 4 5 6"
		},
		"the identity is missing": func(l *lost) (string, string) {
			l.must(os.Remove(filepath.Join(l.folder, identity.Key)))
			return identity.Key, "1 2 4 5 6"
		},
	} {
		t.Run(what, func(t *testing.T) {
			l := before(t)
			l.t = t
			named, want := harm(l)
			l.refused(what, "--despite-damage")
			if len(l.bad) != 1 || !strings.Contains(l.bad[0], named) {
				t.Errorf("it says %q, and should name %s", l.bad, named)
			}
			cfg := l.config()
			cfg.Despite = true
			if _, err := Rebuild(t.Context(), cfg); err != nil {
				t.Fatal(err)
			}
			if got := l.live("a.b"); got != want {
				t.Errorf("it reads %s, want %s", got, want)
			}
			if err := identity.Verify(t.Context(), l.js, l.bucket); err != nil {
				t.Error(err)
			}
		})
	}
}

// live returns what the tree has of a log.
func (l *lost) live(log string) string {
	l.t.Helper()
	var got []string
	t, _ := l.tree()
	for p := range t.Overlapping(log, log+"\x00") {
		object, err := l.bucket.Segment(p.Segment.Object)
		l.must(err)
		r, err := segment.Open(l.t.Context(), object)
		l.must(err)
		l.must(r.Scan(l.t.Context(), log, 0, 1<<40, func(e entry.Entry) error {
			got = append(got, string(e.Data))
			return nil
		}))
		l.must(r.Close())
	}
	return strings.Join(got, " ")
}

func (l *lost) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// keys returns the segments, by name.
func (l *lost) keys() (keys []string) {
	l.t.Helper()
	for o, err := range l.bucket.List(l.t.Context(), "0/") {
		l.must(err)
		if strings.HasSuffix(o.Key, ".sst") {
			keys = append(keys, o.Key)
		}
	}
	return keys
}

// flip damages an object.
func (l *lost) flip(key string) {
	l.t.Helper()
	path := filepath.Join(l.folder, key)
	data, err := os.ReadFile(path)
	l.must(err)
	for i := range data {
		data[i] ^= 0x40
	}
	l.must(os.WriteFile(path, data, 0o600))
}

// TestInterrupted: one that is told to end does.
func TestInterrupted(t *testing.T) {
	l := before(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Rebuild(ctx, l.config()); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
