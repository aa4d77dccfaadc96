package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"

	"dormouse/ingest/membership"
	"dormouse/ingest/shard"
	"dormouse/internal/retry"
	"dormouse/internal/topology"
	"dormouse/internal/wire"
	"dormouse/scheduler"
	"dormouse/store/manifest"
)

// shardRunner tends one shard for as long as the node runs. While this node should own the shard, it waits for the
// lease, owns the shard until something ends that, and begins again.
type shardRunner struct {
	node    *Node
	source  topology.Source
	members *membership.Membership
	log     *slog.Logger
	// outages are those of the shard and its owners. They outlast an epoch: a claim that fails is followed by another one.
	outages shard.Outages
	unread  error // why the archive could not be read at the last try; nil once the shard was owned

	advance *shard.Advance
}

func newShardRunner(n *Node, source topology.Source, members *membership.Membership) *shardRunner {
	log := n.cfg.Logger.With("shard", source.Shard.String(), "stream", source.Stream)
	return &shardRunner{
		node: n, source: source, members: members, log: log,
		outages: n.outages.Of("shard", source.Shard.String(), "stream", source.Stream),
		advance: n.shards.advance(source.Shard),
	}
}

// run returns nil when ctx is done, and an error only for what trying again cannot mend.
func (r *shardRunner) run(ctx context.Context) error {
	watching, unwatch := context.WithCancel(ctx)
	defer unwatch()
	watched := make(chan struct{})
	go func() { defer close(watched); r.watchAdvance(watching) }()
	defer func() { unwatch(); <-watched }()
	pause := retry.Patient()
	starved := retry.Between(r.node.cfg.Lease/2, 6*r.node.cfg.Lease) // paces claims that cannot read the archive
	for ctx.Err() == nil {
		placement, changed := r.members.Placement(r.source.Shard)
		if !placement.Mine {
			r.standBy(placement)
			select {
			case <-ctx.Done():
			case <-changed:
			}
			continue
		}
		began := time.Now()
		err := r.turn(ctx)
		r.note(err)
		if errors.Is(err, shard.ErrArchiveUnread) {
			r.withoutArchive(ctx, err, starved.NextBackOff())
			continue
		}
		// Every claim is a manifest record, so those that fail slow down. This turn worked for a while.
		if time.Since(began) > r.node.cfg.Lease {
			pause.Reset()
			starved.Reset()
		}
		wait := pause.NextBackOff()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, errHandedOver):
			pause.Reset()
			continue
		case isHeld(err): // by the one whose share it was, which gives it up soon, or by one that died
			placement, _ := r.members.Placement(r.source.Shard)
			r.standBy(placement)
			r.log.Debug("standing by", "reason", err)
			pause.Reset()
			wait = r.node.cfg.Lease/20 + rand.N(r.node.cfg.Lease/20+1)
		default:
			changed = nil
			r.node.shards.set(r.source.Shard, shardStatus{state: wire.ShardStarting, failed: err})
			if errors.As(err, &notOwned{}) {
				r.node.metrics.claimsFailed.Inc()
				r.outages.Unowned.Failed(err)
				break
			}
			r.node.metrics.stepDowns.Inc()
			r.outages.Unowned.Failed(fmt.Errorf("stepped down: %w", err))
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-time.After(wait):
		}
	}
	return nil
}

// withoutArchive leaves a shard to the other nodes for which the archive could not be read. One of them may need less
// of it, or reach a bucket that this node does not. It returns when the shard is another node's share or the pause is
// over.
func (r *shardRunner) withoutArchive(ctx context.Context, err error, pause time.Duration) {
	r.outages.Unread.Failed(err, "pause", pause)
	r.node.metrics.claimsFailed.Inc()
	r.unread = err
	r.node.shards.set(r.source.Shard, shardStatus{state: wire.ShardStarting, failed: err})
	r.members.Withdraw(err)
	ctx, cancel := context.WithTimeout(ctx, pause)
	defer cancel()
	_ = r.members.AwaitElsewhere(ctx, r.source.Shard, 0) // or the pause is over
}

