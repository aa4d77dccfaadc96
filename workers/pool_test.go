package workers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"dormouse/internal/wire"
)

// someLogs makes n logs of the given number of entries, with gaps in the sequences.
func someLogs(prefix string, n, entries int) map[string][]record {
	logs := make(map[string][]record)
	for i := range n {
		log := fmt.Sprintf("%s.log-%05d", prefix, i)
		for j := range entries {
			seq := uint64(1 + i + j*n)
			logs[log] = append(logs[log], record{seq, fmt.Appendf(nil, "entry %d of %s", seq, log)})
		}
	}
	return logs
}

// noise is a record of n bytes that do not compress.
func noise(seq uint64, n int) record {
	random := rand.NewChaCha8([32]byte{byte(seq)})
	data := make([]byte, n)
	_, _ = random.Read(data) // never fails
	return record{seq, data}
}

// names returns the logs of the owner, ascending.
func (o *owner) names() []string {
	return slices.Sorted(maps.Keys(o.given))
}

func TestArchivesWhatIsQueued(t *testing.T) {
	s := newSystem(t, settings{})
	one, two := s.own(1, 7, someLogs("acme", 300, 3)), s.own(2, 9, someLogs("beta", 20, 50))
	for chunk := range slices.Chunk(one.names(), 100) {
		s.enqueue(one, chunk...)
		s.enqueue(one, chunk[:50]...) // a duplicate is harmless, in the same fetch or in a later one
	}
	pool := s.start()
	s.enqueue(two, two.names()...)
	s.enqueue(two, "beta.of.which.nothing.is.buffered")
	s.untilEmpty()
	s.check(one)
	s.check(two)
	pool.join()
	if n := pool.count(done); n != 8 {
		t.Errorf("%d items done, want 8", n)
	}
	if busy := testutil.ToFloat64(pool.cfg.Metrics.busy); busy != 0 {
		t.Errorf("%v workers busy after the end", busy)
	}
	for _, key := range s.bucket.keys() {
		shard, name, _ := strings.Cut(key, "/")
		id, err := uuid.Parse(strings.TrimSuffix(name, ".sst"))
		if (shard != "1" && shard != "2") || err != nil || id.Version() != 7 {
			t.Errorf("segment key %q, want <shard>/<UUID version 7>.sst", key)
		}
	}
}

func TestPacksManyItemsIntoOneSegment(t *testing.T) {
	s := newSystem(t, settings{})
	o := s.own(0, 1, someLogs("acme", 8*wire.MaxItemLogs, 1))
	for chunk := range slices.Chunk(o.names(), wire.MaxItemLogs) {
		s.enqueue(o, chunk...)
	}
	s.start()
	s.untilEmpty()
	s.check(o)
	if n, drains := len(s.bucket.keys()), o.requests(wire.OpDrain); n != 1 || drains != 1 {
		t.Fatalf("%d segments from %d drains, want 1 from 1", n, drains)
	}
}

func TestItemsOfOneOwnerThatTrickleInArePackedTogether(t *testing.T) {
	s := newSystem(t, settings{})
	o := s.own(0, 1, someLogs("acme", 5, 1))
	s.start(func(c *Config) { c.Linger = 10 * time.Second; c.ItemsPerFetch = 5 })
	for _, log := range o.names() {
		s.enqueue(o, log)
	}
	s.untilEmpty()
	if n := len(s.bucket.keys()); n != 1 {
		t.Fatalf("%d segments, want 1", n)
	}
}

func TestSegmentTargetSplitsALog(t *testing.T) {
	s := newSystem(t, settings{})
	logs := make(map[string][]record)
	for seq := uint64(1); seq <= 64; seq++ {
		logs["acme.large"] = append(logs["acme.large"], noise(seq, 32<<10))
	}
	logs["acme.small"] = []record{{65, []byte("small")}}
	o := s.own(0, 1, logs)
	s.enqueue(o, o.names()...)
	s.start(func(c *Config) { c.SegmentBytes = 256 << 10 })
	s.untilEmpty()
	s.check(o)
	if n := len(o.extents("acme.large")); n < 6 || n > 9 {
		t.Fatalf("2 MiB in segments of 256 KiB became %d extents", n)
	}
}

