package workers

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"dormouse/internal/entry"
	"dormouse/internal/extent"
	"dormouse/internal/natstest"
	"dormouse/internal/shardid"
	"dormouse/internal/wire"
	"dormouse/store/bucket"
	"dormouse/store/segment"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait of these tests; reaching it is a failure.
const patience = 20 * time.Second

// system is a NATS server with a SyncQueue and a bucket. Owners and pools come and go on it.
type system struct {
	t      *testing.T
	nc     *nats.Conn
	js     jetstream.JetStream
	queue  jetstream.Stream
	bucket *fakeBucket
}

// settings of a system; zero means a default that suits most tests.
type settings struct {
	ackWait    time.Duration
	maxPayload int32
}

func newSystem(t *testing.T, set settings) *system {
	t.Helper()
	srv := natstest.Start(t, func(o *server.Options) { o.MaxPayload = set.maxPayload })
	s := &system{t: t, bucket: &fakeBucket{objects: make(map[string][]byte)}}
	s.nc, s.js = natstest.Dial(t, srv)
	var err error
	s.queue, err = s.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: wire.SyncQueueStream,
		Subjects: []string{wire.SyncQueueSubjects}, Retention: jetstream.WorkQueuePolicy})
	if err != nil {
		t.Fatal(err)
	}
	orDefault(&set.ackWait, 30*time.Second)
	_, err = s.queue.CreateConsumer(t.Context(), jetstream.ConsumerConfig{Durable: wire.SyncQueuePool,
		AckPolicy: jetstream.AckExplicitPolicy, AckWait: set.ackWait, MaxDeliver: -1, MaxAckPending: 100_000})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// enqueue publishes one work item with the logs, which it sorts.
func (s *system) enqueue(o *owner, logs ...string) {
	s.t.Helper()
	slices.Sort(logs)
	data, err := wire.Encode(wire.WorkItem{Shard: o.shard, Epoch: o.epoch, Logs: logs})
	if err != nil {
		s.t.Fatal(err)
	}
	s.publish(o.shard, data)
}

func (s *system) publish(shard shardid.Shard, data []byte) {
	s.t.Helper()
	if _, err := s.js.Publish(s.t.Context(), wire.SyncSubject(shard), data); err != nil {
		s.t.Fatal(err)
	}
}

// running is a pool at work.
type running struct {
	*Pool
	s    *system
	stop context.CancelFunc // begins the end
	done chan error
}

// start runs a pool with short times; change may alter its configuration.
func (s *system) start(change ...func(*Config)) *running {
	s.t.Helper()
	return s.startWith(func(*Pool) {}, change...)
}

