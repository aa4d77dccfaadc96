// Package workers is the fixed pool that turns ready logs into archive objects: it takes work items off the SyncQueue,
// drains the logs from their owner, packs them into segments, puts those into the bucket and commits them to the owner.
// A part of it merges segments, see merge.go.
//
// A worker keeps nothing: it may die at any moment, and what it held is queued again. The pool starts no goroutine for
// a log and never talks to the source stream. The way of a batch is pull.go, drain.go, pack.go and commit.go; open
// ingest for the other end of the exchanges.
package workers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"dormouse/internal/extent"
	"dormouse/internal/jsapi"
	"dormouse/internal/retry"
	"dormouse/internal/wire"
	"dormouse/store/segment"
)

// Putter stores objects for good: a key that holds something else is refused with archive.ErrExists, never overwritten,
// one that holds the same counts as put, and what was put is durable when Put returns.
type Putter interface {
	Put(ctx context.Context, key string, data []byte) error
}

// Opener opens the segments of the system's bucket.
type Opener interface {
	Open(ctx context.Context, s extent.Segment) (*segment.Reader, error)
}

// Config is what a Pool needs. Zero means the default that is named.
type Config struct {
	NC     *nats.Conn
	JS     jetstream.JetStream
	Bucket Putter

	// where the segments are that are to be merged; nil: the pool merges none
	Segments Opener

	// says after a put which bucket has it, see store/identity; nil: none, for an owner that does not ask
	BucketID func() string

	Size          int           // workers; 2 x GOMAXPROCS
	MergeShare    float64       // part of the workers' turns that merges may have, at least one; a quarter
	MergeBytes    int           // an output of a merge is closed at this size; 64 MiB
	SegmentBytes  int           // a segment is closed at this size; 8 MiB
	ItemsPerFetch int           // work items that a worker packs together, at most 8, the default
	Linger        time.Duration // how long to wait for more items after the first; 100 ms
	PutTimeout    time.Duration // of one try; 1 min
	// of one exchange with an owner; after two of them its work is left to a later delivery; 5 s
	RequestTimeout time.Duration
	GiveUpAfter    time.Duration // of tries at one step, before the work is left to a later delivery; 1 min
	Grace          time.Duration // how long work in hand may go on at the end; 10 s
	Compression    string        // of segments, see package segment; zstd

	Metrics *Metrics     // nil: none
	Logger  *slog.Logger // nil: slog.Default()
}

