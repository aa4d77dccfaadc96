package ingest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/ingest/shard"
	"dormouse/internal/extent"
	"dormouse/internal/wire"
	"dormouse/store/manifest"
)

// often takes checkpoints of a manifest of a few records.
func often(c *Config) {
	c.tail = 4
	c.MaxDelay, c.TrimDelay = 10*time.Millisecond, 20*time.Millisecond
}

// commitOne publishes an entry to each log and commits them together; it returns what is in the catalog then.
func (s *system) commitOne(key string, logs ...string) (all []extent.Located) {
	s.T.Helper()
	for _, log := range logs {
		s.Publish("logs."+log, key)
	}
	s.TakeReady(logs...)
	_, extents := s.Drain(logs...)
	if refused := s.Commit(key, extents...); len(refused) > 0 || len(extents) != len(logs) {
		s.T.Fatalf("%s: %d extents of %d logs, refused %v", key, len(extents), len(logs), refused)
	}
	for _, e := range extents {
		all = append(all, extent.Located{Extent: e, Segment: extent.Segment{Key: key, Size: 1}})
	}
	return all
}

// catalog returns the extents of all live segments, ascending.
func (s *system) catalog() []extent.Located {
	s.T.Helper()
	return sortExtents(s.Live())
}

func (s *system) manifestRecords() uint64 {
	s.T.Helper()
	stream, err := s.JS.Stream(s.T.Context(), wire.ManifestStream)
	if err != nil {
		s.T.Fatal(err)
	}
	info, err := stream.Info(s.T.Context(), jetstream.WithSubjectFilter(wire.ManifestSubject(0)))
	if err != nil {
		s.T.Fatal(err)
	}
	return info.State.Subjects[wire.ManifestSubject(0)]
}

func sortExtents(all []extent.Located) []extent.Located {
	slices.SortFunc(all, func(a, b extent.Located) int {
		if c := strings.Compare(a.Extent.Log, b.Extent.Log); c != 0 {
			return c
		}
		return int(a.Extent.First) - int(b.Extent.First)
	})
	return all
}

// TestTakeoverFromCheckpoints lets nodes with an empty, a stale and a current disk take a shard over from each other
// while checkpoints are taken and the manifest is cut: each must have the whole catalog, archive nothing again and lose
// nothing.
func TestTakeoverFromCheckpoints(t *testing.T) {
	t.Parallel() // it waits most of its time
	s := newSystem(t)
	r := rand.New(rand.NewPCG(7, 7))
	dirs := []string{t.TempDir(), t.TempDir(), ""}
	var want []extent.Located
	var checkpoints float64
	left := 0 // entries of t.left that are not archived
	for turn := range 11 {
		dir := dirs[turn%len(dirs)]
		if dir == "" {
			dir = t.TempDir()
		}
		n := s.start(fmt.Sprint("node", turn), dir, often)
		n.awaitOwned()
		if got := s.catalog(); !reflect.DeepEqual(got, sortExtents(want)) {
			t.Fatalf("turn %d: the archive has %d extents, %d are committed", turn, len(got), len(want))
		}
		n.awaitMetric("dormouse_takeover_entries", 0)
		if entries, _ := s.Drain("t.left"); len(entries) != left || n.metric("dormouse_buffer_entries") != float64(left) {
			t.Fatalf("turn %d: %v entries are buffered, %d of t.left, want %d", turn, n.metric("dormouse_buffer_entries"),
				len(entries), left)
		}
		if n.metric("dormouse_entries_lost_total") != 0 {
			t.Fatal("entries count as lost")
		}
		if turn%4 == 3 {
			_, extents := s.Drain("t.left")
			key := fmt.Sprintf("0/left%d.sst", turn)
			if refused := s.Commit(key, extents...); len(refused) > 0 {
				t.Fatalf("t.left was refused")
			}
			want = append(want, extent.Located{Extent: extents[0], Segment: extent.Segment{Key: key, Size: 1}})
			left = 0
		}
		for i := range 8 {
			logs := []string{"t.a", "t.b", "t.c", "u.a", "u.b"}[r.IntN(4):]
			want = append(want, s.commitOne(fmt.Sprintf("0/%d-%d.sst", turn, i), logs[:1+r.IntN(len(logs))]...)...)
		}
		s.Publish("logs.t.left", fmt.Sprint("left", turn)) // not archived when the node goes
		left++
		n.awaitMetric("dormouse_buffer_entries", float64(left))
		n.stop()
		checkpoints += n.metric("dormouse_checkpoints_total")
	}
	n := s.start("last", t.TempDir(), often)
	n.awaitOwned()
	want = append(want, s.commitOne("0/last.sst", "t.z")...)
	if got := s.catalog(); !reflect.DeepEqual(got, sortExtents(want)) {
		t.Fatalf("the archive has %d extents, %d are committed", len(got), len(want))
	}
	s.Until("the manifest to be cut", func() bool { return s.manifestRecords() <= 8 })
	if checkpoints < 5 {
		t.Errorf("%v checkpoints were taken", checkpoints)
	}
}

