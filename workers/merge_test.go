package workers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"dormouse/internal/entry"
	"dormouse/internal/extent"
	"dormouse/internal/wire"
	"dormouse/store/bucket"
	"dormouse/store/segment"
)

// merges is a merge queue, and an owner that takes what merges offer as a test wants.
type merges struct {
	*system
	queue jetstream.Stream
	epoch uint64

	mu      sync.Mutex
	offered []wire.ReplaceRequest
	answers []wire.Status // in turn; then OK
}

func newMerges(t *testing.T) *merges {
	t.Helper()
	m := &merges{system: newSystem(t, settings{}), epoch: 3}
	var err error
	if m.queue, err = m.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: wire.MergeStream,
		Subjects: []string{wire.MergeSubjects}, Retention: jetstream.WorkQueuePolicy}); err != nil {
		t.Fatal(err)
	}
	if _, err = m.queue.CreateConsumer(t.Context(), jetstream.ConsumerConfig{Durable: wire.MergePool,
		AckPolicy: jetstream.AckExplicitPolicy, AckWait: 30 * time.Second, MaxDeliver: -1}); err != nil {
		t.Fatal(err)
	}
	return m
}

// own answers for shard 7, until the test ends.
func (m *merges) own() {
	m.t.Helper()
	sub, err := m.nc.Subscribe(wire.OwnerSubject(7, m.epoch, wire.OpReplace), func(msg *nats.Msg) {
		m.mu.Lock()
		defer m.mu.Unlock()
		var req wire.ReplaceRequest
		if err := errors.Join(wire.Decode(msg.Data, &req), req.Validate()); err != nil {
			m.t.Error(err)
		}
		m.offered = append(m.offered, req)
		var reply wire.ReplaceReply
		if len(m.answers) > 0 {
			reply.Status, m.answers = m.answers[0], m.answers[1:]
		}
		data, err := wire.Encode(reply)
		if err == nil {
			err = msg.Respond(data)
		}
		if err != nil {
			m.t.Error(err)
		}
	})
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = sub.Unsubscribe() })
}

// put puts a segment whose entries are given as "log:sequence", ascending, and returns what the tree has of it.
func (m *merges) put(key string, entries []string, refused ...string) extent.Summary {
	m.t.Helper()
	w, err := segment.NewWriter(segment.Options{})
	if err != nil {
		m.t.Fatal(err)
	}
	defer w.Close()
	for _, e := range entries {
		var seq uint64
		log, number, _ := strings.Cut(e, ":")
		if _, err := fmt.Sscan(number, &seq); err != nil {
			m.t.Fatal(err)
		}
		value := entry.AppendValue(nil, time.Unix(int64(seq), 0), nil, []byte("payload of "+e))
		if err := w.Add(entry.AppendKey(nil, log, seq), value); err != nil {
			m.t.Fatal(err)
		}
	}
	data, extents, err := w.Finish()
	if err == nil {
		err = m.bucket.Put(m.t.Context(), key, data)
	}
	if err != nil {
		m.t.Fatal(err)
	}
	extents = slices.DeleteFunc(extents, func(e extent.Extent) bool { return slices.Contains(refused, e.Log) })
	s := extent.Summarize(extent.Segment{Key: key, Size: uint64(len(data))}, extents)
	s.Refused = refused
	return s
}

// Open implements Opener.
func (b *fakeBucket) Open(ctx context.Context, s extent.Segment) (*segment.Reader, error) {
	data := b.get(s.Key)
	if data == nil {
		return nil, fmt.Errorf("%w: %s", bucket.ErrNotFound, s.Key)
	}
	return segment.Open(ctx, segment.Bytes(s.Key, data))
}

func (m *merges) merge(runs ...[]extent.Summary) {
	m.t.Helper()
	m.mergeUnder(0, nil, runs...)
}

// mergeUnder queues a merge that leaves out what is cut, the last of it by a manifest record.
func (m *merges) mergeUnder(record uint64, cuts extent.Cuts, runs ...[]extent.Summary) {
	m.t.Helper()
	data, err := wire.Encode(wire.MergeItem{Shard: 7, Epoch: m.epoch, Runs: runs, Cuts: cuts, Cut: record})
	if err != nil {
		m.t.Fatal(err)
	}
	if _, err := m.js.Publish(m.t.Context(), wire.MergeSubject(7), data); err != nil {
		m.t.Fatal(err)
	}
}

// merging lets a pool merge.
func (m *merges) merging(c *Config) { c.Segments = m.bucket }

// untilMerged waits until nothing is queued.
func (m *merges) untilMerged() {
	m.t.Helper()
	m.until("the merges are done", func() bool {
		info, err := m.queue.Info(m.t.Context())
		if err != nil {
			m.t.Fatal(err)
		}
		return info.State.Msgs == 0
	})
}

