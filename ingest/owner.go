package ingest

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
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

	sourceCheck, listTime time.Duration // the constants, but for tests

	ledger    *ledger
	committer *committer // made by claim
	progress  progress

	// Set by claim.
	epoch    uint64
	stream   jetstream.Stream
	manifest *manifest.Manifest // used by the committer alone once the owner runs
	before   manifest.Record    // the last before the claim, if its floor holds; else without an ID
	sched    *scheduler.Scheduler

	// use is held for reading by who reads the database from outside of run: when run has returned it may be closed.
	use   sync.RWMutex
	ended bool // guarded by use

	seen atomic.Uint64 // end of the source stream, as last seen; see sawEnd

	snapshot *manifest.Snapshot // the newest; the snapshot taker's alone once the owner runs
	unread   map[uint64]int     // how often a run of it, by its last record, could not be read; likewise

	aside     jetstream.JetStream // publishes what is put aside; the consumer's alone
	collected uint64              // bytes taken in since logs were last made ready for the sake of a backlog; the consumer's alone

	floors  floorLog
	drains  chan *nats.Msg // bounded: a full one answers Busy
	queries chan *nats.Msg // bounded likewise
	lists   chan *nats.Msg // bounded likewise
}

// newOwner makes an owner of the shard for one epoch. The outages are the shardRunner's: what fails in each epoch anew is one outage.
func newOwner(n *Node, source topology.Source, log *slog.Logger, outages outages, share func() int, fresh func() bool) *owner {
	return &owner{
		cfg: n.cfg, metrics: n.metrics, schedules: n.schedules, load: n.shards.load, trims: &n.trims, fresh: fresh,
		source: source, share: share, log: log, outages: outages, advance: n.shards.advance(source.Shard),
		sourceCheck: sourceCheck, listTime: listTime,
		ledger:  newLedger(n.cfg.DB, source.Shard, n.metrics),
		drains:  make(chan *nats.Msg, drainLimit),
		queries: make(chan *nats.Msg, queryLimit),
		lists:   make(chan *nats.Msg, queryLimit),
		unread:  make(map[uint64]int),
	}
}

// Bounds of what an owner takes on at once. Requests beyond them are answered Busy and asked again by the worker.
const (
	flushTimeout = 5 * time.Second
	inboxLimit   = 256 // requests between the NATS client and the dispatcher
	drainLimit   = 64  // drains waiting
	drainers     = 4   // drains at work, each with one reply of at most max_payload in memory
	queryLimit   = 64  // questions of readers waiting, for extents and for logs each
	queriers     = 2
	listExtents  = 1 << 15 // extents read for one page of logs: some 20 ms of the one who reads for all lists
)

// run serves the shard until ctx is done or the epoch ends, and calls listening once workers can reach it. It returns when
// no goroutine of the owner is left.
func (o *owner) run(ctx context.Context, listening func()) error {
	defer o.end()
	inbox := make(chan *nats.Msg, inboxLimit)
	sub, err := o.cfg.NC.ChanSubscribe(wire.OwnerSubjects(o.source.Shard, o.epoch), inbox)
	if err != nil {
		return fmt.Errorf("listening for workers: %w", err)
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only on a closed connection, where there is nothing left to stop
	if err := o.cfg.NC.FlushTimeout(flushTimeout); err != nil {
		return fmt.Errorf("listening for workers: %w", err)
	}

	listening()

	group, ctx := errgroup.WithContext(ctx)
	start := func(fn func(context.Context) error) { group.Go(func() error { return fn(ctx) }) }
	start(func(ctx context.Context) error { return o.dispatch(ctx, inbox) })
	for range drainers {
		start(o.serveDrains)
	}
	for range queriers {
		start(o.serveQueries)
	}
	start(o.serveLists)
	start(o.committer.run)
	start(o.sched.Run)
	trimmer := o.newTrimmer()
	start(func(ctx context.Context) error {
		if trimmer.enabled {
			o.inheritFloors(ctx)
		}
		return trimmer.run(ctx)
	})
	start(o.takeSnapshots)
	start(o.consume)
	start(o.watchSource)
	return group.Wait()
}

// end waits for who reads the database, and lets nobody begin to.
func (o *owner) end() {
	o.use.Lock()
	defer o.use.Unlock()
	o.ended = true
}

// dispatch hands each request to those who serve it, and never waits for them.
func (o *owner) dispatch(ctx context.Context, inbox <-chan *nats.Msg) error {
	for {
		var msg *nats.Msg
		select {
		case <-ctx.Done():
			return ctx.Err()
		case msg = <-inbox:
		}
		accepted := false
		switch op := wire.OperationOf(msg.Subject); op {
		case wire.OpDrain:
			accepted = offer(o.drains, msg)
		case wire.OpCommit:
			accepted = o.committer.offer(msg)
		case wire.OpHeld, wire.OpExtents:
			accepted = offer(o.queries, msg)
		case wire.OpList:
			accepted = offer(o.lists, msg)
		default:
			o.reply(msg, wire.Status{Code: wire.BadRequest, Message: fmt.Sprintf("no operation %q", op)})
			continue
		}
		if !accepted {
			o.reply(msg, wire.Status{Code: wire.Busy, Message: "the owner is at its bound"})
		}
	}
}

func offer[T any](queue chan<- T, item T) bool {
	select {
	case queue <- item:
		return true
	default:
		return false
	}
}

// reply answers a request. An answer that cannot be sent is as good as lost: the asker asks again.
func (o *owner) reply(msg *nats.Msg, message any) {
	data, err := wire.Encode(message)
	if err == nil {
		err = msg.Respond(data)
	}
	if err != nil {
		o.log.Debug("a reply could not be sent", "subject", msg.Subject, "error", err)
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
