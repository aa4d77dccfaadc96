package scheduler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/prometheus/client_golang/prometheus"
)

// never has queued logs wait for ever, so that nothing is found again by its requeue.
func never(c *Config) { c.RequeueAfter = 24 * time.Hour }

// TestCommitThatLeavesMuch: what is left of a log may be as much as makes one ready at once.
func TestCommitThatLeavesMuch(t *testing.T) {
	bubble(t, func(g *rig) {
		g.append("t.a", 1)
		g.append("t.a", testFull)
		if !g.queued("t.a") {
			t.Fatal("full and not queued")
		}
		g.commit("t.a", 1)
		if !g.queued("t.a") {
			t.Fatal("full after the commit and not queued")
		}
		g.check()
	}, never)
}

// TestCommitThatLeavesNothing: then nothing is left in the sums, even if it was more than they say was committed.
func TestCommitThatLeavesNothing(t *testing.T) {
	bubble(t, func(g *rig) {
		g.append("t.a", 10)
		g.append("t.a", 10)
		commitOne(g.s, "t.a", 1, 10, 0, time.Time{})
		if s := g.s.Stats(); s != (Stats{}) {
			t.Fatalf("%+v", s)
		}
	})
}

// TestDrainedWhileItWaitsToBePublished: a work item that is delivered again does not keep a log from being published.
func TestDrainedWhileItWaitsToBePublished(t *testing.T) {
	bubble(t, func(g *rig) {
		g.set(true, false)
		g.append("t.a", testFull)
		synctest.Wait()
		g.s.Drained([]string{"t.a"})
		g.set(false, false)
		time.Sleep(10 * time.Second) // the publishers' longest pause
		if !g.queued("t.a") {
			t.Fatal("it was not published")
		}
		g.check()
	}, never)
}

// TestCommitMakesRoomInTheQueue: a full queue takes as many logs as its bound, and a commit lets in a log of the
// outbox.
func TestCommitMakesRoomInTheQueue(t *testing.T) {
	bubble(t, func(g *rig) {
		for i := range 4 {
			g.append(fmt.Sprint("t.", i), testFull)
		}
		synctest.Wait()
		for i := 4; i < 8; i++ { // all of these are in the outbox, none in a run
			g.append(fmt.Sprint("t.", i), testFull)
			if g.queued(fmt.Sprint("t.", i)) {
				t.Fatal("published beyond the bound")
			}
		}
		for i := range 4 {
			g.commit(fmt.Sprint("t.", i), 1)
			if !g.queued(fmt.Sprint("t.", 4+i)) {
				t.Fatalf("commit %d let nobody in", i)
			}
		}
		g.check()
	}, never, func(c *Config) { c.QueueLogs, c.BatchLogs, c.Publishers = 4, 1, 1 })
}

// TestPublishersWorkSideBySide: the logs of one slot keep all publishers busy.
func TestPublishersWorkSideBySide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		busy := make(chan []string, 10)
		g := newRig(t, 1, never, func(c *Config) {
			c.Publish = func(_ context.Context, logs []string) error { busy <- logs; time.Sleep(time.Second); return nil }
		})
		g.run()
		defer func() { g.stop() }()
		for i := range 8 { // two batches
			g.append(fmt.Sprint("t.", i), 1)
		}
		time.Sleep(testDelay + 2*DefaultTick)
		if synctest.Wait(); len(busy) != 2 {
			t.Fatalf("%d of 2 publishers are busy", len(busy))
		}
	})
}

