package scheduler

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dormouse/internal/policy"
)

// fakePolicies are the policies of a test.
type fakePolicies struct {
	mu      sync.Mutex
	set     *policy.Set
	changed chan struct{}
}

func newFakePolicies() *fakePolicies { return &fakePolicies{changed: make(chan struct{})} }

func (f *fakePolicies) Current() *policy.Set {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.set
}

func (f *fakePolicies) Changed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changed
}

func (f *fakePolicies) change(set *policy.Set) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.set = set
	close(f.changed)
	f.changed = make(chan struct{})
}

type policies = map[policy.Pattern]policy.Policy

// settle makes policies those in force.
func (g *rig) settle(all policies) {
	g.t.Helper()
	set, err := policy.NewSet(all)
	if err != nil {
		g.t.Fatal(err)
	}
	unlock := g.lock()
	g.settled = time.Now()
	unlock()
	g.policies.change(set)
}

const longTestDelay = 20 * time.Second

// randomPolicies settle something for some of the logs of the model.
func (g *rig) randomPolicies() policies {
	all := policies{}
	for range g.r.IntN(6) {
		p := policy.Policy{Keep: time.Hour}
		if g.r.IntN(3) > 0 {
			p.MaxDelay = []time.Duration{policy.MinMaxDelay, testDelay / 2, 3 * testDelay, longTestDelay}[g.r.IntN(4)]
		}
		if g.r.IntN(3) == 0 {
			p.MaxBytes = []uint64{1, testFull / 3, 3 * testFull}[g.r.IntN(3)]
		}
		pattern := policy.Pattern(fmt.Sprintf("t.%d", g.r.IntN(12)))
		if g.r.IntN(4) == 0 {
			pattern = "t.*"
		}
		all[pattern] = p
	}
	return all
}

func (g *rig) delayOf(log string) time.Duration {
	if delay := g.policies.Current().Lookup(log).MaxDelay; delay > 0 {
		return delay
	}
	return testDelay
}

// TestPoliciesOfALog: its own delay and size hold instead of the configuration's, be they more or less.
func TestPoliciesOfALog(t *testing.T) {
	bubble(t, func(g *rig) {
		g.settle(policies{"t.slow": {MaxDelay: time.Hour}, "t.fast": {MaxDelay: testDelay / 4}, "t.small": {MaxBytes: 10},
			"t.large": {MaxBytes: 2 * testFull, MaxDelay: time.Hour}})
		synctest.Wait()
		for _, log := range []string{"t.slow", "t.fast", "t.small", "t.other"} {
			g.append(log, 9)
		}
		g.append("t.large", testFull)
		if g.queued("t.small") || g.queued("t.large") {
			t.Fatal("queued before it was full")
		}
		g.append("t.small", 1)
		g.append("t.large", testFull)
		if !g.queued("t.small") || !g.queued("t.large") {
			t.Fatal("full and not queued")
		}
		time.Sleep(testDelay/4 + 2*DefaultTick)
		if !g.queued("t.fast") || g.queued("t.other") {
			t.Fatal("the shorter delay is not that of its log alone")
		}
		time.Sleep(testDelay)
		if !g.queued("t.other") || g.queued("t.slow") {
			t.Fatal("the longer delay is not that of its log alone")
		}
		time.Sleep(time.Hour*9/10 - 2*testDelay)
		if g.queued("t.slow") {
			t.Fatal("queued long before its deadline")
		}
		time.Sleep(time.Hour / 10)
		if !g.queued("t.slow") {
			t.Fatal("not queued by its own deadline")
		}
	}, never)
}

// TestRestoreGoesByPolicies: after a takeover the deadline is that of the first entry's time and the log's delay.
func TestRestoreGoesByPolicies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set, err := policy.NewSet(policies{"t.slow": {MaxDelay: time.Hour}})
		if err != nil {
			t.Fatal(err)
		}
		fake := newFakePolicies()
		fake.change(set)
		g := newRig(t, 1, never, func(c *Config) { c.Policies = fake })
		g.s.Restore("t.slow", Pending{First: 1, Last: 1, Count: 1}, time.Now().Add(-40*time.Minute))
		g.s.Restore("t.other", Pending{First: 2, Last: 2, Count: 1}, time.Now().Add(-40*time.Minute))
		g.run()
		defer func() { g.stop() }()
		time.Sleep(19 * time.Minute)
		if g.queued("t.slow") || !g.queued("t.other") {
			t.Fatal("restored with another delay than its own")
		}
		time.Sleep(time.Minute)
		if !g.queued("t.slow") {
			t.Fatal("the deadline did not survive")
		}
	})
}