func (c *Config) complete() error {
	if c.NC == nil || c.JS == nil || c.Bucket == nil {
		return errors.New("workers: NC, JS and Bucket are required")
	}
	orDefault(&c.Size, 2*runtime.GOMAXPROCS(0))
	orDefault(&c.MergeShare, 0.25)
	orDefault(&c.MergeBytes, 64<<20)
	orDefault(&c.SegmentBytes, 8<<20)
	orDefault(&c.ItemsPerFetch, maxItems)
	orDefault(&c.Linger, 100*time.Millisecond)
	orDefault(&c.PutTimeout, time.Minute)
	orDefault(&c.RequestTimeout, 5*time.Second)
	orDefault(&c.GiveUpAfter, time.Minute)
	orDefault(&c.Grace, 10*time.Second)
	c.ItemsPerFetch = min(c.ItemsPerFetch, maxItems)
	if c.BucketID == nil {
		c.BucketID = func() string { return "" }
	}
	if c.Metrics == nil {
		c.Metrics = NewMetrics(nil)
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	probe, err := segment.NewWriter(segment.Options{Compression: c.Compression})
	if err != nil { // now, rather than once for every piece of work
		return fmt.Errorf("workers: %w", err)
	}
	probe.Close()
	return nil
}

// maxItems is how many work items fit into one drain request.
const maxItems = wire.MaxDrainLogs / wire.MaxItemLogs

func orDefault[T int | float64 | time.Duration](v *T, def T) {
	if *v <= 0 {
		*v = def
	}
}

// Pool is a fixed number of workers.
type Pool struct {
	cfg    Config
	busy   atomic.Int64
	gather chan struct{} // cap 1: held by the one worker that is fetching
	turns  chan struct{} // cap Size: held by whoever has a segment in memory
	// cap 1: held by the one that is fetching a merge
	mergeTurn chan struct{}
	rest      time.Duration // about how long an abandoned item rests before it is delivered again

	silence *silence
	outages outages
}

// New checks the configuration and makes a pool; Run starts it.
func New(cfg Config) (*Pool, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	cfg.Metrics.size.Set(float64(cfg.Size))
	return &Pool{
		cfg: cfg, gather: make(chan struct{}, 1), turns: make(chan struct{}, cfg.Size), mergeTurn: make(chan struct{}, 1),
		rest: 5 * time.Second, silence: newSilence(silentFor * cfg.RequestTimeout), outages: newOutages(cfg.Logger),
	}, nil
}

// Size returns the number of workers, and how many of them have work in hand.
func (p *Pool) Size() (workers, busy int) { return p.cfg.Size, int(p.busy.Load()) }

// Run works until ctx is done. Work in hand then has the grace period to finish; what does not is given back to the
// queue. The connection must outlive Run, which still acknowledges work over it. Run returns when no goroutine of the
// pool is left: nil after ctx was done, else why it could not begin.
func (p *Pool) Run(ctx context.Context) error {
	consumer, err := p.openQueue(ctx, wire.SyncQueueStream, wire.SyncQueuePool)
	var merges jetstream.Consumer
	if err == nil && p.mergers() > 0 {
		merges, err = p.openQueue(ctx, wire.MergeStream, wire.MergePool)
	}
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("opening the queues: %w", err)
	}
	hard, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var group errgroup.Group
	for range p.cfg.Size {
		group.Go(func() error {
			p.work(ctx, hard, consumer)
			return nil
		})
	}
	for range p.mergers() {
		group.Go(func() error {
			p.mergeAll(ctx, hard, merges)
			return nil
		})
	}
	var grace sync.WaitGroup
	grace.Go(func() {
		<-ctx.Done()
		timer := time.NewTimer(p.cfg.Grace)
		defer timer.Stop()
		select {
		case <-timer.C:
			cancel()
		case <-hard.Done():
		}
	})
	err = group.Wait() // workers end only after ctx is done
	cancel()
	grace.Wait()
	return err
}

// openQueue finds a queue's consumer. While JetStream has no leader it tries again until ctx ends: that passes, and
// must not end the process. That there is no such consumer, or no connection any more, is for somebody else to mend.
func (p *Pool) openQueue(ctx context.Context, stream, pool string) (jetstream.Consumer, error) {
	return backoff.Retry(ctx, func() (jetstream.Consumer, error) {
		consumer, err := p.cfg.JS.Consumer(ctx, stream, pool)
		switch {
		case jsapi.IsPermanent(err):
			return nil, backoff.Permanent(fmt.Errorf("consumer %s of %s: %w", pool, stream, err))
		case err != nil:
			p.outages.queue.Failed(err)
		default:
			p.outages.queue.Over()
		}
		return consumer, err
	}, backoff.WithBackOff(retry.Patient()), backoff.WithMaxElapsedTime(0))
}

// work is one worker: ctx ends fetching, hard ends what is in hand.
func (p *Pool) work(ctx, hard context.Context, consumer jetstream.Consumer) {
	for ctx.Err() == nil {
		items := p.fetch(ctx, consumer)
		if len(items) == 0 {
			continue
		}
		p.cfg.Metrics.busy.Inc()
		p.busy.Add(1)
		p.archive(hard, items, consumer.CachedInfo().Config.AckWait)
		p.busy.Add(-1)
		p.cfg.Metrics.busy.Dec()
	}
}