// scripted runs a scheduler whose batches wait for the test's word, each on a channel of its own.
func scripted(t *testing.T, fn func(t *testing.T, s *Scheduler, batches <-chan scriptedBatch)) {
	synctest.Test(t, func(t *testing.T) {
		batches := make(chan scriptedBatch, 100)
		g := newRig(t, 1, never, func(c *Config) {
			c.Publish = func(ctx context.Context, logs []string) error {
				b := scriptedBatch{logs, make(chan error)}
				batches <- b
				select {
				case err := <-b.landed:
					return err
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		})
		g.run()
		defer func() { g.stop() }()
		fn(t, g.s, batches)
	})
}

type scriptedBatch struct {
	logs   []string
	landed chan error
}

// TestLandingOfAnEarlierFlight: a log that was committed and is being published again is not taken for published when
// the first batch lands, nor forgotten when the second one is refused.
func TestLandingOfAnEarlierFlight(t *testing.T) {
	scripted(t, func(t *testing.T, s *Scheduler, batches <-chan scriptedBatch) {
		full := []Arrival{{Log: "t.a", Seq: 1, Bytes: testFull, Time: time.Now()}}
		s.Append(full)
		first := <-batches
		commitOne(s, "t.a", 1, testFull, 0, time.Time{})
		full[0].Seq = 2
		s.Append(full)
		second := <-batches
		began := time.Now()
		first.landed <- nil
		synctest.Wait()
		second.landed <- errors.New("refused")
		third := <-batches
		if len(third.logs) != 1 || third.logs[0] != "t.a" || time.Since(began) > time.Minute {
			t.Fatalf("published again: %v, after %s", third.logs, time.Since(began))
		}
		third.landed <- nil
	})
}

// TestLandingAfterTheTableShrank: states have moved while a batch was under way.
func TestLandingAfterTheTableShrank(t *testing.T) {
	scripted(t, func(t *testing.T, s *Scheduler, batches <-chan scriptedBatch) {
		const logs = 2 * shrinkStates
		for i := range logs {
			s.Append([]Arrival{{Log: fmt.Sprint("t.", i), Seq: uint64(i + 1), Bytes: 1, Time: time.Now()}})
		}
		s.Append([]Arrival{{Log: "u.a", Seq: logs + 1, Bytes: testFull, Time: time.Now()}})
		batch := <-batches
		for i := range logs {
			commitOne(s, fmt.Sprint("t.", i), 1, 1, 0, time.Time{})
		}
		if s.mu.tables == 0 {
			t.Fatal("the table did not shrink")
		}
		batch.landed <- errors.New("refused")
		again := <-batches
		if len(again.logs) != 1 || again.logs[0] != "u.a" {
			t.Fatalf("published again: %v", again.logs)
		}
		again.landed <- nil
	})
}

// TestLatenessIsOfDeadlines: a log that was ready for another reason has no lateness.
func TestLatenessIsOfDeadlines(t *testing.T) {
	registry := prometheus.NewRegistry()
	bubble(t, func(g *rig) {
		observed := func() (samples uint64, sum float64) {
			synctest.Wait()
			families, err := registry.Gather()
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range families {
				if f.GetName() == "dormouse_deadline_lateness_seconds" {
					h := f.GetMetric()[0].GetHistogram()
					return h.GetSampleCount(), h.GetSampleSum()
				}
			}
			t.Fatal("no such metric")
			return 0, 0
		}
		g.append("t.full", 1)
		g.append("t.full", testFull)
		if n, _ := observed(); n != 0 {
			t.Errorf("%d samples after a log that was full before its deadline", n)
		}
		g.append("t.due", 1)
		time.Sleep(testDelay + 2*DefaultTick)
		if n, sum := observed(); n != 1 || sum > 0.1 {
			t.Errorf("%d samples, %v s, after one log that was due", n, sum)
		}
		g.append("t.due", testFull)
		g.commit("t.due", 1)
		if n, _ := observed(); n != 1 {
			t.Errorf("%d samples after a commit that left a full log", n)
		}
	}, never, func(c *Config) { c.Metrics = NewMetrics(registry) })
}

// TestStuckWheelsSlotsMove: a slot that is not due when the wheel is replaced fires on the new one.
func TestStuckWheelsSlotsMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const delay = 3 * time.Second
		g := newRig(t, 1, never, func(c *Config) { c.MaxDelay = delay })
		made := 0
		quit := make(chan struct{})
		defer close(quit)
		g.s.newWheel = func(tick time.Duration, size int64) wheel {
			if made++; made == 1 {
				return stuckWheel{quit}
			}
			return newTimingWheel(tick, size)
		}
		g.run()
		defer func() { g.stop() }()
		g.append("t.a", 1)
		time.Sleep(delay - 100*time.Millisecond)
		g.append("t.b", 1)
		time.Sleep(delay + 2*DefaultTick)
		if !g.queued("t.a") || !g.queued("t.b") || made != 2 {
			t.Fatalf("queued: %v, %v; %d wheels were made", g.queued("t.a"), g.queued("t.b"), made)
		}
	})
}

