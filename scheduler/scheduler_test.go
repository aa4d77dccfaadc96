package scheduler

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// bubble runs a test on fake time with a running scheduler.
func bubble(t *testing.T, fn func(*rig), change ...func(*Config)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, 1, change...)
		g.run()
		defer func() { g.stop() }()
		fn(g)
	})
}

func (g *rig) queued(log string) bool {
	synctest.Wait()
	defer g.lock()()
	_, ok := g.queuedAt[log]
	return ok
}

// commitOne takes the commit of the first count entries of a log, with bytes in all. The first entry that is left, if
// next is not 0, has that sequence and time.
func commitOne(s *Scheduler, log string, count, bytes, next uint64, at time.Time) {
	c := Commit{Log: log, Last: next - 1, Count: count, Bytes: bytes} // of next 0: all
	if err := s.Committed([]Commit{c}, func(string, uint64) (uint64, time.Time, error) {
		return next, at, nil
	}); err != nil {
		panic(err) // the function above returns none
	}
}

// TestCommitsOfARecord: they are taken in one step, what is left is asked for only where something is, and what cannot
// be told leaves the commits from there on untaken.
func TestCommitsOfARecord(t *testing.T) {
	bubble(t, func(g *rig) {
		for _, log := range []string{"t.a", "t.b", "t.c", "t.d"} {
			g.append(log, 1)
		}
		g.append("t.b", 1)
		pending := func(log string) Pending { p, _ := g.s.Pending(log); return p }
		all := func(log string) Commit {
			p := pending(log)
			return Commit{Log: log, Last: p.Last, Count: p.Count, Bytes: p.Bytes}
		}
		b := pending("t.b")
		var asked []string
		rest := func(log string, from uint64) (uint64, time.Time, error) {
			asked = append(asked, fmt.Sprint(log, from))
			if log == "t.c" {
				return 0, time.Time{}, errors.New("it cannot be read")
			}
			return b.Last, time.Now(), nil
		}
		half := Commit{Log: "t.b", Last: b.First, Count: 1, Bytes: b.Bytes / 2}
		if err := g.s.Committed([]Commit{all("t.a"), {Log: "t.unknown", Last: 9}, half}, rest); err != nil {
			t.Fatal(err)
		}
		if got := pending("t.b"); got.First != b.Last || got.Count != 1 || got.Bytes != b.Bytes-b.Bytes/2 {
			t.Errorf("left of t.b is %+v of %+v", got, b)
		}
		if _, active := g.s.Pending("t.a"); active || !slices.Equal(asked, []string{fmt.Sprint("t.b", b.First+1)}) {
			t.Errorf("t.a is active: %v; asked for %q", active, asked)
		}
		before := g.s.Stats()
		if err := g.s.Committed([]Commit{{Log: "t.c", Last: pending("t.c").First - 1}, all("t.d")}, rest); err == nil ||
			g.s.Stats() != before {
			t.Errorf("%v, %+v, want %+v", err, g.s.Stats(), before)
		}
	})
}

func TestDeadlineIsThatOfTheFirstEntry(t *testing.T) {
	bubble(t, func(g *rig) {
		g.append("t.a", 1)
		time.Sleep(testDelay * 3 / 4)
		g.append("t.a", 1)
		if g.queued("t.a") {
			t.Fatal("queued before its deadline")
		}
		time.Sleep(testDelay/4 + DefaultTick)
		if !g.queued("t.a") {
			t.Fatal("a later entry put the deadline off")
		}
	})
}

func TestFullLogIsReadyAtOnce(t *testing.T) {
	bubble(t, func(g *rig) {
		g.append("t.a", testFull-1)
		if g.queued("t.a") {
			t.Fatal("queued before it was full")
		}
		g.append("t.a", 1)
		if !g.queued("t.a") {
			t.Fatal("full and not queued")
		}
	})
}