// startWith is start with what is no configuration changed too.
func (s *system) startWith(alter func(*Pool), change ...func(*Config)) *running {
	s.t.Helper()
	cfg := Config{
		NC: s.nc, JS: s.js, Bucket: s.bucket, Size: 2, Linger: 20 * time.Millisecond,
		RequestTimeout: time.Second, Metrics: NewMetrics(prometheus.NewRegistry()),
		Logger: slog.New(slog.NewTextHandler(s.t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, c := range change {
		c(&cfg)
	}
	pool, err := New(cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	pool.rest = 50 * time.Millisecond
	alter(pool)
	ctx, cancel := context.WithCancel(s.t.Context())
	r := &running{Pool: pool, s: s, stop: cancel, done: make(chan error, 1)}
	go func() { r.done <- pool.Run(ctx) }()
	s.t.Cleanup(r.join)
	return r
}

// join stops the pool and waits for its end.
func (r *running) join() {
	r.s.t.Helper()
	r.stop()
	select {
	case err := <-r.done:
		if err != nil {
			r.s.t.Errorf("Run: %v", err)
		}
		r.done <- nil // for the next one who asks
	case <-time.After(patience):
		r.s.t.Fatal("the pool does not end")
	}
}

// count is how many work items ended so.
func (r *running) count(what outcome) int {
	return int(testutil.ToFloat64(r.cfg.Metrics.items.WithLabelValues(string(what))))
}

// retried is how many tries of a stage were repeated.
func (r *running) retried(stage string) int {
	return int(testutil.ToFloat64(r.cfg.Metrics.retries.WithLabelValues(stage)))
}

func (r *running) orphans() int { return int(testutil.ToFloat64(r.cfg.Metrics.orphans)) }

func (s *system) until(what string, ok func() bool) {
	s.t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			s.t.Fatalf("waited in vain until %s", what)
		}
		<-tick.C
	}
}

// untilEmpty waits until nothing is queued and nothing is being worked on.
func (s *system) untilEmpty() {
	s.t.Helper()
	s.until("the queue is empty", func() bool {
		info, err := s.queue.Info(s.t.Context())
		if err != nil {
			s.t.Fatal(err)
		}
		return info.State.Msgs == 0
	})
}

// check compares what was committed, read back from the bucket, with what the owner was given: the same entries, once
// each, in order.
func (s *system) check(o *owner) {
	s.t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	readers := make(map[string]*segment.Reader)
	for _, log := range slices.Sorted(maps.Keys(o.given)) {
		var got []uint64
		for _, at := range o.committed[log] {
			reader := readers[at.Segment.Key]
			if reader == nil {
				reader = s.open(at.Segment)
				readers[at.Segment.Key] = reader
			}
			err := reader.Scan(s.t.Context(), log, at.Extent.First, at.Extent.Last, func(e entry.Entry) error {
				if want := o.given[log][len(got)]; e.Seq != want.seq || string(e.Data) != string(want.data) {
					return fmt.Errorf("entry %d of %s is not entry %d as given", e.Seq, log, want.seq)
				}
				got = append(got, e.Seq)
				return nil
			})
			if err != nil {
				s.t.Fatal(err)
			}
		}
		if len(got) != len(o.given[log]) {
			s.t.Fatalf("%s: %d entries archived of %d", log, len(got), len(o.given[log]))
		}
	}
}

// open opens a segment, which must be in the bucket as it was committed; in memory there is nothing to close.
func (s *system) open(at extent.Segment) *segment.Reader {
	s.t.Helper()
	data := s.bucket.get(at.Key)
	if uint64(len(data)) != at.Size {
		s.t.Fatalf("%s has %d bytes, committed were %d", at.Key, len(data), at.Size)
	}
	reader, err := segment.Open(s.t.Context(), segment.Bytes(at.Key, data))
	if err != nil {
		s.t.Fatal(err)
	}
	return reader
}

// fakeBucket is a Putter that does what a test wants.
type fakeBucket struct {
	// before and after, when set, run on the n-th put (from 1) before and after an object is stored; an error ends the
	// put.
	before, after func(ctx context.Context, n int, key string) error

	mu      sync.Mutex
	puts    []string // keys in the order of the calls
	objects map[string][]byte
}

// Put implements Putter.
func (b *fakeBucket) Put(ctx context.Context, key string, data []byte) error {
	b.mu.Lock()
	b.puts = append(b.puts, key)
	n := len(b.puts)
	b.mu.Unlock()
	if b.before != nil {
		if err := b.before(ctx, n, key); err != nil {
			return err
		}
	}
	b.mu.Lock()
	before, taken := b.objects[key]
	if !taken {
		b.objects[key] = slices.Clone(data)
	}
	b.mu.Unlock()
	if taken && !bytes.Equal(before, data) {
		return fmt.Errorf("%w: %s", bucket.ErrExists, key)
	}
	if !taken && b.after != nil {
		return b.after(ctx, n, key)
	}
	return nil
}

func (b *fakeBucket) get(key string) []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.objects[key]
}

// keys returns the keys of all calls of Put, in order.
func (b *fakeBucket) keys() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.puts)
}