// TestOldestOfRestoredLogs: logs are restored in the order of their names, not of their sequences. A floor above what
// is buffered would trim it.
func TestOldestOfRestoredLogs(t *testing.T) {
	s, _ := hourly(t, 1)
	lowest := uint64(100 * firstsBlock)
	for i := range 50 {
		lowest -= firstsBlock + uint64(i)
		s.Restore(fmt.Sprintf("t.%02d", i), Pending{First: lowest, Last: lowest, Count: 1}, time.Now())
		if oldest, ok := s.Oldest(); !ok || oldest > lowest || lowest-oldest >= firstsBlock {
			t.Fatalf("the oldest is %d, %v, want %d to within a block", oldest, ok, lowest)
		}
	}
}

// TestPausesBeginAnew: after a success the first refusal is tried again soon.
func TestPausesBeginAnew(t *testing.T) {
	bubble(t, func(g *rig) {
		g.set(true, false)
		g.append("t.a", testFull)
		time.Sleep(time.Minute) // the pauses are long now
		g.set(false, false)
		time.Sleep(10 * time.Second)
		if !g.queued("t.a") {
			t.Fatal("not published")
		}
		g.set(true, false)
		g.append("t.b", testFull)
		synctest.Wait()
		g.set(false, false)
		time.Sleep(200 * time.Millisecond)
		if !g.queued("t.b") {
			t.Fatal("the first pause after a success is as long as the last one before it")
		}
	}, never, func(c *Config) { c.Publishers = 1 })
}