func TestArrivalClocksAreNotTrusted(t *testing.T) {
	bubble(t, func(g *rig) {
		g.s.Append([]Arrival{{Log: "t.ahead", Seq: 1, Time: time.Now().Add(time.Hour)},
			{Log: "t.old", Seq: 2, Time: time.Now().Add(-time.Hour)}})
		time.Sleep(2 * DefaultTick)
		if !g.queued("t.old") || g.queued("t.ahead") {
			t.Fatal("an entry from long ago is due at once, one from the future is not")
		}
		time.Sleep(testDelay)
		if !g.queued("t.ahead") {
			t.Fatal("a clock that is ahead put the deadline off")
		}
	})
}

func TestRestoreWithoutRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, 1)
		g.s.Restore("t.a", Pending{First: 5, Last: 9, Count: 3, Bytes: 30}, time.Now().Add(-time.Minute))
		g.s.Restore("t.full", Pending{First: 6, Last: 8, Count: 2, Bytes: testFull}, time.Now())
		g.run()
		defer func() { g.stop() }()
		time.Sleep(2 * DefaultTick)
		if !g.queued("t.a") || !g.queued("t.full") {
			t.Fatal("what was armed before Run must fire after it")
		}
	})
}

// TestCollect: what is overdue on arrival waits for Release, and without it at most the maximum delay; the rest is as
// ever.
func TestCollect(t *testing.T) {
	bubble(t, func(g *rig) {
		overdue := func(log string) {
			g.seq++
			g.s.Append([]Arrival{{Log: log, Seq: g.seq, Bytes: 1, Time: time.Now().Add(-time.Hour)}})
		}
		g.s.Collect()
		overdue("t.old")
		g.append("t.new", 1)
		g.append("t.full", testFull)
		time.Sleep(testDelay / 2)
		if g.queued("t.old") || !g.queued("t.full") {
			t.Fatal("while collecting, a log that is full is ready and one that is overdue is not")
		}
		g.s.Release()
		if !g.queued("t.old") || g.queued("t.new") {
			t.Fatal("Release makes what is overdue ready, and nothing else")
		}
		g.s.Collect()
		overdue("t.forgotten")
		time.Sleep(testDelay + 2*DefaultTick)
		if !g.queued("t.forgotten") || !g.queued("t.new") {
			t.Fatal("collecting put a log off beyond its maximum delay")
		}
	})
}

// TestQueueIsBounded: no more logs are published than may await their commits, and those that wait go on when one is
// committed or given up.
func TestQueueIsBounded(t *testing.T) {
	const logs, bound, batch, publishers = 100, 8, 4, 2
	name := func(i int) string { return fmt.Sprintf("t.%02d", i) }
	bubble(t, func(g *rig) {
		published := func() int {
			synctest.Wait()
			defer g.lock()()
			return len(g.queuedAt)
		}
		for i := range logs {
			g.append(name(i), 1)
		}
		time.Sleep(testDelay + 2*DefaultTick)
		if n := published(); n < bound || n >= bound+publishers*batch {
			t.Fatalf("%d logs are published and not committed, the bound is %d", n, bound)
		}
		for i := range logs / 2 { // in the order of their names, which is that of publishing
			if !g.queued(name(i)) {
				t.Fatalf("%s was not published when those before it were committed", name(i))
			}
			g.commit(name(i), 1)
		}
		g.check()
		for n := 0; n < logs/2; { // nobody commits the rest: each has its turn all the same
			time.Sleep(testRequeue)
			if n = published(); n < bound {
				t.Fatalf("only %d logs are published", n)
			}
		}
		g.check()
	}, func(c *Config) { c.QueueLogs, c.BatchLogs, c.Publishers = bound, batch, publishers })
}

// TestCommitWhileInFlight commits a log in part while a publisher has it: it must be armed anew, once.
func TestCommitWhileInFlight(t *testing.T) {
	bubble(t, func(g *rig) {
		g.set(false, true)
		g.append("t.a", 1)
		time.Sleep(testDelay + DefaultTick) // the publisher sleeps in Publish now
		g.append("t.a", 1)
		g.commit("t.a", 1)
		g.check()
		time.Sleep(20 * time.Millisecond)
		g.check()
		if s := g.s.Stats(); s.Armed != 1 || s.Queued != 0 {
			t.Fatalf("after a partial commit in flight: %+v", s)
		}
		time.Sleep(testDelay + 2*DefaultTick)
		if !g.queued("t.a") {
			t.Fatal("the rest was forgotten")
		}
	})
}

