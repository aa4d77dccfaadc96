package ingest

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"dormouse/internal/topology"
	"dormouse/internal/wire"
	"dormouse/scheduler"
	"dormouse/store/manifest"
)

// owner serves one shard in one epoch, which claim begins; run serves until the epoch ends.
type owner struct {
	cfg       Config
	metrics   *metrics
	schedules *scheduler.Metrics
	load      func() load    // of all shards of the node
	trims     *atomic.Uint64 // of all shards of the node
	fresh     func() bool    // the lease is sure to be held while an answer is on its way
	source    topology.Source
	share     func() int // one in so many of what the node may hold in memory for its shards
	log       *slog.Logger
	outages   outages
	advance   *advance

	listTime time.Duration // the constant, but for tests

	ledger    *ledger
	from      *sourceStream
	committer *committer   // made by claim
	snapshots *snapshotter // likewise
	intake    *intake      // likewise
	progress  progress

	// Set by claim.
	epoch    uint64
	manifest *manifest.Manifest // appended to by the committer alone once the owner runs
	before   manifest.Record    // the last before the claim, if its floor holds; else without an ID
	sched    *scheduler.Scheduler

	// use is held for reading by who reads the database from outside of run: when run has returned it may be closed.
	use   sync.RWMutex
	ended bool // guarded by use

	floors floorLog
}

// newOwner makes an owner of the shard for one epoch. The outages are the shardRunner's: what fails in each epoch anew
// is one outage.
func newOwner(n *Node, source topology.Source, log *slog.Logger, outages outages, share func() int,
	fresh func() bool) *owner {
	o := &owner{
		cfg: n.cfg, metrics: n.metrics, schedules: n.schedules, load: n.shards.load, trims: &n.trims, fresh: fresh,
		source: source, share: share, log: log, outages: outages, advance: n.shards.advance(source.Shard),
		listTime: listTime,
		ledger:   newLedger(n.cfg.DB, source.Shard, n.metrics),
	}
	o.from = &sourceStream{source: source, js: n.cfg.JS, ledger: o.ledger, every: sourceCheck, advance: o.advance,
		log: log}
	return o
}

// run serves the shard until ctx is done or the epoch ends, and calls listening once workers can reach it. It returns
// when no goroutine of the owner is left.
func (o *owner) run(ctx context.Context, listening func()) error {
	defer o.end()
	served := o.newServer()
	stop, err := served.listen(o.epoch)
	if err != nil {
		return err
	}
	defer stop()

	listening()

	group, ctx := errgroup.WithContext(ctx)
	start := func(fn func(context.Context) error) { group.Go(func() error { return fn(ctx) }) }
	start(served.run)
	start(o.committer.run)
	start(o.sched.Run)
	trimmer := o.newTrimmer()
	start(func(ctx context.Context) error {
		if trimmer.enabled {
			o.inheritFloors(ctx)
		}
		return trimmer.run(ctx)
	})
	start(o.snapshots.run)
	start(o.intake.run)
	start(o.from.watch)
	return group.Wait()
}

// end waits for who reads the database, and lets nobody begin to.
func (o *owner) end() {
	o.use.Lock()
	defer o.use.Unlock()
	o.ended = true
}

func offer[T any](queue chan<- T, item T) bool {
	select {
	case queue <- item:
		return true
	default:
		return false
	}
}

// publishReady puts one work item into the SyncQueue; the scheduler calls it.
func (o *owner) publishReady(ctx context.Context, logs []string) error {
	data, err := wire.Encode(wire.WorkItem{Shard: o.source.Shard, Epoch: o.epoch, Logs: logs})
	if err != nil {
		return err
	}
	_, err = o.cfg.JS.Publish(ctx, o.source.Shard.SyncSubject(), data, jetstream.WithExpectStream(wire.SyncQueueStream))
	return err
}
