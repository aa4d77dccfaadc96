package scheduler

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"dormouse/internal/wire"
)

// The load of the simulated days: a million logs of a thousand tenants.
const (
	daySeed    = 1
	dayLogs    = 1_000_000
	dayTenants = 1000
	dayNameLen = len("tenant000.log0000000")
	dayFull    = 1 << 20
	dayRequeue = time.Minute
	dayWorkers = 8

	rolloutSeconds = 60 // a tenant's fleet restarts within a minute, once a day; every log writes then
)

// dayForm is how long a simulation takes, with which settings, and what it must come to.
type dayForm struct {
	maxDelay, tick time.Duration
	from, length   time.Duration // of the day
	flow           float64       // entries a second, averaged over the day, besides bursts and rollouts
	burstEvery     int           // seconds, on average

	entries    uint64        // at least
	distinct   int           // logs that wake, at least
	objects    int           // segments, at most; 0: however many
	perSegment float64       // logs in a segment, on average over segments, at least
	margin     time.Duration // of publishing, beyond a slot's width
	each       uint64        // heap bytes for an active log, at most; 0: too few are active to tell
}

// TestADayOfAMillionLogs runs the scheduler on fake time under the load of a day: Zipf over tenants and over their
// logs, three times the average in the early afternoon, bursts of a heavy tail, and every tenant's fleet restarting
// once.
//
// Slots of 5 s and a delay of a minute are what such a load asks for. What the defaults, which are for low latency,
// come to is simulated too, but only for a while about the average rate: 100 slots a second cost more than their logs.
// At a hundred entries a second a slot of 10 ms holds one log; that objects are fewer is what boarding early is for.
func TestADayOfAMillionLogs(t *testing.T) {
	wide := dayForm{
		maxDelay: time.Minute, tick: 5 * time.Second, length: 24 * time.Hour, flow: 45, burstEvery: 20,
		entries: 5 * dayLogs, distinct: dayLogs, perSegment: 220, margin: 100 * time.Millisecond, each: 200,
	}
	defaults := dayForm{
		maxDelay: 5 * time.Second, tick: DefaultTick, from: 10 * time.Hour, length: 15 * time.Minute, flow: 45,
		burstEvery: 20,
		entries:    40_000, distinct: 20_000, objects: 900, perSegment: 40, margin: 5 * time.Millisecond,
	}
	if underRace() { // all logs and all day, with fewer entries in slots that are wider for it
		wide.flow, wide.burstEvery, wide.tick, wide.entries = wide.flow/10, wide.burstEvery*10, wide.tick*5, 5*dayLogs/4
	}
	if testing.Short() { // the hours in which most is written
		wide.from, wide.length = 12*time.Hour, 4*time.Hour
		wide.entries, wide.distinct = wide.entries/10, wide.distinct/10
		defaults.length, defaults.objects = defaults.length/3, defaults.objects/3
		defaults.entries, defaults.distinct = defaults.entries/4, defaults.distinct/4
	}
	for _, tc := range []struct {
		name string
		form dayForm
	}{{"a day with wide slots", wide}, {"a while with the defaults", defaults}} {
		t.Run(tc.name, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { newDay(t, tc.form).live() }) })
	}
}

// underRace reports whether the race detector is on, which makes the simulation eight times as slow.
func underRace() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// pile is entries of one log that follow each other.
type pile struct {
	first uint64
	at    time.Duration // arrival of the first entry, since the start
	bytes uint64
	count uint32
}

// dayLog is the books of one log.
type dayLog struct {
	rest, taken pile // buffered: not drained yet; in a worker's hands
	queued      bool // published, and not committed since
	woken       bool
}

// day is a simulated shard: the load, the scheduler, a SyncQueue, a pool of workers, and the books of them all.
type day struct {
	dayForm
	t      *testing.T
	s      *Scheduler
	r      *rand.Rand
	names  string // of all logs, one after the other
	first  []int  // log of each tenant, and dayLogs at the end
	tenant *rand.Zipf
	within []*rand.Zipf
	fleets [][]int // tenants whose rollout begins, by second of the day

	start         time.Time
	queue         chan []string
	gather        chan struct{} // cap 1: held by the one worker that is fetching
	timers, fired atomic.Int64
	batch         []Arrival

	mu struct {
		sync.Mutex // the holder never sleeps, so that it cannot keep fake time from passing
		logs       []dayLog
		sum        daySum
		faults     int
	}
	table dayTable
}

