package scheduler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errRefusedForTest = errors.New("refused")

// rig runs a scheduler on fake time and keeps the books that it must agree with. books guards what the publishers use
// too; it is a channel because a goroutine that waits for a mutex keeps fake time from passing.
type rig struct {
	t     *testing.T
	s     *Scheduler
	r     *rand.Rand
	books chan struct{}

	seq      uint64
	buffered map[string][]Arrival // the model: what is not committed of each log
	armedAt  map[string]time.Time // when the log last got its deadline
	queuedAt map[string]time.Time // when it was last published, since its last commit
	policies *fakePolicies
	settled  time.Time // when they last changed
	settings struct{ refuse, slow bool }
	refusals int
	stop     func()
}

const (
	testDelay   = 200 * time.Millisecond
	testRequeue = 2 * time.Second
	testFull    = 1000
)

func (g *rig) lock() (unlock func()) {
	g.books <- struct{}{}
	return func() { <-g.books }
}

// newRig must be called inside a synctest bubble.
func newRig(t *testing.T, seed uint64, change ...func(*Config)) *rig {
	g := &rig{t: t, r: rand.New(rand.NewPCG(seed, 7)), buffered: make(map[string][]Arrival),
		armedAt: make(map[string]time.Time), queuedAt: make(map[string]time.Time), books: make(chan struct{}, 1),
		policies: newFakePolicies()}
	cfg := Config{MaxDelay: testDelay, RequeueAfter: testRequeue, MaxBytes: testFull, BatchLogs: 4, Publishers: 2,
		Logger:   slog.New(slog.DiscardHandler),
		Policies: g.policies,
		Publish:  func(_ context.Context, logs []string) error { return g.published(logs) }}
	for _, c := range change {
		c(&cfg)
	}
	var err error
	if g.s, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	return g
}

func (g *rig) run() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.s.Run(ctx) }()
	g.stop = func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			g.t.Errorf("Run returned %v", err)
		}
	}
}

// published is the Publish of the test: it refuses or is slow as the settings say, and checks what comes.
func (g *rig) published(logs []string) error {
	unlock := g.lock()
	slow := g.settings.slow
	defer func() {
		unlock()
		if slow {
			time.Sleep(15 * time.Millisecond)
		}
	}()
	if g.settings.refuse {
		g.refusals++
		return errRefusedForTest
	}
	if !slices.IsSorted(logs) || len(slices.Compact(slices.Clone(logs))) != len(logs) || len(logs) > g.s.cfg.BatchLogs {
		g.t.Errorf("a batch must be ascending, without repeats and bounded: %v", logs)
	}
	for _, log := range logs {
		if at, twice := g.queuedAt[log]; twice && time.Since(at) < testRequeue {
			g.t.Errorf("%s was queued twice within %s", log, time.Since(at))
		}
		g.queuedAt[log] = time.Now()
	}
	return nil
}

func (g *rig) set(refuse, slow bool) {
	defer g.lock()()
	g.settings.refuse, g.settings.slow = refuse, slow
}

func (g *rig) append(log string, bytes uint64) {
	g.seq += 1 + uint64(g.r.IntN(3))
	a := Arrival{Log: log, Seq: g.seq, Bytes: bytes, Time: time.Now()}
	if len(g.buffered[log]) == 0 {
		g.armedAt[log] = time.Now()
	}
	g.buffered[log] = append(g.buffered[log], a)
	g.s.Append([]Arrival{a})
}

// commit commits the first n entries of a log, as the owner does: under its lock, telling what is left.
func (g *rig) commit(log string, n int) {
	all := g.buffered[log]
	var bytes uint64
	for _, a := range all[:n] {
		bytes += a.Bytes
	}
	unlock := g.lock()
	delete(g.queuedAt, log)
	g.armedAt[log] = time.Now()
	unlock()
	if g.buffered[log] = all[n:]; n == len(all) {
		delete(g.buffered, log)
		commitOne(g.s, log, uint64(n), bytes, 0, time.Time{})
		return
	}
	commitOne(g.s, log, uint64(n), bytes, all[n].Seq, all[n].Time)
}

