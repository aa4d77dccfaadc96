package ingest

import (
	"context"
	"time"

	"github.com/cenkalti/backoff/v5"

	"dormouse/internal/outage"
	"dormouse/internal/wire"
)

const (
	checkTimeout = 5 * time.Second  // of one question whether the bucket answers
	longestUnfit = 10 * time.Minute // pause of a node that has left its shards to others again and again
)

// live tells the other nodes that this one is there, until ctx is done: as one that takes its share of the shards while its
// bucket answers, and else as one that waits. A node that takes a shard over with an empty disk needs the bucket, and nobody
// serves the shard until it has what it needs; so a node that cannot reach it must not be given any. Once it owns a shard the
// bucket may fail: archiving waits, and nothing is lost.
//
// Looked is called when the bucket was asked for the first time.
func (n *Node) live(ctx context.Context, leases *leases, roster *roster, looked func()) error {
	err := n.checkBucket(ctx)
	looked()
	pauses := n.unfitPauses()
	bucket := outage.New(n.cfg.Logger, "the bucket does not give what it should: this node leaves shards to others until it does, "+
		"and goes on serving those that it has", "the bucket answers: this node takes its share of the shards")
	for pause := time.Duration(0); ctx.Err() == nil; pause = pauses.NextBackOff() {
		if err != nil {
			n.showing(ctx, leases, wire.WaitingKeys, func() { n.awaitBucket(ctx, pause, err, bucket) })
		}
		if ctx.Err() != nil {
			break
		}
		began := time.Now()
		n.showing(ctx, leases, wire.NodeKeys, func() { err = n.whileFit(ctx, roster) })
		if time.Since(began) > longestUnfit {
			pauses.Reset()
		}
	}
	return nil
}

// unfitPauses grow each time that the bucket seems to be there and still no snapshot can be read: each time some shards are
// not served until this node has found that out again.
func (n *Node) unfitPauses() *backoff.ExponentialBackOff {
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval, pauses.Multiplier, pauses.MaxInterval = 2*n.cfg.Lease, 2, longestUnfit
	return pauses
}

// whileFit takes part until a keeper says that this node cannot, and returns why; nil when ctx is done.
func (n *Node) whileFit(ctx context.Context, roster *roster) error {
	select {
	case <-n.unfit: // of a time when this node was not fit anyway
	default:
	}
	roster.setFit(true)
	select {
	case <-ctx.Done():
		return nil
	case err := <-n.unfit:
		roster.setFit(false) // as the keeper did, perhaps before it was set
		return err
	}
}

// awaitBucket waits until the bucket answers, and that at least for the pause.
func (n *Node) awaitBucket(ctx context.Context, pause time.Duration, why error, bucket *outage.Log) {
	bucket.Failed(why, "pause", pause)
	select {
	case <-ctx.Done():
		return
	case <-time.After(pause):
	}
	between := backoff.NewExponentialBackOff()
	between.InitialInterval, between.MaxInterval = 100*time.Millisecond, n.cfg.Lease
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		err := n.checkBucket(ctx)
		if err != nil {
			bucket.Failed(err)
		}
		return struct{}{}, err
	}, backoff.WithBackOff(between), backoff.WithMaxElapsedTime(0))
	if err == nil {
		bucket.Over()
	}
}

func (n *Node) checkBucket(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	return n.cfg.Bucket.Check(ctx)
}

// showing holds this node's key of that kind while fn runs.
func (n *Node) showing(ctx context.Context, leases *leases, keys string, fn func()) {
	ctx, hide := context.WithCancel(ctx)
	hidden := make(chan struct{})
	go func() {
		defer close(hidden)
		n.show(ctx, leases, keys+n.cfg.NodeID)
	}()
	fn()
	hide()
	<-hidden
}

// show renews a key of this node until ctx is done, and then deletes it.
func (n *Node) show(ctx context.Context, leases *leases, key string) {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 50*time.Millisecond, time.Second
	told := outage.New(n.cfg.Logger, "the other nodes may take this one for dead; telling them again", "the other nodes know that this one lives")
	for {
		held, err := leases.acquire(ctx, key, 0)
		if err == nil {
			told.Over()
			pause.Reset()
			if err = held.keep(ctx, n.cfg.Lease); err == nil {
				late, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
				defer cancel()
				if err := held.release(late); err != nil {
					n.cfg.Logger.Debug("the others were not told that this node leaves", "error", err)
				}
				return
			}
		}
		if ctx.Err() == nil {
			told.Failed(err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause.NextBackOff()):
		}
	}
}