// daySum is what adds up over a day.
type daySum struct {
	seq, committed              uint64 // entries: appended, committed
	distinct, woken, armedAgain int    // logs
	full, early, batches, ready int    // published: full logs, those that boarded early, batches, logs
	segments                    []int  // logs in each
	late, delay                 time.Duration
	goroutines, queue           int // highest
}

// dayTable is what the scheduler's memory was like, looked at every second.
type dayTable struct {
	active, slots, states int    // highest
	sampled               int    // active logs when each was measured
	each                  uint64 // heap bytes for each of them
}

// newDay must be called inside a synctest bubble.
func newDay(t *testing.T, form dayForm) *day {
	d := &day{dayForm: form, t: t, r: rand.New(rand.NewPCG(daySeed, uint64(form.tick))), start: time.Now(),
		fleets: make([][]int, 24*3600), queue: make(chan []string, 1<<16), gather: make(chan struct{}, 1),
		batch: make([]Arrival, 0, 1<<16)} // what a day needs is there before memory is measured
	d.mu.logs = make([]dayLog, dayLogs)
	d.mu.sum.segments = make([]int, 0, 1<<18)
	d.tenant = rand.NewZipf(d.r, 1.05, 1, dayTenants-1)
	harmonic := 0.0
	for i := range dayTenants {
		harmonic += 1 / float64(i+1)
	}
	names := make([]byte, 0, dayLogs*dayNameLen)
	d.first = append(d.first, 0)
	for i := range dayTenants { // the tenant of rank n has 1/n of the first one's logs
		end := d.first[i] + int(dayLogs/harmonic/float64(i+1))
		if i == dayTenants-1 {
			end = dayLogs
		}
		for log := d.first[i]; log < end; log++ {
			names = fmt.Appendf(names, "tenant%03d.log%07d", i, log)
		}
		d.within = append(d.within, rand.NewZipf(d.r, 1.1, 4, uint64(end-d.first[i]-1)))
		d.first = append(d.first, end)
		second := d.r.IntN(len(d.fleets) - rolloutSeconds)
		d.fleets[second] = append(d.fleets[second], i)
	}
	d.names = string(names)

	s, err := New(Config{MaxDelay: form.maxDelay, Tick: form.tick, RequeueAfter: dayRequeue, MaxBytes: dayFull,
		Publish: d.publish})
	if err != nil {
		t.Fatal(err)
	}
	s.newWheel = func(tick time.Duration, size int64) wheel { return countingWheel{newTimingWheel(tick, size), d} }
	d.s = s
	return d
}

type countingWheel struct {
	wheel
	d *day
}

func (w countingWheel) AfterFunc(wait time.Duration, f func()) {
	w.d.timers.Add(1)
	w.wheel.AfterFunc(wait, func() { w.d.fired.Add(1); f() })
}

func (d *day) name(log int) string { return d.names[log*dayNameLen : (log+1)*dayNameLen] }

// find returns the number of a log, which its name ends with.
func (d *day) find(name string) int {
	n := 0
	for _, c := range []byte(name[len(name)-7:]) {
		n = n*10 + int(c-'0')
	}
	return n
}

// wrong reports a fault at once, and only the first few: there may be a million.
func (d *day) wrong(format string, args ...any) {
	if d.mu.faults++; d.mu.faults <= 3 {
		d.t.Errorf("seed %d, after %s: %s", daySeed, time.Since(d.start), fmt.Sprintf(format, args...))
	}
}

