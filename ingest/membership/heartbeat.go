package membership

import (
	"context"
	"log/slog"
	"time"

	"github.com/cenkalti/backoff/v5"

	"dormouse/internal/outage"
	"dormouse/internal/retry"
	"dormouse/internal/wire"
)

const (
	checkTimeout     = 5 * time.Second  // of one check
	longestWithdrawn = 10 * time.Minute // pause of a node that has withdrawn again and again
)

// heartbeat tells the other nodes that this one lives. It shows the node key while the node is eligible for shards, and
// else the waiting key.
//
// A node is eligible while its bucket answers. One that takes a shard over with an empty disk needs the bucket, and
// nobody serves the shard until it has what it needs. Once a node owns a shard the bucket may fail: archiving waits,
// and nothing is lost.
type heartbeat struct {
	leases      *Leases
	check       func(context.Context) error // nil: the bucket answers
	setEligible func(bool)
	log         *slog.Logger
	checked     chan struct{} // closed after the first check
	withdrawn   chan error    // cap 1: why the node must leave shards to others though its check passes
}

func newHeartbeat(
	leases *Leases, check func(context.Context) error, setEligible func(bool), log *slog.Logger,
) *heartbeat {
	return &heartbeat{leases: leases, check: check, setEligible: setEligible, log: log,
		checked: make(chan struct{}), withdrawn: make(chan error, 1)}
}

// withdraw ends the node's eligibility, if run has not heard of a reason yet.
func (h *heartbeat) withdraw(why error) {
	select {
	case h.withdrawn <- why:
	default:
	}
}

// run shows one of the node's keys until ctx is done.
func (h *heartbeat) run(ctx context.Context) {
	err := h.checkOnce(ctx)
	close(h.checked)
	pauses := h.pauses()
	bucket := outage.New(h.log, "the bucket does not answer as it must: this node leaves shards to others until it does, "+
		"and goes on serving those that it has", "the bucket answers: this node takes its share of the shards")
	if err != nil {
		bucket.Failed(err)
	}
	for pause := time.Duration(0); ctx.Err() == nil; pause = pauses.NextBackOff() {
		if err != nil {
			h.while(ctx, wire.WaitingKeys, func() { h.awaitBucket(ctx, pause, bucket) })
		}
		if ctx.Err() != nil {
			return
		}
		began := time.Now()
		h.while(ctx, wire.NodeKeys, func() { err = h.beEligible(ctx) })
		if time.Since(began) > longestWithdrawn {
			pauses.Reset()
		}
	}
}

// pauses grow each time that the bucket answers and still what a takeover needs of it cannot be read: each time some
// shards are not served until this node has found that out again.
func (h *heartbeat) pauses() *backoff.ExponentialBackOff {
	pauses := retry.Between(2*h.leases.term, longestWithdrawn)
	pauses.Multiplier = 2
	return pauses
}

// beEligible takes part until the node withdraws, and returns why; nil when ctx is done.
func (h *heartbeat) beEligible(ctx context.Context) error {
	select {
	case <-h.withdrawn: // of a time when this node was not eligible anyway
	default:
	}
	h.setEligible(true)
	select {
	case <-ctx.Done():
		return nil
	case err := <-h.withdrawn:
		h.setEligible(false) // Withdraw may have done so before it was set above
		return err
	}
}

// awaitBucket waits for the pause, and then until the check passes. Who withdrew the node has said why.
func (h *heartbeat) awaitBucket(ctx context.Context, pause time.Duration, bucket *outage.Log) {
	select {
	case <-ctx.Done():
		return
	case <-time.After(pause):
	}
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		err := h.checkOnce(ctx)
		if err != nil {
			bucket.Failed(err)
		}
		return struct{}{}, err
	}, backoff.WithBackOff(retry.Between(100*time.Millisecond, h.leases.term)), backoff.WithMaxElapsedTime(0))
	if err == nil {
		bucket.Over()
	}
}

func (h *heartbeat) checkOnce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	return h.check(ctx)
}

// while shows this node's key of that kind while fn runs.
func (h *heartbeat) while(ctx context.Context, keys string, fn func()) {
	ctx, hide := context.WithCancel(ctx)
	hidden := make(chan struct{})
	go func() {
		defer close(hidden)
		h.show(ctx, keys+h.leases.node)
	}()
	fn()
	hide()
	<-hidden
}

// show renews a key of this node until ctx is done, and then deletes it.
func (h *heartbeat) show(ctx context.Context, key string) {
	pause := retry.Quick()
	told := outage.New(h.log, "the other nodes may take this one for dead; telling them again",
		"the other nodes know that this one lives")
	for {
		lease, err := h.leases.acquire(ctx, key, 0)
		if err == nil {
			told.Over()
			pause.Reset()
			if err = lease.Keep(ctx); err == nil {
				if err := lease.Release(ctx); err != nil {
					h.log.Debug("the others were not told that this node leaves", "error", err)
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
