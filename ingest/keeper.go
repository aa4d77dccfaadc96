package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/cenkalti/backoff/v5"
	"golang.org/x/sync/errgroup"

	"dormouse/internal/topology"
)

// keeper tries to own one shard for as long as the node runs: it waits for the lease, owns the shard until something ends
// that, and begins again.
type keeper struct {
	node   *Node
	source topology.Source
	leases *leases
	log    *slog.Logger
}

// releaseTimeout bounds giving the lease up at shutdown; if it fails the lease runs out by itself.
const releaseTimeout = 2 * time.Second

// run returns nil when ctx is done, and an error only for what trying again cannot mend.
func (k *keeper) run(ctx context.Context) error {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 100*time.Millisecond, 5*time.Second
	for {
		began := time.Now()
		err := k.turn(ctx)
		if time.Since(began) > k.node.cfg.Lease { // it worked for a while; every claim is a manifest record, so failing ones slow down
			pause.Reset()
		}
		wait := pause.NextBackOff()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, errLeaseHeld):
			k.node.shards.set(k.source.Shard, stateStandby, nil)
			k.log.Debug("standing by", "reason", err)
			wait = k.node.cfg.Lease/5 + rand.N(k.node.cfg.Lease/10+1)
		default:
			k.node.shards.set(k.source.Shard, stateStarting, nil)
			k.node.metrics.stepDowns.Inc()
			k.log.Warn("stepped down; trying to own the shard again", "reason", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// turn holds the lease and owns the shard until ctx is done, the lease is lost or the owner steps down.
func (k *keeper) turn(ctx context.Context) error {
	held, err := k.leases.acquire(ctx, k.source.Shard)
	if errors.Is(err, errLeaseHeld) {
		return err
	}
	if err != nil {
		return fmt.Errorf("could not own the shard: %w", err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
		defer cancel()
		if err := held.release(ctx); err != nil {
			k.log.Debug("the lease could not be given up; it will run out", "error", err)
		}
	}()
	k.node.shards.set(k.source.Shard, stateClaiming, nil)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := held.keep(ctx, k.node.cfg.Lease); err != nil {
			return err
		}
		return ctx.Err()
	})
	group.Go(func() error {
		o, err := claim(ctx, k.node, k.source, k.log)
		if err != nil {
			return fmt.Errorf("could not own the shard: %w", err)
		}
		return o.run(ctx, func() {
			k.node.shards.set(k.source.Shard, stateOwned, o.sched)
			k.log.Info("owning the shard", "epoch", o.epoch, "from", o.applied()+1)
		})
	})
	return group.Wait()
}