// live runs the simulation and holds what comes of it against the bounds.
func (d *day) live() {
	ctx, cancel := context.WithCancel(context.Background())
	before := heap()
	done := make(chan error, 1)
	go func() { done <- d.s.Run(ctx) }()
	var pool sync.WaitGroup
	for range dayWorkers {
		pool.Go(func() { d.work(ctx) })
	}
	synctest.Wait()
	goroutines := runtime.NumGoroutine()

	for range int(d.length / time.Second) {
		time.Sleep(time.Second)
		d.appendSecond()
		d.look(before)
	}
	time.Sleep(d.maxDelay + d.tick + 5*time.Second) // the last segments
	synctest.Wait()
	asleep := d.s.Stats()
	time.Sleep(2*dayRequeue + 2*d.tick) // the last, empty slots
	synctest.Wait()
	left := int64(heap() - before)

	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		d.t.Errorf("Run returned %v", err)
	}
	pool.Wait()
	d.report(goroutines, left)
	d.judge(goroutines, asleep, left)
}

// rate is how busy the second is, 1 on average over the day and 3 at two o'clock in the afternoon.
func rate(second int) float64 {
	hours := float64(second)/3600 - 14
	return 0.4 + 2.6*math.Exp(-hours*hours/2/(2.21*2.21))
}

// appendSecond gives the scheduler the entries of the second that has just passed.
func (d *day) appendSecond() {
	d.mu.Lock()
	defer d.mu.Unlock()
	since := time.Since(d.start)
	second := int((d.from+since)/time.Second) - 1
	d.batch = d.batch[:0]
	busy := d.flow * rate(second)
	for range int(max(busy+math.Sqrt(busy)*d.r.NormFloat64(), 0)) {
		d.add(d.anyLog(int(d.tenant.Uint64())), 100+d.r.IntN(900))
	}
	if d.r.IntN(d.burstEvery) == 0 { // a burst, of one log with stack traces or of a tenant's logs
		tenant := int(d.tenant.Uint64())
		one := d.anyLog(tenant)
		alone := d.r.IntN(2) == 0
		for range int(min(50*math.Pow(1-d.r.Float64(), -1/1.2), 20_000)) {
			if alone {
				d.add(one, 4000)
			} else {
				d.add(d.anyLog(tenant), 300)
			}
		}
	}
	for ago := range min(rolloutSeconds, second+1) {
		for _, tenant := range d.fleets[second-ago] {
			lo, n := d.first[tenant], d.first[tenant+1]-d.first[tenant]
			for log := lo + n*ago/rolloutSeconds; log < lo+n*(ago+1)/rolloutSeconds; log++ {
				d.add(log, 300)
			}
		}
	}
	for i := range d.batch { // spread over the second, in order
		at := since - time.Second + time.Second*time.Duration(i)/time.Duration(len(d.batch))
		d.batch[i].Time = d.start.Add(at)
		d.enter(&d.batch[i], at)
	}
	d.s.Append(d.batch)
	d.mu.sum.goroutines = max(d.mu.sum.goroutines, runtime.NumGoroutine())
}

func (d *day) anyLog(tenant int) int { return d.first[tenant] + int(d.within[tenant].Uint64()) }

func (d *day) add(log, bytes int) {
	d.mu.sum.seq++
	d.batch = append(d.batch, Arrival{Log: d.name(log), Seq: d.mu.sum.seq, Bytes: uint64(bytes)})
}

// enter books an entry that arrives.
func (d *day) enter(a *Arrival, at time.Duration) {
	l := &d.mu.logs[d.find(a.Log)]
	if l.rest.count == 0 {
		l.rest.first, l.rest.at = a.Seq, at
		if l.taken.count == 0 {
			d.mu.sum.woken++
			if !l.woken {
				l.woken = true
				d.mu.sum.distinct++
			}
		}
	}
	l.rest.count++
	l.rest.bytes += a.Bytes
}

// publish is the SyncQueue's end of the scheduler.
func (d *day) publish(_ context.Context, logs []string) error {
	d.mu.Lock()
	sum, now := &d.mu.sum, time.Since(d.start)
	if len(logs) == 0 || len(logs) > wire.MaxItemLogs {
		d.wrong("a batch of %d logs", len(logs))
	}
	for _, name := range logs {
		l := &d.mu.logs[d.find(name)]
		if l.queued || l.rest.count == 0 {
			d.wrong("%s is published and %+v", name, *l)
		}
		l.queued = true
		late := now - l.rest.at - d.maxDelay
		if l.rest.bytes >= dayFull && late < 0 {
			sum.full++
		} else if late < 0 {
			sum.early++
			if -late > d.maxDelay/BoardShare+d.tick {
				d.wrong("%s is published %s before its deadline", name, -late)
			}
		}
		sum.late = max(sum.late, late)
	}
	sum.batches++
	sum.ready += len(logs)
	sum.goroutines = max(sum.goroutines, runtime.NumGoroutine())
	d.mu.Unlock()
	select {
	case d.queue <- logs:
	default:
		d.t.Error("the queue is full")
	}
	time.Sleep(time.Millisecond) // until JetStream has acknowledged the item
	return nil
}

