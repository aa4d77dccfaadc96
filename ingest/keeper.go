package ingest

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/cenkalti/backoff/v5"
	"golang.org/x/sync/errgroup"

	"dormouse/internal/outage"
	"dormouse/internal/topology"
	"dormouse/internal/wire"
	"dormouse/store/manifest"
)

// keeper tends one shard for as long as the node runs: while the roster says that this node should own it, it waits for the
// lease, owns the shard until something ends that, and begins again.
type keeper struct {
	node   *Node
	source topology.Source
	leases *leases
	roster *roster
	log    *slog.Logger
	outage *outage.Log // the shard cannot be owned
	// outages are those of its owners. They outlast an epoch: a claim that fails is followed by another one.
	outages outages
	unread  error // why the snapshot could not be read at the last try; nil once the shard was owned

	advance *advance
}

// releaseTimeout bounds giving a lease up; if it fails the lease runs out by itself.
const releaseTimeout = 2 * time.Second

// run returns nil when ctx is done, and an error only for what trying again cannot mend.
func (k *keeper) run(ctx context.Context) error {
	watching, unwatch := context.WithCancel(ctx)
	defer unwatch()
	watched := make(chan struct{})
	go func() { defer close(watched); k.watchAdvance(watching) }()
	defer func() { unwatch(); <-watched }()
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 100*time.Millisecond, 5*time.Second
	starved := backoff.NewExponentialBackOff() // paces claims that cannot read their snapshot
	starved.InitialInterval, starved.MaxInterval = k.node.cfg.Lease/2, 6*k.node.cfg.Lease
	for ctx.Err() == nil {
		place := k.roster.place(k.source.Shard)
		if !place.mine {
			k.standBy(place)
			select {
			case <-ctx.Done():
			case <-place.changed:
			}
			continue
		}
		began := time.Now()
		err := k.turn(ctx)
		k.note(err)
		if errors.Is(err, errSnapshotUnread) {
			k.withoutSnapshot(ctx, err, starved.NextBackOff())
			continue
		}
		if time.Since(began) > k.node.cfg.Lease { // it worked for a while; every claim is a manifest record, so failing ones slow down
			pause.Reset()
			starved.Reset()
		}
		changed, wait := place.changed, pause.NextBackOff()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, errHandedOver):
			pause.Reset()
			continue
		case errors.Is(err, errLeaseHeld): // by the one whose share it was, which gives it up soon, or by one that died
			k.standBy(k.roster.place(k.source.Shard))
			k.log.Debug("standing by", "reason", err)
			pause.Reset()
			wait = k.node.cfg.Lease/20 + rand.N(k.node.cfg.Lease/20+1)
		default:
			changed = nil
			k.node.shards.set(k.source.Shard, shardStatus{state: wire.ShardStarting, failed: err})
			if errors.As(err, &notOwned{}) {
				k.node.metrics.claimsFailed.Inc()
				k.outage.Failed(err)
				break
			}
			k.node.metrics.stepDowns.Inc()
			k.log.Warn("stepped down; trying to own the shard again", "reason", outage.Short(err.Error()))
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-time.After(wait):
		}
	}
	return nil
}

// withoutSnapshot leaves a shard whose snapshot could not be read to the other nodes. One of them may have it on its disk, or
// reach a bucket that this node does not. It returns when the shard is another node's share or the pause is over.
func (k *keeper) withoutSnapshot(ctx context.Context, err error, pause time.Duration) {
	k.outages.part.Failed(err, "pause", pause)
	k.node.metrics.claimsFailed.Inc()
	k.unread = err
	k.node.shards.set(k.source.Shard, shardStatus{state: wire.ShardStarting, failed: err})
	k.roster.setFit(false)
	offer(k.node.unfit, err)
	over := time.NewTimer(pause)
	defer over.Stop()
	for {
		place := k.roster.place(k.source.Shard)
		if !place.mine {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-place.changed:
		case <-over.C:
			return
		}
	}
}

// note tells how the shard gets on after a turn that ended in err.
func (k *keeper) note(err error) {
	switch {
	case errors.Is(err, errHandedOver) || errors.Is(err, errLeaseHeld) || errors.Is(err, manifest.ErrFenced):
		k.advance.reset()
	case errors.As(err, &notOwned{}):
		k.advance.fails(claiming, err)
	case !errors.Is(err, context.Canceled):
		k.advance.fails(taking, err)
	}
}

// standBy notes who has the shard.
func (k *keeper) standBy(p place) {
	k.outage.Over()
	k.outages.part.Over()
	state := wire.ShardStandby
	if p.holder == "" || p.holder == k.leases.node {
		state = wire.ShardStarting
	}
	k.advance.reset()
	k.node.shards.set(k.source.Shard, shardStatus{state: state, holder: p.holder})
}

// notOwned is what kept a node from owning a shard that it should own.
type notOwned struct{ error }

func (e notOwned) Unwrap() error { return e.error }

var errHandedOver = errors.New("the shard is another node's share")

// handOver returns errHandedOver when the shard has been another node's share for a while, so that nodes which come and go
// together cost one handover and not one each.
func (k *keeper) handOver(ctx context.Context) error {
	settle := k.node.cfg.Lease / 10
	for {
		place := k.roster.place(k.source.Shard)
		var settled <-chan time.Time
		if !place.mine {
			left := settle - time.Since(place.since)
			if left <= 0 {
				k.log.Info("handing the shard over: it is another node's share")
				return errHandedOver
			}
			settled = time.After(left)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-place.changed:
		case <-settled:
		}
	}
}

// turn holds the lease and owns the shard until ctx is done, the lease is lost, the shard is to be handed over or the owner
// steps down.
func (k *keeper) turn(ctx context.Context) (err error) {
	held, err := k.leases.acquire(ctx, wire.LeaseKey(k.source.Shard), k.roster.place(k.source.Shard).lapsed)
	if errors.Is(err, errLeaseHeld) {
		return err
	}
	if err != nil {
		return notOwned{err}
	}
	served := tenure{log: k.log}
	defer func(ctx context.Context) { served.end(ctx, err) }(ctx)
	defer k.release(ctx, held)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := held.keep(ctx, k.node.cfg.Lease); err != nil {
			return err
		}
		return ctx.Err()
	})
	group.Go(func() error { return k.handOver(ctx) })
	group.Go(func() error {
		share := func() int { mine, _ := k.roster.count(); return max(mine, 1) }
		o := newOwner(k.node, k.source, k.log, k.outages, share, func() bool { return held.fresh(k.node.cfg.Lease) })
		k.node.shards.set(k.source.Shard, shardStatus{state: wire.ShardClaiming, holder: k.leases.node, owner: o, failed: k.unread})
		if err := o.claim(ctx); err != nil {
			return notOwned{err}
		}
		k.advance.done(claiming)
		defer k.roster.serve(k.source.Shard, false)
		return o.run(ctx, func() {
			k.unread = nil
			k.roster.serve(k.source.Shard, true)
			k.node.shards.set(k.source.Shard, shardStatus{state: wire.ShardOwned, holder: k.leases.node, owner: o})
			k.outage.Over()
			served.begin(o.epoch)
			k.log.Info("owning the shard", "epoch", o.epoch, "from", o.applied()+1)
		})
	})
	return group.Wait()
}

// release gives a lease up at once, also when ctx is done: others wait for it.
func (k *keeper) release(ctx context.Context, held *lease) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	if err := held.release(ctx); err != nil {
		k.log.Debug("the lease could not be given up; it will run out", "error", err)
	}
}