// TestRefusedPublishIsRetried: a batch that was refused goes back to the outbox, and does not wait for its requeue.
func TestRefusedPublishIsRetried(t *testing.T) {
	bubble(t, func(g *rig) {
		g.set(true, false)
		for i := range 10 {
			g.append(fmt.Sprintf("t.%d", i), 1)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		unlock := g.lock()
		refusals := g.refusals
		unlock()
		if refusals < 5 || refusals > 100 || g.s.Stats().Queued != 10 {
			t.Fatalf("%d tries in a minute, %+v", refusals, g.s.Stats())
		}
		g.set(false, false)
		time.Sleep(10 * time.Second)
		for i := range 10 {
			if !g.queued(fmt.Sprintf("t.%d", i)) {
				t.Fatalf("t.%d was forgotten", i)
			}
		}
	}, func(c *Config) { c.RequeueAfter = time.Hour })
}

// TestManyLogsInOneTick: one timer and no goroutine for all of them.
func TestManyLogsInOneTick(t *testing.T) {
	bubble(t, func(g *rig) {
		synctest.Wait()
		before := runtime.NumGoroutine()
		for i := range 100_000 {
			g.s.Append([]Arrival{{Log: fmt.Sprintf("t.%d", i), Seq: uint64(i + 1), Time: time.Now()}})
		}
		g.s.mu.Lock()
		slots := len(g.s.mu.slots)
		g.s.mu.Unlock()
		if slots != 1 {
			t.Errorf("%d slots for one tick", slots)
		}
		peak := 0
		for range 100 {
			time.Sleep(testDelay / 50)
			peak = max(peak, runtime.NumGoroutine())
		}
		if s := g.s.Stats(); s.Queued != 100_000 || peak > before+5 {
			t.Errorf("%+v, %d goroutines at the peak, %d before", s, peak, before)
		}
	}, func(c *Config) { c.BatchLogs = 256; c.Publish = func(context.Context, []string) error { return nil } })
}

// stuckWheel never fires, and its AfterFunc blocks, as a deadlocked wheel's does.
type stuckWheel struct{ quit chan struct{} }

func (stuckWheel) Start()                            {}
func (w stuckWheel) Stop()                           {}
func (w stuckWheel) AfterFunc(time.Duration, func()) { <-w.quit }

func TestStuckWheelIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, 1)
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
		time.Sleep(testDelay + 2500*time.Millisecond)
		if !g.queued("t.a") || made != 2 {
			t.Fatalf("a stuck wheel held the log up; %d wheels made", made)
		}
		g.append("t.b", 1)
		time.Sleep(testDelay + 2*DefaultTick)
		if !g.queued("t.b") {
			t.Fatal("the new wheel does not fire")
		}
	})
}

// hastyWheel fires its first timers at once, as after a wall clock that jumped ahead.
type hastyWheel struct {
	wheel
	left *atomic.Int64
}

func (w hastyWheel) AfterFunc(d time.Duration, f func()) {
	if w.left.Add(-1) >= 0 {
		d = 0
	}
	w.wheel.AfterFunc(d, f)
}

func TestClockThatJumpsAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, 1)
		var left atomic.Int64
		left.Store(3)
		g.s.newWheel = func(tick time.Duration, size int64) wheel { return hastyWheel{newTimingWheel(tick, size), &left} }
		g.run()
		defer func() { g.stop() }()
		g.append("t.a", 1)
		time.Sleep(testDelay / 2)
		if g.queued("t.a") {
			t.Fatal("queued long before its deadline")
		}
		time.Sleep(testDelay/2 + 2*DefaultTick)
		if !g.queued("t.a") || left.Load() >= 0 {
			t.Fatal("the early timer was not set again")
		}
	})
}

