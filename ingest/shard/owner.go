package shard

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"dormouse/internal/shardid"
	"dormouse/internal/wire"
	"dormouse/scheduler"
)

// Owner serves one shard in one epoch, which Claim began; Run serves until the epoch ends.
type Owner struct {
	epoch       uint64
	ledger      *ledger
	sched       *scheduler.Scheduler
	from        *sourceStream
	intake      *intake
	server      *server
	committer   *committer
	trimmer     *trimmer
	checkpoints *checkpointer
	merger      *merger
	garbage     *garbage
	sweeper     *sweeper
	cutter      *cutter
	expirer     *expirer
	failing     Outages

	// use is held for reading by who reads the database from outside of Run: when Run has returned it may be closed.
	use   sync.RWMutex
	ended bool // guarded by use
}

// Run serves the shard until ctx is done or the epoch ends, and calls listening once workers can reach it. It returns
// when no goroutine of the owner is left. It is called once.
func (o *Owner) Run(ctx context.Context, listening func()) error {
	defer o.end()
	stop, err := o.server.listen(o.epoch)
	if err != nil {
		return err
	}
	defer stop()

	listening()

	group, ctx := errgroup.WithContext(ctx)
	for _, part := range []func(context.Context) error{
		o.server.run, o.committer.run, o.sched.Run, o.trimmer.run, o.checkpoints.run, o.merger.run,
		o.garbage.run, o.sweeper.run, o.cutter.run, o.expirer.run, o.intake.run, o.from.watch,
	} {
		group.Go(func() error { return part(ctx) })
	}
	return group.Wait()
}

// end waits for who reads the database, and lets nobody begin to.
func (o *Owner) end() {
	o.use.Lock()
	defer o.use.Unlock()
	o.ended = true
}

// Epoch returns the epoch that the owner has claimed.
func (o *Owner) Epoch() uint64 { return o.epoch }

// Applied returns the last sequence of the source stream that was taken in, or stepped over.
func (o *Owner) Applied() uint64 { return o.ledger.applied() }

// Lag returns how many sequences of the source stream are not archived, as far as the owner has seen its end.
func (o *Owner) Lag() uint64 { return o.sched.Stats().Entries + o.from.ahead() }

// Segments returns how many segments of the shard are live, and how many of them are fresh.
func (o *Owner) Segments() (live, fresh uint64) {
	t, _ := o.ledger.live()
	live, _ = t.Segments()
	return live, uint64(t.Fresh())
}

// Stats sums up what is buffered, from memory alone.
func (o *Owner) Stats() scheduler.Stats { return o.sched.Stats() }

// Tell fills in what only an owner knows.
func (o *Owner) Tell(one *wire.ShardStatus) {
	f, err := o.figures()
	if err != nil {
		o.failing.requests.Failed(err)
	}
	one.Epoch, one.Applied = o.epoch, f.applied
	one.Logs, one.Queued, one.Entries, one.Bytes = f.Active, f.Queued, f.Entries, f.Bytes
	if !f.oldest.IsZero() {
		one.Oldest = f.oldest.UnixNano()
	}
}

// Oldest returns when the oldest buffered entry was stored in the stream; the zero time without any, or when the disk
// does not tell.
func (o *Owner) Oldest() time.Time {
	if f, err := o.figures(); err == nil {
		return f.oldest
	}
	return time.Time{}
}

// figures needs the database only when there are buffered entries, so that a node at rest stays at rest whoever asks
// it. An owner that has ended does not tell the oldest.
func (o *Owner) figures() (f figures, err error) {
	o.use.RLock()
	defer o.use.RUnlock()
	f, log, first, cursor, err := o.ledger.earliest(o.ended)
	if cursor == nil {
		return f, err
	}
	_, f.oldest, _, err = cursor.Seek(log, first)
	return f, errors.Join(err, cursor.Close())
}

// queue puts ready logs into the SyncQueue, for the scheduler.
type queue struct {
	js    jetstream.JetStream
	shard shardid.Shard
	epoch uint64
}

// publish puts one work item into it.
func (q queue) publish(ctx context.Context, logs []string) error {
	data, err := wire.Encode(wire.WorkItem{Shard: q.shard, Epoch: q.epoch, Logs: logs})
	if err != nil {
		return err
	}
	_, err = q.js.Publish(ctx, wire.SyncSubject(q.shard), data, jetstream.WithExpectStream(wire.SyncQueueStream))
	return err
}