// contents returns what outputs hold, as put takes it, and checks what is said of them.
func (m *merges) contents(outputs []extent.Summary) (entries []string) {
	m.t.Helper()
	for _, out := range outputs {
		r := m.open(out.Object)
		extents, err := r.Verify(m.t.Context(), nil)
		if err != nil {
			m.t.Fatal(err)
		}
		if have := extent.Summarize(out.Object, extents); fmt.Sprint(have) != fmt.Sprint(out) {
			m.t.Errorf("an output is %+v, and said to be %+v", have, out)
		}
		for _, e := range extents {
			if err := r.Scan(m.t.Context(), e.Log, e.First, e.Last, func(e entry.Entry) error {
				name := fmt.Sprintf("%s:%d", e.Log, e.Seq)
				if string(e.Data) != "payload of "+name || e.Time.Unix() != int64(e.Seq) {
					return fmt.Errorf("%s has %q of %s", name, e.Data, e.Time)
				}
				entries = append(entries, name)
				return nil
			}); err != nil {
				m.t.Fatal(err)
			}
		}
	}
	return entries
}

// TestMerge: runs of one segment and of several, logs that go on from one to the other, and one that was refused in one
// of them, become one run that is cut where it is large enough.
func TestMerge(t *testing.T) {
	for name, size := range map[string]int{"one output": 1 << 20, "an output for each entry": 1} {
		t.Run(name, func(t *testing.T) {
			m := newMerges(t)
			m.own()
			runs := [][]extent.Summary{
				{m.put("7/1.sst", []string{"a.a:1", "a.a:4", "a.b:2"}), m.put("7/2.sst", []string{"a.b:5", "a.d:3"})},
				{m.put("7/3.sst", []string{"a.b:6", "a.c:7", "a.d:8"}, "a.c")},
				{m.put("7/4.sst", []string{"a.a:9", "a.c:7"})},
			}
			pool := m.start(m.merging, func(c *Config) { c.MergeBytes = size })
			m.merge(runs...)
			m.untilMerged()
			m.mu.Lock()
			defer m.mu.Unlock()
			if len(m.offered) != 1 || !slices.Equal(m.offered[0].Inputs, []string{"7/1.sst", "7/2.sst", "7/3.sst", "7/4.sst"}) {
				t.Fatalf("offered %+v", m.offered)
			}
			outputs := m.offered[0].Outputs
			want := []string{"a.a:1", "a.a:4", "a.a:9", "a.b:2", "a.b:5", "a.b:6", "a.c:7", "a.d:3", "a.d:8"}
			if got := m.contents(outputs); !slices.Equal(got, want) {
				t.Errorf("merged to %q, want %q", got, want)
			}
			if (len(outputs) == 1) != (size > 1) || size == 1 && len(outputs) != len(want) {
				t.Errorf("there are %d outputs", len(outputs))
			}
			metrics := pool.cfg.Metrics
			if testutil.ToFloat64(metrics.merges) != 1 || testutil.ToFloat64(metrics.mergedBytes.WithLabelValues("read")) == 0 ||
				testutil.ToFloat64(metrics.mergedBytes.WithLabelValues("written")) == 0 || pool.count(done) != 1 {
				t.Error("it does not count as done")
			}
		})
	}
}