// check compares the scheduler with the books and with its own invariants.
func (g *rig) check() {
	g.t.Helper()
	var entries, bytes uint64
	lowest := ^uint64(0)
	for log, all := range g.buffered {
		want := Pending{First: all[0].Seq, Last: all[len(all)-1].Seq, Count: uint64(len(all))}
		for _, a := range all {
			want.Bytes += a.Bytes
		}
		if got, ok := g.s.Pending(log); !ok || got != want {
			g.t.Fatalf("%s has %+v, %v, want %+v", log, got, ok, want)
		}
		entries, bytes, lowest = entries+want.Count, bytes+want.Bytes, min(lowest, want.First)
	}
	stats := g.s.Stats()
	if size := unsafe.Sizeof(logState{}); size > 80 {
		g.t.Fatalf("a state takes %d bytes", size)
	}
	if stats.Active != len(g.buffered) || stats.Entries != entries || stats.Bytes != bytes ||
		stats.Armed+stats.Queued != stats.Active {
		g.t.Fatalf("stats %+v, want %d logs with %d entries of %d bytes", stats, len(g.buffered), entries, bytes)
	}
	oldest, ok := g.s.Oldest()
	if ok != (len(g.buffered) > 0) || ok && (oldest > lowest || lowest-oldest >= firstsBlock) {
		g.t.Fatalf("oldest is %d, %v, the lowest first sequence %d", oldest, ok, lowest)
	}
	earliest, first, ok := g.s.Earliest()
	if ok != (len(g.buffered) > 0) || ok && (first != lowest || g.buffered[earliest][0].Seq != lowest) {
		g.t.Fatalf("the earliest log is %s from %d, %v, the lowest first sequence %d", earliest, first, ok, lowest)
	}
	g.checkPlaces()
}

// checkPlaces holds invariant 5 in memory: every active log is in exactly one place, and the lists hold nothing else.
func (g *rig) checkPlaces() {
	g.t.Helper()
	s := g.s
	s.mu.Lock()
	defer s.mu.Unlock()
	found := make(map[uint32]int)
	walk := func(ls list, want place, at int64) {
		last := uint32(0)
		for i := ls.head; i != 0; i = s.mu.table.get(i).next {
			l := s.mu.table.get(i)
			if found[i]++; l.place != want || want == inSlot && l.at != at || l.prev != last {
				g.t.Fatalf("%s is on a list for %d at %d, it says %d at %d", l.id, want, at, l.place, l.at)
			}
			last = i
		}
		if ls.tail != last {
			g.t.Fatal("a list does not end with its tail")
		}
	}
	for k, sl := range s.mu.slots {
		walk(sl.logs, inSlot, k)
	}
	walk(s.mu.outbox, inOutbox, 0)
	awaiting := 0
	for log, i := range s.mu.table.index {
		l := s.mu.table.get(i)
		if l.place == inFlight {
			found[i]++
		}
		if l.state == queued && l.place == inSlot {
			awaiting++
		}
		if found[i] != 1 || l.id != log || l.state != armed && l.state != queued {
			g.t.Fatalf("%s is in %d places, state %d", log, found[i], l.state)
		}
		if l.state == armed && l.place != inSlot {
			g.t.Fatalf("%s is armed and in place %d", log, l.place)
		}
		delete(found, i)
	}
	if len(found) > 0 {
		g.t.Fatalf("%d states on lists belong to no active log", len(found))
	}
	if awaiting != s.mu.awaiting {
		g.t.Fatalf("%d logs await their commit, %d are counted", awaiting, s.mu.awaiting)
	}
}

