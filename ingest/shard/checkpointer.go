package shard

import (
	"context"
	"errors"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"dormouse/internal/extent"
	"dormouse/internal/outage"
	"dormouse/internal/shardid"
	"dormouse/store/manifest"
)

// defaultTail is how many records a manifest may have beyond its newest checkpoint before another one is taken. A new
// owner reads them all.
const defaultTail = 1024

// checkpointEvery is how often one is taken at most, so that a burst is over before it is.
const checkpointEvery = 30 * time.Second

// putTries is how often an object is put before the whole checkpoint is begun anew.
const putTries = 3

// checkpointer keeps the manifest of a shard short: it puts the tree into the bucket, and drops the records that are in
// it.
type checkpointer struct {
	js     jetstream.JetStream
	shard  shardid.Shard
	bucket Bucket
	chain  *appender
	ledger *ledger
	most   uint64               // records of a tail that is not cut
	delay  time.Duration        // of dropping what a checkpoint has
	newest *manifest.Checkpoint // set by the claim, nil without any
	asked  chan chan<- struct{} // for a checkpoint at once; closes what it is sent

	record           func(context.Context, *manifest.Checkpoint) error // has a checkpoint recorded
	checkpoints      prometheus.Counter
	taking, dropping *outage.Log
}

// run keeps the manifest short until ctx is done: it takes a checkpoint when the tail is long, and drops the records
// that a checkpoint has, once that is safe from a power failure.
func (t *checkpointer) run(ctx context.Context) error {
	every := min(checkpointEvery, 10*t.delay)
	if err := t.dropTail(ctx); err != nil { // of an owner that ended before it did
		return err
	}
	for {
		changed := t.ledger.changed()
		if _, _, tail := t.ledger.checkpoint(); tail < t.most {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-changed:
				continue
			case done := <-t.asked:
				if err := t.shortenFor(ctx, done); err != nil {
					return err
				}
			}
		} else if err := t.shorten(ctx); err != nil {
			return err
		}
		if err := t.dropTail(ctx); err != nil {
			return err
		}
		if err := t.pause(ctx, every); err != nil {
			return err
		}
	}
}

// now takes a checkpoint at once: what reads the bucket alone knows of what was recorded before it returns.
func (t *checkpointer) now(ctx context.Context) error {
	done := make(chan struct{})
	select {
	case <-ctx.Done():
		return ctx.Err()
	case t.asked <- done:
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-done:
		return nil
	}
}

// shortenFor takes a checkpoint that somebody waits for.
func (t *checkpointer) shortenFor(ctx context.Context, done chan<- struct{}) error {
	err := t.shorten(ctx)
	if err == nil {
		close(done)
	}
	return err
}

// pause waits, and takes checkpoints meanwhile that somebody asks for.
func (t *checkpointer) pause(ctx context.Context, wait time.Duration) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case done := <-t.asked:
			if err := t.shortenFor(ctx, done); err != nil {
				return err
			}
		case <-timer.C:
			return nil
		}
	}
}

// shorten takes a checkpoint. It tries again while the bucket or JetStream fails.
func (t *checkpointer) shorten(ctx context.Context) error {
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		err := t.take(ctx)
		if err != nil && ctx.Err() == nil {
			t.taking.Failed(err)
		}
		return struct{}{}, err
	}, backoff.WithMaxElapsedTime(0))
	if err == nil {
		t.taking.Over()
	}
	return err
}

// take takes a checkpoint of the tree as it is. The steps, and what a crash after each leaves: (1) the object is in the
// bucket: an orphan; (2) its record is in the manifest: new owners use it; (3) the records that it has are dropped
// (dropTail): the next owner drops them.
func (t *checkpointer) take(ctx context.Context) error {
	live, upTo, tail := t.ledger.checkpoint()
	data, err := live.Encode()
	if err != nil {
		return backoff.Permanent(err)
	}
	id, err := uuid.NewV7()
	if err != nil {
		return err
	}
	next := &manifest.Checkpoint{UpTo: upTo.Seq, UpToID: upTo.ID,
		Object: extent.Segment{Key: t.shard.CheckpointKey(id.String()), Size: uint64(len(data))}}
	// What fails may have been stored: the same object again is the same one, and another name would leave an orphan.
	if _, err = backoff.Retry(ctx, func() (struct{}, error) {
		return struct{}{}, t.bucket.Put(ctx, next.Object.Key, data)
	}, backoff.WithMaxTries(putTries)); err != nil {
		return err
	}
	if err := t.record(ctx, next); err != nil {
		return err
	}
	t.newest = next
	t.ledger.cutTail(tail)
	if err := t.ledger.disk.keepCheckpoint(next.Object.Key, data); err != nil {
		return backoff.Permanent(err)
	}
	t.checkpoints.Inc()
	return nil
}

// dropTail drops the records that the newest checkpoint has, TrimDelay after its record was appended: until then a
// power failure could take that record and not the drop.
func (t *checkpointer) dropTail(ctx context.Context) error {
	newest := t.newest
	if newest == nil {
		return nil
	}
	if err := t.pause(ctx, t.delay); err != nil {
		return err
	}
	err := t.chain.stillThere(ctx)
	if errors.Is(err, manifest.ErrFenced) {
		return err
	}
	if err == nil {
		err = manifest.Purge(ctx, t.js, t.shard, newest)
	}
	if err == nil {
		t.dropping.Over()
	} else if ctx.Err() == nil {
		t.dropping.Failed(err)
	}
	return ctx.Err()
}