// work is one worker: items are fetched, drained, put and committed as by package workers.
func (d *day) work(ctx context.Context) {
	for n := 1; ; n++ {
		items := d.fetch(ctx)
		if items == nil {
			return
		}
		logs := d.drain(items)
		put := 50 * time.Millisecond
		if n%200 == 0 {
			put = 2 * time.Second // buckets have a slow tail
		}
		time.Sleep(put)
		d.commit(logs)
	}
}

// fetch takes up to eight items, the later ones within 100 ms of the first; nil when ctx is done.
func (d *day) fetch(ctx context.Context) (items [][]string) {
	select {
	case <-ctx.Done():
		return nil
	case d.gather <- struct{}{}:
	}
	defer func() { <-d.gather }()
	var linger <-chan time.Time
	for len(items) < wire.MaxDrainLogs/wire.MaxItemLogs {
		select {
		case <-ctx.Done():
			return nil
		case <-linger:
			return items
		case logs := <-d.queue:
			if items = append(items, logs); linger == nil {
				linger = time.After(100 * time.Millisecond)
			}
		}
	}
	return items
}

func (d *day) drain(items [][]string) (logs []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.sum.queue = max(d.mu.sum.queue, len(d.queue))
	logs = slices.Concat(items...)
	d.s.Drained(logs)
	for _, name := range logs {
		l := &d.mu.logs[d.find(name)]
		p, ok := d.s.Pending(name)
		if want := (Pending{First: l.rest.first, Last: p.Last, Count: uint64(l.rest.count), Bytes: l.rest.bytes}); !ok ||
			p != want {
			d.wrong("%s has %+v, %v, want %+v", name, p, ok, want)
		}
		l.taken, l.rest = l.rest, pile{}
	}
	return logs
}

func (d *day) commit(logs []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	sum, now := &d.mu.sum, time.Since(d.start)
	sum.segments = append(sum.segments, len(logs))
	for _, name := range logs {
		l := &d.mu.logs[d.find(name)]
		sum.committed += uint64(l.taken.count)
		sum.delay = max(sum.delay, now-l.taken.at)
		if l.rest.count > 0 {
			sum.armedAgain++
		}
		commitOne(d.s, name, uint64(l.taken.count), l.taken.bytes, l.rest.first, d.start.Add(l.rest.at))
		l.taken, l.queued = pile{}, false
	}
}

// look holds the table against the logs that are active, and measures memory when there are many more than before.
func (d *day) look(before uint64) {
	d.s.mu.Lock()
	states, active, slots := int(d.s.mu.table.used), len(d.s.mu.table.index), len(d.s.mu.slots)
	slab := len(d.s.mu.table.chunks) * chunkStates
	d.s.mu.Unlock()
	// Appending makes it no sparser: what is sparse now was so after the last commit.
	if states > slab || states > shrinkStates && active < states/4 {
		d.mu.Lock()
		d.wrong("%d active logs are in a table of %d states", active, states)
		d.mu.Unlock()
	}
	m := &d.table
	m.active, m.slots, m.states = max(m.active, active), max(m.slots, slots), max(m.states, states)
	if active > 10_000 && active > m.sampled+m.sampled/4 {
		m.sampled, m.each = active, (heap()-before)/uint64(active)
	}
}