// TestLongDelaysHop arms a deadline far beyond the requeue and a requeue far beyond the wheel's span.
func TestLongDelaysHop(t *testing.T) {
	bubble(t, func(g *rig) {
		g.append("t.a", 1)
		time.Sleep(time.Second)
		if !g.queued("t.a") {
			t.Fatal("not queued")
		}
		unlock := g.lock()
		first := g.queuedAt["t.a"]
		unlock()
		time.Sleep(10*time.Hour + 10*time.Minute)
		synctest.Wait()
		defer g.lock()()
		if again := g.queuedAt["t.a"]; again.Sub(first) < 10*time.Hour {
			t.Fatalf("queued again after %s", again.Sub(first))
		}
	}, func(c *Config) { c.RequeueAfter = 10 * time.Hour })
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestSleepingLogsLeaveNoMemory holds invariant 7: 300,000 logs that were active cost nothing once they sleep, and
// while active each costs less than 250 bytes with its LogID.
func TestSleepingLogsLeaveNoMemory(t *testing.T) {
	s, err := New(Config{MaxDelay: time.Hour, RequeueAfter: time.Hour, MaxBytes: 1 << 20,
		Publish: func(context.Context, []string) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	const logs = 300_000
	before := heap()
	name := func(i int) string { return fmt.Sprintf("tenant%d.log%d", i%1000, i) }
	for i := range logs {
		s.Append([]Arrival{{Log: name(i), Seq: uint64(i + 1), Time: time.Now()}})
	}
	if each := (heap() - before) / logs; each > 250 {
		t.Errorf("an active log takes %d bytes", each)
	}
	for i := range logs - 10 {
		commitOne(s, name(i), 1, 0, 0, time.Time{})
	}
	if left := heap() - before; left > 2<<20 {
		t.Errorf("ten active logs and 299,990 that sleep hold %d bytes", left)
	}
	for i := logs - 10; i < logs; i++ {
		if p, ok := s.Pending(name(i)); !ok || p.First != uint64(i+1) {
			t.Fatalf("%s is %+v, %v", name(i), p, ok)
		}
		commitOne(s, name(i), 1, 0, 0, time.Time{})
	}
	if s.Stats() != (Stats{}) {
		t.Errorf("%+v", s.Stats())
	}
	runtime.KeepAlive(s)
}

func TestConfigIsChecked(t *testing.T) {
	good := Config{MaxDelay: time.Second, RequeueAfter: time.Second, MaxBytes: 1,
		Publish: func(context.Context, []string) error { return nil }}
	for name, change := range map[string]func(*Config){
		"no delay":   func(c *Config) { c.MaxDelay = 0 },
		"no requeue": func(c *Config) { c.RequeueAfter = 0 },
		"no size":    func(c *Config) { c.MaxBytes = 0 },
		"no publish": func(c *Config) { c.Publish = nil },
		"tiny tick":  func(c *Config) { c.Tick = time.Microsecond },
	} {
		bad := good
		change(&bad)
		if _, err := New(bad); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := New(good); err != nil {
		t.Error(err)
	}
}

func BenchmarkArm(b *testing.B) {
	s, err := New(Config{MaxDelay: time.Hour, RequeueAfter: time.Hour, MaxBytes: 1 << 40,
		Publish: func(context.Context, []string) error { return nil }})
	if err != nil {
		b.Fatal(err)
	}
	names := make([]string, 1<<20)
	for i := range names {
		names[i] = fmt.Sprintf("tenant%d.log%d", i%1000, i)
	}
	now := time.Now()
	batch := make([]Arrival, 1)
	b.Run("active", func(b *testing.B) {
		b.ReportAllocs()
		s.Append([]Arrival{{Log: names[0], Seq: 1, Time: now}})
		for b.Loop() {
			batch[0] = Arrival{Log: names[0], Seq: 2, Bytes: 1, Time: now}
			s.Append(batch)
		}
	})
	b.Run("sleeping", func(b *testing.B) {
		b.ReportAllocs()
		i := 1 // names[0] is active: one allocation less, and the average would be rounded down to none
		for b.Loop() {
			batch[0] = Arrival{Log: names[i%len(names)], Seq: uint64(i + 1), Bytes: 1, Time: now}
			s.Append(batch)
			commitOne(s, names[i%len(names)], 1, 1, 0, now)
			i++
		}
	})
}