// A small max_payload cuts everything: requests, replies, values and commits.
func TestSmallMaxPayload(t *testing.T) {
	s := newSystem(t, settings{maxPayload: 64 << 10})
	logs := make(map[string][]record)
	for i := range 600 {
		logs["acme."+strings.Repeat("x", 200)+fmt.Sprintf("%03d", i)] = []record{{uint64(i + 1), []byte("small")}}
	}
	logs["acme.huge"] = []record{{1000, []byte("before")}, noise(1001, 300<<10), noise(1002, 40<<10),
		{1003, []byte("after")}}
	logs["acme.huger"] = []record{noise(2000, 500<<10)}
	o := s.own(0, 1, logs)
	for chunk := range slices.Chunk(o.names(), 150) {
		s.enqueue(o, chunk...)
	}
	pool := s.start()
	s.untilEmpty()
	s.check(o)
	pool.join()
	if pool.count(done) != 5 || pool.retried("drain")+pool.retried("commit") != 0 {
		t.Errorf("%d items done, %d drains and %d commits repeated", pool.count(done), pool.retried("drain"),
			pool.retried("commit"))
	}
	if n := len(s.bucket.keys()); n < 6 {
		t.Errorf("%d segments: a commit of more than 109 extents may not fit", n)
	}
}

func TestBurstSpreadsOverTheWorkers(t *testing.T) {
	s := newSystem(t, settings{})
	const size = 4
	o := s.own(0, 1, someLogs("acme", 400, 1))
	for _, log := range o.names() {
		s.enqueue(o, log)
	}
	arrived, open := make(chan struct{}, 400), make(chan struct{})
	s.bucket.before = func(ctx context.Context, _ int, _ string) error {
		arrived <- struct{}{}
		select {
		case <-open:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	pool := s.start(func(c *Config) { c.Size = size })
	s.until("every worker is putting", func() bool { return len(arrived) == size })
	if busy := testutil.ToFloat64(pool.cfg.Metrics.busy); busy != size {
		t.Errorf("%v workers busy, want %d", busy, size)
	}
	close(open)
	s.untilEmpty()
	s.check(o)
}

func TestIdlePoolIsSmall(t *testing.T) {
	s := newSystem(t, settings{})
	before := runtime.NumGoroutine()
	pool := s.start(func(c *Config) { c.Size = 8 })
	s.until("a worker is fetching", func() bool { return len(pool.gather) == 1 })
	if n := runtime.NumGoroutine() - before; n > 8+8 {
		t.Errorf("an idle pool of 8 has %d goroutines", n)
	}
	pool.join()
}

func TestNewRefuses(t *testing.T) {
	s := newSystem(t, settings{})
	for name, cfg := range map[string]Config{
		"no bucket":           {NC: s.nc, JS: s.js},
		"unknown compression": {NC: s.nc, JS: s.js, Bucket: s.bucket, Compression: "lzw"},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestRunNeedsTheQueue(t *testing.T) {
	s := newSystem(t, settings{})
	if err := s.js.DeleteStream(t.Context(), wire.SyncQueueStream); err != nil {
		t.Fatal(err)
	}
	pool, err := New(Config{NC: s.nc, JS: s.js, Bucket: s.bucket})
	if err != nil {
		t.Fatal(err)
	}
	if err := pool.Run(t.Context()); err == nil || errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want an error about the queue", err)
	}
}

// leaderless is a JetStream whose consumers cannot be looked up for the first tries.
type leaderless struct {
	jetstream.JetStream
	tries  atomic.Int32
	answer int32 // the first try that is answered
}

func (l *leaderless) Consumer(ctx context.Context, stream, name string) (jetstream.Consumer, error) {
	if l.tries.Add(1) < l.answer {
		return nil, &jetstream.APIError{Code: 503, ErrorCode: 10008}
	}
	return l.JetStream.Consumer(ctx, stream, name)
}

// TestRunWaitsForTheQueue: that JetStream has no leader just when the pool begins does not end it, and being told to
// end meanwhile is no error.
func TestRunWaitsForTheQueue(t *testing.T) {
	s := newSystem(t, settings{})
	for name, answer := range map[string]int32{"answered late": 3, "never answered": math.MaxInt32} {
		t.Run(name, func(t *testing.T) {
			js := &leaderless{JetStream: s.js, answer: answer}
			pool, err := New(Config{NC: s.nc, JS: js, Bucket: s.bucket, Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- pool.Run(ctx) }()
			for js.tries.Load() < 3 {
				select {
				case err := <-done:
					t.Fatalf("ended after %d tries: %v", js.tries.Load(), err)
				case <-time.After(time.Millisecond):
				}
			}
			cancel()
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		})
	}
}