// TestMergeThatFails: nothing is offered that is not all of the inputs, and the item is tried again, or ended when that
// is in vain.
func TestMergeThatFails(t *testing.T) {
	two := func(m *merges) [][]extent.Summary {
		return [][]extent.Summary{{m.put("7/1.sst", []string{"a.a:1"})}, {m.put("7/2.sst", []string{"a.a:2"})}}
	}
	for name, tc := range map[string]struct {
		alter   func(m *merges, runs [][]extent.Summary)
		ends    outcome
		offered bool
		orphans int
	}{
		"fewer entries than it should have": {func(_ *merges, runs [][]extent.Summary) {
			runs[0][0].Entries++
		}, abandoned, false, 0},
		"other bytes": {func(_ *merges, runs [][]extent.Summary) { runs[1][0].Bytes-- }, abandoned, false, 0},
		"another first sequence": {func(_ *merges, runs [][]extent.Summary) {
			runs[0][0].MinSeq, runs[0][0].MaxSeq = 2, 2
		}, abandoned, false, 0},
		"another last sequence": {func(_ *merges, runs [][]extent.Summary) { runs[1][0].MaxSeq++ }, abandoned, false, 0},
		"another time of the first": {func(_ *merges, runs [][]extent.Summary) {
			runs[0][0].MinTime--
		}, abandoned, false, 0},
		"another time of the last": {func(_ *merges, runs [][]extent.Summary) {
			runs[1][0].MaxTime++
		}, abandoned, false, 0},
		"a log that should be left out": {func(_ *merges, runs [][]extent.Summary) {
			runs[1][0].Refused = []string{"a.a"}
		}, abandoned, false, 0},
		"a damaged input": {func(m *merges, _ [][]extent.Summary) {
			m.bucket.mu.Lock()
			defer m.bucket.mu.Unlock()
			m.bucket.objects["7/2.sst"][5] ^= 1
		}, abandoned, false, 0},
		"an entry twice": {func(m *merges, runs [][]extent.Summary) {
			runs[1][0] = m.put("7/3.sst", []string{"a.a:1"})
		}, abandoned, false, 0},
		"an input that is gone": {func(_ *merges, runs [][]extent.Summary) {
			runs[1][0].Object.Key = "7/gone.sst"
		}, abandoned, false, 0},
		"an owner that is gone": {func(m *merges, _ [][]extent.Summary) { m.epoch++ }, stale, false, 0},
		"an owner that is fenced": {func(m *merges, _ [][]extent.Summary) {
			m.answers = []wire.Status{{Code: wire.NotOwner}}
		}, stale, true, 0},
		"an owner that refuses": {func(m *merges, _ [][]extent.Summary) {
			m.answers = []wire.Status{{Code: wire.BadRequest, Message: "no neighbours"}}
		}, stale, true, 1},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMerges(t)
			m.own()
			runs := two(m)
			tc.alter(m, runs)
			pool := m.start(m.merging)
			m.merge(runs...)
			m.until("it has ended", func() bool { return pool.count(tc.ends) > 0 })
			m.mu.Lock()
			offered := len(m.offered)
			m.mu.Unlock()
			if (offered > 0) != tc.offered || pool.orphans() != tc.orphans || pool.count(done) > 0 {
				t.Errorf("%d were offered, %d orphans, %d done", offered, pool.orphans(), pool.count(done))
			}
			if tc.ends != abandoned {
				m.untilMerged()
				return
			}
			time.Sleep(4 * pool.rest) // what is in vain is not tried again so soon
			if n := pool.count(abandoned); n != 1 {
				t.Errorf("it was given up %d times", n)
			}
		})
	}
}

// TestMergeOfABusyOwner is offered again.
func TestMergeOfABusyOwner(t *testing.T) {
	m := newMerges(t)
	m.own()
	m.answers = []wire.Status{{Code: wire.Busy}, {Code: wire.Failed}}
	runs := [][]extent.Summary{{m.put("7/1.sst", []string{"a.a:1"})}, {m.put("7/2.sst", []string{"a.a:2"})}}
	pool := m.start(m.merging)
	m.merge(runs...)
	m.untilMerged()
	if len(m.offered) != 3 || pool.count(done) != 1 || pool.retried("replace") != 2 {
		t.Errorf("offered %d times, done %d, retried %d", len(m.offered), pool.count(done), pool.retried("replace"))
	}
}

// TestMergesThatAreNone are ended: they would fail for every worker.
func TestMergesThatAreNone(t *testing.T) {
	m := newMerges(t)
	pool := m.start(m.merging)
	if _, err := m.js.Publish(t.Context(), wire.MergeSubject(7), []byte("garbage")); err != nil {
		t.Fatal(err)
	}
	m.merge([]extent.Summary{m.put("7/1.sst", []string{"a.a:1"})})
	m.untilMerged()
	if pool.count(poison) != 2 {
		t.Errorf("%d were ended", pool.count(poison))
	}
}

// TestMergesWaitForSyncs: one begins only when a worker has nothing to do; and one in hand at the end of the pool is
// given back.
func TestMergesWaitForSyncs(t *testing.T) {
	m := newMerges(t)
	m.own()
	runs := [][]extent.Summary{{m.put("7/1.sst", []string{"a.a:1"})}, {m.put("7/2.sst", []string{"a.a:2"})}}
	pool := m.startWith(func(p *Pool) { p.busy.Store(2) }, m.merging)
	m.merge(runs...)
	m.until("the merge is in hand", m.inHand)
	time.Sleep(3 * idlePoll)
	if puts := len(m.bucket.keys()); puts != 2 {
		t.Errorf("it merges beside busy workers: %d puts", puts)
	}
	pool.busy.Store(1)
	m.untilMerged()
	pool.busy.Store(2)
	m.merge(runs...)
	m.until("another one is in hand", m.inHand)
	// The server says so before the pool has it. Who merges, there is one, has the turn to fetch until it has.
	m.until("the pool has it", func() bool { return len(pool.mergeTurn) == 0 })
	pool.join()
	if pool.count(abandoned) != 1 {
		t.Errorf("%d were given back", pool.count(abandoned))
	}
	m.start(m.merging)
	m.untilMerged() // at once: the item did not wait for its time to be over
}

// inHand reports whether somebody has a merge.
func (m *merges) inHand() bool {
	m.t.Helper()
	consumer, err := m.js.Consumer(m.t.Context(), wire.MergeStream, wire.MergePool)
	return err == nil && consumer.CachedInfo().NumAckPending == 1
}