// TestChangesHoldForArmedLogs: shorter, longer, smaller, and taken back.
func TestChangesHoldForArmedLogs(t *testing.T) {
	bubble(t, func(g *rig) {
		g.settle(policies{"t.*": {MaxDelay: time.Hour}})
		synctest.Wait()
		for _, log := range []string{"t.shorter", "t.overdue", "t.smaller", "t.back", "t.same"} {
			g.append(log, 10)
		}
		time.Sleep(10 * time.Minute)
		g.settle(policies{"t.shorter": {MaxDelay: 15 * time.Minute}, "t.overdue": {MaxDelay: time.Minute},
			"t.smaller": {MaxBytes: 10, MaxDelay: time.Hour}, "t.same": {MaxDelay: time.Hour},
			"t.back": {MaxDelay: 2 * time.Hour}})
		time.Sleep(2 * DefaultTick)
		if !g.queued("t.overdue") || !g.queued("t.smaller") {
			t.Fatal("what is overdue or full by the new policies is not queued at once")
		}
		time.Sleep(4 * time.Minute)
		if g.queued("t.shorter") {
			t.Fatal("queued before its new deadline")
		}
		time.Sleep(time.Minute)
		if !g.queued("t.shorter") {
			t.Fatal("not queued by its new deadline")
		}
		time.Sleep(45*time.Minute + time.Second)
		if !g.queued("t.same") || g.queued("t.back") {
			t.Fatal("another policy with the same delay changed the deadline, or a longer one did not")
		}
		g.settle(nil)
		time.Sleep(2 * DefaultTick)
		if !g.queued("t.back") {
			t.Fatal("without policies the configuration's delay does not hold")
		}
		g.check()
	}, never)
}

// TestManyArmedLogsFollowAChange, in slices, also those that wake, sleep and move meanwhile.
func TestManyArmedLogsFollowAChange(t *testing.T) {
	const logs = 20 * rearmStates
	bubble(t, func(g *rig) {
		g.settle(policies{"t.*": {MaxDelay: time.Hour}})
		synctest.Wait()
		name := func(i int) string { return fmt.Sprintf("t.%d", i) }
		for i := range logs {
			g.s.Append([]Arrival{{Log: name(i), Seq: uint64(i + 1), Bytes: 1, Time: time.Now()}})
		}
		time.Sleep(time.Minute)
		at := rearming{old: g.policies.Current(), next: 1}
		set, err := policy.NewSet(policies{"t.*": {MaxDelay: 30 * time.Minute}})
		if err != nil {
			t.Fatal(err)
		}
		g.s.mu.Lock()
		g.s.mu.settled = g.s.cfg.settledBy(set, at.old, !g.s.mu.odd)
		g.s.mu.Unlock()
		slices := 0
		for more := true; more; slices++ {
			more = g.s.rearm(&at)
			if slices == 3 { // most of them sleep, so that the rest moves; others wake
				for i := range logs * 9 / 10 {
					commitOne(g.s, name(i), 1, 1, 0, time.Time{})
				}
				for i := range 10 {
					g.s.Append([]Arrival{{Log: name(i), Seq: logs + 1 + uint64(i), Bytes: 1, Time: time.Now()}})
				}
			}
		}
		if g.s.mu.tables == 0 || slices < 5 {
			t.Fatalf("%d tables, %d slices: nothing moved", g.s.mu.tables, slices)
		}
		g.checkPlaces()
		early, late := 0, 0
		g.s.mu.Lock()
		for log, i := range g.s.mu.table.index {
			l := g.s.mu.table.get(i)
			want := time.Minute + 29*time.Minute
			if l.first > logs {
				want = time.Minute + 30*time.Minute
			}
			switch due := time.Duration(l.due) - want; {
			case due < 0:
				early++
			case due > 2*DefaultTick: // the bubble began within a tick
				late++
				t.Logf("%s is due after %s", log, time.Duration(l.due))
			}
		}
		g.s.mu.Unlock()
		if early > 0 || late > 0 {
			t.Errorf("%d logs are due too early, %d too late", early, late)
		}
	}, never, func(c *Config) { c.Publish = func(context.Context, []string) error { return nil } })
}

