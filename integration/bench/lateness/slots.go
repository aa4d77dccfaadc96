package lateness

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"time"

	"dormouse/scheduler"
)

// pool is how many take what is due at a time, the scheduler's number of publishers.
const pool = 4

// arrivalBatch is how many arrivals the scheduler is told of at a time, about what a fetch from the stream brings.
const arrivalBatch = 256

// slots is the scheduler as the owner of a shard runs it, with a Publish that observes.
type slots struct {
	s      *scheduler.Scheduler
	delay  time.Duration
	cancel context.CancelFunc
	done   chan error
}

func newSlots(p *plan) (*slots, error) {
	// The scheduler takes no arrival from the future, so the last deadline must be at most the longest delay away.
	d := &slots{delay: p.lead + p.spread, done: make(chan error, 1)}
	var err error
	d.s, err = scheduler.New(scheduler.Config{
		MaxDelay: d.delay, RequeueAfter: time.Hour, MaxBytes: math.MaxUint64, Publishers: pool,
		QueueLogs: math.MaxInt, // nothing is ever committed here
		Publish: func(_ context.Context, logs []string) error {
			p.serve(time.Now(), logs...)
			return nil
		},
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	d.cancel = cancel
	go func() { d.done <- d.s.Run(ctx) }()
	return d, nil
}

func (d *slots) arm(p *plan) {
	batch := make([]scheduler.Arrival, 0, arrivalBatch)
	for i, log := range p.names {
		batch = append(batch, scheduler.Arrival{Log: log, Seq: uint64(i + 1), Bytes: 1, Time: p.due(i).Add(-d.delay)})
		if len(batch) == cap(batch) || i == len(p.names)-1 {
			d.s.Append(batch)
			batch = batch[:0]
		}
	}
}

func (d *slots) stop() error {
	d.cancel()
	if err := <-d.done; !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}