// TestMergeAtTheEnd: a merge that is not done when the grace is over is given back, and another pool does it at once.
func TestMergeAtTheEnd(t *testing.T) {
	m := newMerges(t)
	m.own()
	runs := [][]extent.Summary{{m.put("7/1.sst", []string{"a.a:1"})}, {m.put("7/2.sst", []string{"a.a:2"})}}
	putting := make(chan struct{}, 1)
	m.bucket.before = func(ctx context.Context, n int, _ string) error {
		if n != 3 {
			return nil
		}
		putting <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}
	pool := m.start(m.merging, func(c *Config) { c.Grace = 50 * time.Millisecond })
	m.merge(runs...)
	select {
	case <-putting:
	case <-time.After(patience):
		t.Fatal("the merge does not begin")
	}
	pool.join()
	if pool.count(abandoned) != 1 || pool.count(done) > 0 || len(pool.turns) > 0 {
		t.Errorf("%d given back, %d done, %d turns held", pool.count(abandoned), pool.count(done), len(pool.turns))
	}
	next := m.start(m.merging)
	m.untilMerged()
	if next.count(done) != 1 || len(m.offered) != 1 {
		t.Errorf("%d done, %d offered", next.count(done), len(m.offered))
	}
}

// TestMergeOfASilentOwner: nothing is written for one that does not answer.
func TestMergeOfASilentOwner(t *testing.T) {
	m := newMerges(t)
	runs := [][]extent.Summary{{m.put("7/1.sst", []string{"a.a:1"})}, {m.put("7/2.sst", []string{"a.a:2"})}}
	pool := m.startWith(func(p *Pool) { p.silence.begin(ownerID{7, m.epoch}, time.Now()) }, m.merging)
	m.merge(runs...)
	m.until("it is given back", func() bool { return pool.count(abandoned) > 0 })
	if n := len(m.bucket.keys()); n != 2 {
		t.Errorf("%d objects were put for it", n-2)
	}
	m.own()
	pool.silence.end(ownerID{7, m.epoch})
	m.untilMerged()
	if pool.count(done) != 1 {
		t.Errorf("%d were done", pool.count(done))
	}
}

// TestMergesHoldTurns: a merge works while it has one of the pool's turns to pack, and not before.
func TestMergesHoldTurns(t *testing.T) {
	m := newMerges(t)
	m.own()
	runs := [][]extent.Summary{{m.put("7/1.sst", []string{"a.a:1"})}, {m.put("7/2.sst", []string{"a.a:2"})}}
	held := make(chan int, 1)
	pool := m.startWith(func(p *Pool) {
		p.turns <- struct{}{}
		p.turns <- struct{}{}
		m.bucket.before = func(context.Context, int, string) error { held <- len(p.turns); return nil }
	}, m.merging)
	m.merge(runs...)
	m.until("the merge is in hand", m.inHand)
	time.Sleep(3 * idlePoll)
	if n := len(m.bucket.keys()); n != 2 {
		t.Errorf("it works without a turn: %d puts", n)
	}
	<-pool.turns
	m.untilMerged()
	if n := <-held; n != 2 {
		t.Errorf("%d turns are held while it works", n)
	}
	<-pool.turns
	m.until("the turn is given back", func() bool { return len(pool.turns) == 0 })
}

// TestMergeShare is a part of the pool, and one at least.
func TestMergeShare(t *testing.T) {
	for _, tc := range []struct {
		size  int
		share float64
		want  int
	}{{1, 0, 1}, {4, 0, 1}, {8, 0, 2}, {8, 1, 8}, {8, 0.01, 1}} {
		cfg := Config{NC: new(nats.Conn), JS: jetstream.JetStream(nil), Bucket: &fakeBucket{}, Segments: &fakeBucket{},
			Size: tc.size, MergeShare: tc.share}
		cfg.JS = struct{ jetstream.JetStream }{}
		p, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.mergers(); got != tc.want {
			t.Errorf("%d workers, share %v: %d merge, want %d", tc.size, tc.share, got, tc.want)
		}
		p.cfg.Segments = nil
		if got := p.mergers(); got != 0 {
			t.Errorf("without segments %d merge", got)
		}
	}
}

// TestReadAhead: however many inputs a merge has, they read ahead no more than is meant for all of them.
func TestReadAhead(t *testing.T) {
	for inputs, want := range map[int]int64{2: 1 << 20, 32: 1 << 20, 64: 512 << 10, wire.MaxMergeInputs: 128 << 10} {
		if got := readAhead(inputs); got != want || int64(inputs)*got > mergeReadAhead {
			t.Errorf("%d inputs read ahead %d each, want %d", inputs, got, want)
		}
	}
}