// TestBounds of what is held at once.
func TestBounds(t *testing.T) {
	s, err := New(Config{MaxDelay: 10 * time.Hour, RequeueAfter: time.Hour, MaxBytes: 1,
		Publish: func(context.Context, []string) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	s.newWheel = func(tick time.Duration, size int64) wheel {
		if size > 2*mostWheelSlots || tick != DefaultTick {
			t.Errorf("for a delay of ten hours there is a wheel of %d buckets of %s", size, tick)
		}
		return newTimingWheel(tick, size)
	}
	newClock(s).stop()
	all := make([]Arrival, runLogs+1)
	for i := range all {
		all[i] = Arrival{Log: "t." + strconv.Itoa(i), Seq: uint64(i + 1), Bytes: 1, Time: time.Now()}
	}
	s.Append(all)
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len((&publisher{s: s}).takeRunLocked().logs); n != runLogs {
		t.Errorf("%d logs are sorted together, want %d", n, runLogs)
	}
}

// TestLongNamesAreSorted: names that differ only behind the bytes that are compared first.
func TestLongNamesAreSorted(t *testing.T) {
	r := run{states: []uint32{1, 2, 3, 4}, logs: []string{"t.the.same.for.sixteen.bytes.b",
		"t.the.same.for.sixteen.bytes.a", "t.the.same.for.sixteen.bytes", "t.z"}}
	r.sort()
	if !slices.IsSorted(r.logs) || !slices.Equal(r.states, []uint32{3, 2, 1, 4}) {
		t.Errorf("%v, %v", r.logs, r.states)
	}
}

// TestNamesAreCloned: what is kept of an arrival does not hold the memory of all the others that came with it.
func TestNamesAreCloned(t *testing.T) {
	s, _ := hourly(t, 1)
	name := strings.Repeat("x", 1<<10)[:7]
	s.Append([]Arrival{{Log: name, Seq: 1, Bytes: 1, Time: time.Now()}})
	if kept := s.mu.table.get(s.mu.table.index[name]).id; kept != name ||
		unsafe.StringData(kept) == unsafe.StringData(name) {
		t.Errorf("%q shares the memory of the arrival", kept)
	}
}

// farthest remembers the longest delay that a wheel was given.
type farthest struct {
	wheel
	wait *atomic.Int64
}

func (w farthest) AfterFunc(d time.Duration, f func()) {
	w.wait.Store(max(w.wait.Load(), int64(d)))
	w.wheel.AfterFunc(d, f)
}

// TestNoTimerIsFar: a delay near the wheel's whole span can hang it.
func TestNoTimerIsFar(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, 1, never)
		var wait, span atomic.Int64
		g.s.newWheel = func(tick time.Duration, size int64) wheel {
			span.Store(int64(tick) * size)
			return farthest{newTimingWheel(tick, size), &wait}
		}
		g.run()
		defer func() { g.stop() }()
		g.append("t.a", testFull) // queued again in a day
		time.Sleep(time.Minute)
		if synctest.Wait(); wait.Load() == 0 || wait.Load() > span.Load()/2 {
			t.Errorf("a timer of %s on a wheel of %s", time.Duration(wait.Load()), time.Duration(span.Load()))
		}
	})
}

// TestBoarding: what falls due within the next fifth of the delay goes with what is due; what falls due later does not,
// and nothing does without a log that is due.
func TestBoarding(t *testing.T) {
	bubble(t, func(g *rig) {
		g.append("t.first", 1)
		time.Sleep(testDelay / BoardShare / 2)
		g.append("t.boards", 1)
		time.Sleep(testDelay/BoardShare/2 + 2*DefaultTick)
		g.append("t.waits", 1)
		time.Sleep(testDelay - testDelay/BoardShare - 4*DefaultTick)
		if g.queued("t.first") {
			t.Error("t.first is queued before it is due")
		}
		time.Sleep(3 * DefaultTick)
		if !g.queued("t.first") || !g.queued("t.boards") || g.queued("t.waits") {
			t.Errorf("queued: t.first %v, t.boards %v, t.waits %v", g.queued("t.first"), g.queued("t.boards"),
				g.queued("t.waits"))
		}
		g.append("t.last", 1)
		time.Sleep(testDelay/BoardShare/2 + DefaultTick) // the timer of t.boards fires, for nothing
		if g.queued("t.waits") {
			t.Error("t.waits is queued with a slot that is empty")
		}
		time.Sleep(testDelay / BoardShare)
		if !g.queued("t.waits") || g.queued("t.last") {
			t.Errorf("queued: t.waits %v, t.last %v", g.queued("t.waits"), g.queued("t.last"))
		}
	})
}

// TestBoardingFillsADrain: no more board than a worker drains at once.
func TestBoardingFillsADrain(t *testing.T) {
	bubble(t, func(g *rig) {
		g.append("t.first", 1)
		time.Sleep(2 * DefaultTick)
		for i := range 2 * boardLogs {
			if i == boardLogs/2 { // the others fall due in another slot
				time.Sleep(DefaultTick)
			}
			g.append(fmt.Sprintf("t.%05d", i), 1)
		}
		time.Sleep(testDelay - 2*DefaultTick)
		synctest.Wait()
		if got := g.s.Stats(); got.Queued != boardLogs || got.Armed != boardLogs+1 {
			t.Errorf("%d logs are queued, want %d; %d are left", got.Queued, boardLogs, got.Armed)
		}
	})
}