// TestTailOfAnOwnerThatEnded: what its checkpoint has, and it did not drop, the next owner drops.
func TestTailOfAnOwnerThatEnded(t *testing.T) {
	s := newSystem(t)
	n := s.start("a", t.TempDir(), func(c *Config) { often(c); c.TrimDelay = time.Hour })
	s.checkpointOf(n)
	n.stop()
	if records := s.manifestRecords(); records < 5 {
		t.Fatalf("%d records are left", records)
	}
	n = s.start("b", t.TempDir(), func(c *Config) { c.TrimDelay = 20 * time.Millisecond })
	n.awaitOwned()
	s.Until("the rest to be dropped", func() bool { return s.manifestRecords() < 5 })
}

// newestCheckpoint returns what the manifest names.
func (s *system) newestCheckpoint() *manifest.Checkpoint {
	s.T.Helper()
	m, err := manifest.Open(s.T.Context(), s.JS, 0)
	if err != nil {
		s.T.Fatal(err)
	}
	at, err := m.Checkpoint(s.T.Context())
	if err != nil || at == nil {
		s.T.Fatalf("%+v, %v", at, err)
	}
	return at
}

// faulty is a bucket that fails while it is told to.
type faulty struct {
	shard.Bucket
	puts, gets atomic.Bool
	checks     atomic.Bool
	failed     atomic.Int64
}

func (f *faulty) Put(ctx context.Context, key string, data []byte) error {
	if f.puts.Load() {
		f.failed.Add(1)
		return errors.New("the bucket is away")
	}
	return f.Bucket.Put(ctx, key, data)
}

func (f *faulty) Get(ctx context.Context, segment extent.Segment) ([]byte, error) {
	if f.gets.Load() {
		f.failed.Add(1)
		return nil, errors.New("the bucket is away")
	}
	return f.Bucket.Get(ctx, segment)
}

func (f *faulty) Contents(ctx context.Context, segment extent.Segment) ([]extent.Extent, error) {
	if f.gets.Load() {
		f.failed.Add(1)
		return nil, errors.New("the bucket is away")
	}
	return f.Bucket.Contents(ctx, segment)
}

func (f *faulty) Check(ctx context.Context) error {
	if f.checks.Load() {
		f.failed.Add(1)
		return errors.New("the bucket is away")
	}
	return f.Bucket.Check(ctx)
}

// TestBucketThatIsAway holds that a checkpoint which cannot be put keeps the manifest whole, and that a takeover which
// needs one waits for the bucket and says so.
func TestBucketThatIsAway(t *testing.T) {
	s := newSystem(t)
	bucket := &faulty{Bucket: s.Archive}
	with := func(c *Config) { often(c); c.Bucket = bucket }
	bucket.puts.Store(true)
	n := s.start("a", t.TempDir(), with)
	n.awaitOwned()
	var want []extent.Located
	for i := range 6 {
		want = append(want, s.commitOne(fmt.Sprintf("0/%d.sst", i), "t.a")...)
	}
	s.Until("a checkpoint to be tried", func() bool { return bucket.failed.Load() > 0 })
	if n.metric("dormouse_checkpoints_total") != 0 || s.manifestRecords() < 7 {
		t.Fatalf("%v checkpoints without a bucket, %d records are left", n.metric("dormouse_checkpoints_total"),
			s.manifestRecords())
	}
	bucket.puts.Store(false)
	s.Until("a checkpoint and the cut", func() bool {
		return n.metric("dormouse_checkpoints_total") > 0 && s.manifestRecords() < 7
	})
	n.stop()
	bucket.failed.Store(0)
	bucket.gets.Store(true)
	n = s.start("b", t.TempDir(), with)
	s.Until("the checkpoint to be asked for", func() bool { return bucket.failed.Load() > 0 })
	if err := n.node.Ready(); err == nil || !strings.Contains(err.Error(), "records to go") ||
		n.metric("dormouse_takeover_records") == 0 {
		t.Errorf("a takeover that waits for the bucket says %v", err)
	}
	bucket.gets.Store(false)
	n.awaitOwned()
	if got := s.catalog(); !reflect.DeepEqual(got, want) {
		t.Fatalf("the archive has %v, want %v", got, want)
	}
}