// TestLogsBoardByTheirOwnDelay: a fifth of it ahead, whatever the others' is.
func TestLogsBoardByTheirOwnDelay(t *testing.T) {
	bubble(t, func(g *rig) {
		g.settle(policies{"t.slow.*": {MaxDelay: time.Hour}, "t.slow": {MaxDelay: time.Hour},
			"t.slower": {MaxDelay: 10 * time.Hour}})
		synctest.Wait()
		g.append("t.slow", 1)
		g.append("t.slower", 1)
		const many = 100 // over time: some are in slots in which those of longer delays fall due as well
		for i := range many {
			time.Sleep(time.Second)
			g.append(fmt.Sprintf("t.slow.%d", i), 1)
		}
		due := func(log string) { // another log falls due
			g.append(log, 1)
			time.Sleep(testDelay + 2*DefaultTick)
			if !g.queued(log) {
				t.Fatal("not due")
			}
		}
		time.Sleep(46*time.Minute - many*time.Second)
		due("t.a")
		if n := g.s.Stats().Queued; n != 1 {
			t.Fatalf("%d logs boarded more than a fifth of their delay ahead", n-1)
		}
		time.Sleep(time.Minute)
		time.Sleep(2 * time.Minute)
		due("t.b")
		if !g.queued("t.slow") || g.queued("t.slower") {
			t.Fatal("did not board in the last fifth of its delay, or with another's delay")
		}
		time.Sleep(7*time.Hour + 12*time.Minute)
		due("t.c")
		if !g.queued("t.slower") {
			t.Fatal("did not board in the last fifth of its delay")
		}
	}, func(c *Config) { c.RequeueAfter = 100 * time.Hour })
}

// TestLongDelaysTakeFewSlots: each slot is a timer that fires again and again on its way.
func TestLongDelaysTakeFewSlots(t *testing.T) {
	s, err := New(Config{MaxDelay: 5 * time.Second, RequeueAfter: time.Hour, MaxBytes: 1 << 20,
		Publish: func(context.Context, []string) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	now := s.start.Add(time.Hour)
	for octave := range 22 { // 5 s to four months
		slots := make(map[int64]bool)
		delay := 5 * time.Second << octave
		for part := range 100_000 {
			l := &logState{due: int64(time.Hour) + int64(delay)/100_000*int64(part)}
			k := s.dueSlotLocked(l, delay, now)
			slots[k] = true
			if early := time.Duration(l.due) - s.cfg.dueOf(k); early > delay/gridSlots || early < -s.cfg.Tick {
				t.Fatalf("with a delay of %s a log falls due %s early", delay, early)
			}
			if k < s.cfg.slotOf(int64(time.Hour)) {
				t.Fatal("a slot that is over")
			}
		}
		if len(slots) > 2*gridSlots+1 {
			t.Errorf("a delay of %s takes %d slots", delay, len(slots))
		}
	}
}

func BenchmarkArmWithPolicies(b *testing.B) {
	all := policies{}
	for i := range policy.MaxPatterns {
		all[policy.Pattern(fmt.Sprintf("tenant%d.>", i))] = policy.Policy{MaxDelay: time.Hour}
	}
	set, err := policy.NewSet(all)
	if err != nil {
		b.Fatal(err)
	}
	fake := newFakePolicies()
	fake.change(set)
	s, err := New(Config{MaxDelay: time.Hour, RequeueAfter: time.Hour, MaxBytes: 1 << 40, Policies: fake,
		Publish: func(context.Context, []string) error { return nil }})
	if err != nil {
		b.Fatal(err)
	}
	names := make([]string, 1<<20)
	for i := range names {
		names[i] = fmt.Sprintf("tenant%d.log%d", i%policy.MaxPatterns, i)
	}
	b.ReportAllocs()
	now, i := time.Now(), 0
	for b.Loop() {
		log := names[i%len(names)]
		s.Append([]Arrival{{Log: log, Seq: uint64(i + 1), Bytes: 1, Time: now}})
		commitOne(s, log, 1, 1, 0, now)
		i++
	}
}