func (d *day) report(goroutines int, left int64) {
	sum, m := &d.mu.sum, &d.table
	slices.Sort(sum.segments)
	squares := 0
	for _, n := range sum.segments {
		squares += n * n
	}
	ticks := int64(d.length / d.tick)
	d.t.Logf("seed %d: %d entries, %.0f a second, of %d logs", daySeed, sum.seq, float64(sum.seq)/d.length.Seconds(),
		sum.distinct)
	d.t.Logf("logs: %d woken, %d armed again, %d full, %d early; ready in %d batches of %.1f", sum.woken, sum.armedAgain,
		sum.full, sum.early, sum.batches, ratio(sum.ready, sum.batches))
	d.t.Logf("%d segments: %.1f logs on average, median %d, largest %d; %.0f where the average log is; %.2f entries "+
		"an extent", len(sum.segments), ratio(sum.ready, len(sum.segments)), sum.segments[len(sum.segments)/2],
		slices.Max(sum.segments),
		ratio(squares, sum.ready), float64(sum.committed)/float64(sum.ready))
	d.t.Logf("worst: published %s after the deadline, committed %s after arrival; %d items in the queue", sum.late,
		sum.delay, sum.queue)
	d.t.Logf("%d timers, %d fired, in %d ticks, for %d ready logs", d.timers.Load(), d.fired.Load(), ticks, sum.ready)
	d.t.Logf("at most %d logs active, %d slots, %d states, %d goroutines (%d at the start); %d bytes for each of %d "+
		"active logs; %d left at the end", m.active, m.slots, m.states, sum.goroutines, goroutines,
		m.each, m.sampled, left)
}

func ratio(a, b int) float64 { return float64(a) / float64(b) }

// judge holds the sums against the bounds. asleep is from when the last entry must have been committed.
func (d *day) judge(goroutines int, asleep Stats, left int64) {
	sum, m := &d.mu.sum, &d.table
	check := func(ok bool, format string, args ...any) {
		d.t.Helper()
		if !ok {
			d.t.Errorf("seed %d: %s", daySeed, fmt.Sprintf(format, args...))
		}
	}
	check(d.mu.faults == 0, "%d faults", d.mu.faults)
	check(sum.seq >= d.entries && sum.distinct >= d.distinct, "%d entries, of %d logs", sum.seq, sum.distinct)
	check(sum.committed == sum.seq && asleep == Stats{}, "%d of %d entries were committed, left are %+v", sum.committed,
		sum.seq, asleep)
	// Each deadline leads to one work item, and that to one extent.
	check(sum.ready == sum.woken+sum.armedAgain, "%d logs were armed and %d published", sum.woken+sum.armedAgain,
		sum.ready)
	each := ratio(sum.ready, len(sum.segments))
	check(d.objects == 0 || len(sum.segments) <= d.objects, "%d segments, want at most %d", len(sum.segments), d.objects)
	check(each >= d.perSegment, "%.1f logs in a segment, want %.0f", each, d.perSegment)
	// A slot's logs travel together, in one batch more than they fill, or two if they are published while it is served.
	check(sum.batches <= int(d.fired.Load())+sum.full+2*sum.ready/wire.MaxItemLogs, "%d batches of %d logs", sum.batches,
		sum.ready)
	check(sum.late <= d.tick+d.margin, "published %s after the deadline", sum.late)
	check(sum.delay <= d.maxDelay+d.tick+3*time.Second, "committed %s after the arrival", sum.delay)
	// A slot has one timer, and if it is for requeues a few hops.
	ticks := int64(d.length / d.tick)
	check(d.timers.Load() <= ticks+ticks/4 && d.fired.Load() <= d.timers.Load(), "%d timers, %d fired", d.timers.Load(),
		d.fired.Load())
	check(sum.goroutines <= goroutines+10, "%d goroutines, %d at the start", sum.goroutines, goroutines)
	check(d.each == 0 || m.sampled > 0 && m.each <= d.each, "%d bytes for each of %d active logs", m.each, m.sampled)
	check(left <= 512<<10, "%d bytes of heap left", left)
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	own := &d.s.mu
	check(len(own.table.index) == 0 && own.table.used <= chunkStates && len(own.table.chunks) <= 1 &&
		len(own.table.firsts.blocks) == 0, "the table holds %d logs, %d states, %d chunks, %d blocks", len(own.table.index),
		own.table.used, len(own.table.chunks), len(own.table.firsts.blocks))
	check(len(own.slots) == 0 && own.outbox == list{} && len(own.run.logs) == 0, "%d slots are left", len(own.slots))
}
