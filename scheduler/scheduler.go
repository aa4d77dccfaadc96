// Package scheduler decides when the logs of one shard are ready to be drained: it holds the state of every active log,
// the slots in which they fall due on a timing wheel, and the outbox of ready logs that are published in batches.
//
// It is pure of NATS and disk: the caller tells it of entries and commits and gives it a function that publishes, so
// all of it runs on a fake clock in tests. A log without buffered entries has no state here at all. Open states.go for
// the state machine, slots.go for the deadlines, policies.go for what users settle at run time, wheel.go for the clock
// and publish.go for the way out.
package scheduler

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"dormouse/internal/outage"
	"dormouse/internal/policy"
	"dormouse/internal/wire"
)

// Config is what a Scheduler needs.
type Config struct {
	Tick         time.Duration // slot width, at least 1 ms; 0 is 10 ms
	MaxDelay     time.Duration // arrival of a log's first entry to the log being due; it may board earlier, see BoardShare
	RequeueAfter time.Duration // a queued log that is not committed by then is queued again
	MaxBytes     uint64        // a log with this many bytes buffered is ready at once
	BatchLogs    int           // logs in one Publish, at most; 0 is wire.MaxItemLogs
	Publishers   int           // Publish calls at a time; 0 is 4
	QueueLogs    int           // no more are published while so many published logs are not committed; 0 is 65,536
	Policies     Policies      // which logs have another MaxDelay or MaxBytes; nil: none

	// Publish makes a batch of ready logs, ascending and each once, known to the workers. An error means that nobody
	// knows of them; the batch is published again after a pause.
	Publish func(ctx context.Context, logs []string) error

	Metrics *Metrics     // nil: none
	Logger  *slog.Logger // nil: slog.Default()
	Outage  *outage.Log  // told that Publish fails; nil: one of its own on Logger
}

// Defaults and bounds of Config.
const (
	DefaultTick       = 10 * time.Millisecond
	defaultPublishers = 4
	// defaultQueueLogs keeps 32 workers busy. What is more than they take at once is better sorted together, see run.
	defaultQueueLogs = 32 * wire.MaxDrainLogs
	// The wheel has room for MaxDelay within these bounds: its span is twice that, and a bucket takes about 100 bytes. A
	// timer that is farther away fires on its way.
	leastWheelSlots, mostWheelSlots = 512, 8192
)

func (c *Config) complete() error {
	switch {
	case c.MaxDelay <= 0 || c.RequeueAfter <= 0:
		return errors.New("scheduler: MaxDelay and RequeueAfter must be positive")
	case c.MaxBytes == 0 || c.Publish == nil:
		return errors.New("scheduler: MaxBytes and Publish are required")
	case c.Tick < 0 || c.Tick > 0 && c.Tick < time.Millisecond:
		return errors.New("scheduler: Tick must be at least a millisecond")
	}
	if c.Tick == 0 {
		c.Tick = DefaultTick
	}
	c.Tick = c.Tick.Round(time.Millisecond)
	if c.BatchLogs <= 0 {
		c.BatchLogs = wire.MaxItemLogs
	}
	if c.Publishers <= 0 {
		c.Publishers = defaultPublishers
	}
	if c.QueueLogs <= 0 {
		c.QueueLogs = defaultQueueLogs
	}
	if c.Metrics == nil {
		c.Metrics = NewMetrics(nil)
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Outage == nil {
		c.Outage = outage.New(c.Logger, "ready logs could not be queued; trying again", "ready logs are queued again")
	}
	return nil
}

// Scheduler holds the active logs of one shard. Its methods may be called from any goroutine, before Run too; what they
// arm then waits for Run.
type Scheduler struct {
	cfg      Config
	start    time.Time // slots count ticks of the monotonic clock from here
	newWheel func(tick time.Duration, size int64) wheel
	queueing *outage.Log

	// One lock and no atomics per log: a log's state, the list it is on, the slot's list and the sums must change
	// together, and a change takes less than the cache miss that finds the log.
	mu struct {
		sync.Mutex
		table  table
		tables int             // tables before this one; a state's index holds in one table only
		slots  map[int64]*slot // by slot number; only those with logs
		outbox list            // queued logs that wait to be published
		unset  []int64         // slots that have no timer on the wheel yet
		run    run             // taken off the outbox, being published batch by batch
		flight int64           // number of the last run
		stats  Stats
		settled

		awaiting   int  // published logs that are not committed yet
		sorting    bool // a publisher has taken the next run and is sorting it
		collecting bool // see Collect
		collected  int  // logs that were armed while collecting, since the last Release
	}
	fired chan struct{} // cap 1: a timer has fired
	arm   chan struct{} // cap 1: unset has grown
	ready chan struct{} // cap Publishers: the outbox has grown
}

// Stats sums up the active logs.
type Stats struct {
	Active, Armed, Queued int    // logs; Active = Armed + Queued
	Entries, Bytes        uint64 // buffered
}

// New checks the configuration and makes a scheduler without any active log.
func New(cfg Config) (*Scheduler, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	// Slots must end where the wheel's ticks do, which are those of the wall clock.
	start := time.Now()
	start = start.Add(-time.Duration(start.UnixNano() % int64(cfg.Tick)))
	s := &Scheduler{
		cfg: cfg, start: start, newWheel: newTimingWheel,
		fired: make(chan struct{}, 1), arm: make(chan struct{}, 1), ready: make(chan struct{}, cfg.Publishers),
		queueing: cfg.Outage,
	}
	s.mu.table.reset()
	s.mu.slots = make(map[int64]*slot)
	var policies *policy.Set
	if cfg.Policies != nil {
		policies = cfg.Policies.Current()
	}
	s.mu.settled = cfg.settledBy(policies, nil, false)
	return s, nil
}

// Run fires deadlines and publishes ready logs until ctx is done, whose error it returns. No goroutine of the scheduler
// is left then, unless the timing wheel had hung, see wheel.go.
func (s *Scheduler) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return (&slotRunner{s}).run(ctx) })
	group.Go(func() error { return s.follow(ctx) })
	for range s.cfg.Publishers {
		group.Go(func() error { return (&publisher{s: s}).run(ctx) })
	}
	return group.Wait()
}

// Stats returns the sums as they are now.
func (s *Scheduler) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.stats
}

// Oldest returns a lower bound, at most 1,023 sequences too low, of the first buffered sequence of all active logs. ok
// is false when no log is active.
func (s *Scheduler) Oldest() (first uint64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.table.firsts.bound()
}

// Earliest returns the log whose first buffered sequence is the lowest of all, and that sequence. It takes longer than
// Oldest: a step for each of up to 1,024 logs. ok is false when no log is active.
func (s *Scheduler) Earliest() (log string, first uint64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.mu.table.lowest()
	if l == nil {
		return "", 0, false
	}
	return l.id, l.first, true
}

// signal wakes a receiver of c, or leaves it to the wake-up that is there already.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