// checkPrompt holds invariant 5 in time: while publishing works, no log waits longer than its bound.
func (g *rig) checkPrompt(slack time.Duration) {
	g.t.Helper()
	defer g.lock()()
	for log := range g.buffered {
		since := g.armedAt[log].Add(g.delayOf(log))
		if g.settled.After(since) {
			since = g.settled // a shorter delay cannot have been obeyed before it was settled
		}
		if _, published := g.queuedAt[log]; !published && time.Since(since) > slack {
			g.t.Fatalf("%s was armed %s ago and never queued", log, time.Since(g.armedAt[log]))
		}
		if at, published := g.queuedAt[log]; published && time.Since(at) > testRequeue+testRequeue/requeueSlots+slack {
			g.t.Fatalf("%s was queued %s ago, not committed, and not queued again", log, time.Since(at))
		}
	}
}

// TestModel drives random interleavings of append, deadline, full, commit in part and whole, refused and slow
// publishes, redelivery, requeue, collect, expedite and changes of the policies against the books.
func TestModel(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newRig(t, seed)
				g.run()
				defer func() { g.stop() }()
				refusedUntil := time.Now()
				for range 600 {
					g.step(&refusedUntil)
					synctest.Wait()
					g.check()
					if time.Since(refusedUntil) > 6*time.Second { // the publishers' longest pause is 5 s, plus jitter
						g.checkPrompt(100 * time.Millisecond)
					}
				}
				g.set(false, false)
				time.Sleep(longTestDelay + 10*time.Second)
				synctest.Wait()
				g.checkPrompt(100 * time.Millisecond)
				for log := range g.buffered {
					g.commit(log, len(g.buffered[log]))
				}
				g.check()
				if s := g.s.Stats(); s != (Stats{}) {
					t.Fatalf("with everything committed stats are %+v", s)
				}
			})
		})
	}
}

// step does one random thing and lets some time pass.
func (g *rig) step(refusedUntil *time.Time) {
	log := fmt.Sprintf("t.%d", g.r.IntN(12))
	switch g.r.IntN(21) {
	case 0, 1, 2, 3, 4, 5, 6, 7:
		g.append(log, uint64(g.r.IntN(100)))
	case 8:
		g.append(log, testFull)
	case 9, 10, 11, 12: // commit, also of a log that is armed only: a duplicate work item drained it
		if n := len(g.buffered[log]); n > 0 {
			g.commit(log, 1+g.r.IntN(n))
		}
	case 13:
		g.set(!g.settings.refuse, g.settings.slow)
	case 14:
		g.set(g.settings.refuse, !g.settings.slow)
	case 15:
		g.redrain(log)
	case 16:
		g.s.Expedite()
	case 17:
		commitOne(g.s, "t.unknown", 1, 1, 0, time.Time{})
	case 18:
		time.Sleep(time.Duration(g.r.IntN(3000)) * time.Millisecond)
	case 19:
		if g.r.IntN(2) == 0 {
			g.s.Collect()
		} else {
			g.s.Release()
		}
	case 20:
		g.settle(g.randomPolicies())
	}
	if g.settings.refuse {
		*refusedUntil = time.Now()
	}
	time.Sleep(time.Duration(g.r.IntN(40)) * time.Millisecond)
}

// redrain is a redelivered work item: the log is drained again, and its requeue put off.
func (g *rig) redrain(log string) {
	defer g.lock()()
	if _, published := g.queuedAt[log]; published && g.awaitsCommit(log) {
		g.queuedAt[log] = time.Now()
	}
	g.s.Drained([]string{log})
}

// awaitsCommit reports whether a log waits to be queued again. One that is being queued again already is not put off.
func (g *rig) awaitsCommit(log string) bool {
	g.s.mu.Lock()
	defer g.s.mu.Unlock()
	i, ok := g.s.mu.table.index[log]
	if !ok {
		return false
	}
	l := g.s.mu.table.get(i)
	return l.state == queued && l.place == inSlot
}