// note tells how the shard gets on after a turn that ended in err.
func (r *shardRunner) note(err error) {
	switch {
	case errors.Is(err, errHandedOver) || isHeld(err) || errors.Is(err, manifest.ErrFenced):
		r.advance.Reset()
	case errors.As(err, &notOwned{}):
		r.advance.Fails(shard.Claiming, err)
	case !errors.Is(err, context.Canceled):
		r.advance.Fails(shard.Taking, err)
	}
}

// standBy notes who has the shard.
func (r *shardRunner) standBy(p membership.Placement) {
	r.outages.Over()
	state := wire.ShardStandby
	if p.Holder == "" || p.Holder == r.node.cfg.NodeID {
		state = wire.ShardStarting
	}
	r.advance.Reset()
	r.node.shards.set(r.source.Shard, shardStatus{state: state, holder: p.Holder})
}

// notOwned is what kept a node from owning a shard that it should own.
type notOwned struct{ error }

func (e notOwned) Unwrap() error { return e.error }

var errHandedOver = errors.New("the shard is another node's share")

// isHeld reports whether another node has the lease.
func isHeld(err error) bool {
	var held *membership.HeldError
	return errors.As(err, &held)
}

// handOver returns errHandedOver when the shard has been another node's share for a tenth of a lease.
func (r *shardRunner) handOver(ctx context.Context) error {
	if err := r.members.AwaitElsewhere(ctx, r.source.Shard, r.node.cfg.Lease/10); err != nil {
		return err
	}
	r.log.Info("handing the shard over: it is another node's share")
	return errHandedOver
}

// turn holds the lease and owns the shard until ctx is done, the lease is lost, the shard is to be handed over or the
// owner steps down.
func (r *shardRunner) turn(ctx context.Context) (err error) {
	lease, err := r.members.Acquire(ctx, r.source.Shard)
	if isHeld(err) {
		return err
	}
	if err != nil {
		return notOwned{err}
	}
	served := tenure{log: r.log}
	defer func(ctx context.Context) { served.end(ctx, err) }(ctx)
	defer func(ctx context.Context) { // others wait for it
		if err := lease.Release(ctx); err != nil {
			r.log.Debug("the lease could not be given up; it will run out", "error", err)
		}
	}(ctx)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := lease.Keep(ctx); err != nil {
			return err
		}
		return ctx.Err()
	})
	group.Go(func() error { return r.handOver(ctx) })
	group.Go(func() error {
		progress := &shard.Progress{}
		r.node.shards.set(r.source.Shard,
			shardStatus{state: wire.ShardClaiming, holder: r.node.cfg.NodeID, progress: progress, failed: r.unread})
		o, err := shard.Claim(ctx, r.site(progress, lease.Fresh))
		if err != nil {
			return notOwned{err}
		}
		r.advance.Done(shard.Claiming)
		defer r.members.SetServing(r.source.Shard, false)
		return o.Run(ctx, func() {
			r.unread = nil
			r.members.SetServing(r.source.Shard, true)
			r.node.shards.set(r.source.Shard,
				shardStatus{state: wire.ShardOwned, holder: r.node.cfg.NodeID, progress: progress, owner: o})
			level := slog.LevelInfo
			if r.outages.Unowned.Lasts() { // its end is a line for all shards
				level = slog.LevelDebug
			}
			r.outages.Unowned.Over()
			served.begin(o.Epoch())
			r.log.Log(ctx, level, "owning the shard", "epoch", o.Epoch(), "from", o.Applied()+1)
		})
	})
	return group.Wait()
}

// site is what an owner of the shard is made of.
func (r *shardRunner) site(progress *shard.Progress, fresh func() bool) shard.Site {
	n := r.node
	site := shard.Site{
		Config: n.cfg.Config, Source: r.source, Tail: n.cfg.tail, Merge: n.cfg.merge, Metrics: n.owners,
		Outages: r.outages, Advance: r.advance, Progress: progress,
		Share:    func() int { mine, _ := r.members.Share(0); return max(mine, 1) },
		Buffered: func() scheduler.Stats { return n.shards.load().Stats },
		Trimmed:  func() { n.trims.Add(1) },
		Fresh:    fresh,
		Policies: n.policies,
	}
	site.Logger = r.log
	if site.Keeps == nil {
		site.Keeps = n.keeps
	}
	return site
}
