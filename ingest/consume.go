package ingest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/ordered"
)

// Bounds of what is taken from the source streams at once. The client holds up to pullMessages and pullBytes that the
// server has sent ahead, shared by the shards; a batch becomes one Pebble batch.
const (
	pullMessages  = 4096
	pullBytes     = 16 << 20
	batchMessages = 1024
	batchBytes    = 4 << 20

	minPullMessages = 256
)

// sourceHeartbeat is how often the server says that it still has a request. Two that are missing end the consumer.
const sourceHeartbeat = 2 * time.Second

// consume takes entries in until ctx is done or the local state cannot be written.
func (o *owner) consume(ctx context.Context) (err error) {
	// Of its own, since an answer that never comes has to end somewhere: nothing is passed over until it was put aside.
	if o.aside, err = jetstream.New(o.cfg.NC, jetstream.WithPublishAsyncTimeout(asideTimeout)); err != nil {
		return err
	}
	defer o.aside.CleanupPublisher()
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 50*time.Millisecond, 5*time.Second
	for {
		before := o.ledger.applied()
		err := o.consumeOnce(ctx, before+1)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !errors.Is(err, errSource) {
			return err
		}
		if o.ledger.applied() > before {
			pause.Reset()
		}
		wait := pause.NextBackOff()
		o.outages.source.Failed(err)
		o.advance.fails(taking, err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// consumeOnce reads with one consumer from a sequence on.
func (o *owner) consumeOnce(ctx context.Context, from uint64) error {
	info, err := o.stream.Info(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", errSource, err)
	}
	if err := o.sameStream(info.Created); err != nil {
		return err
	}
	o.sawEnd(info.State.LastSeq)
	if first := info.State.FirstSeq; first > from {
		if err := o.skipGap(ctx, first-1); err != nil {
			return err
		}
		from = first
	}
	share := o.share()
	consumer, err := ordered.Open(ctx, o.cfg.JS, o.source.Stream, "", from, ordered.Limits{
		Messages: max(pullMessages/share, minPullMessages), Bytes: pullBytes / share, Heartbeat: sourceHeartbeat,
	})
	if err != nil {
		return fmt.Errorf("%w: %w", errSource, err)
	}
	defer consumer.Stop()
	o.outages.source.Over()
	o.notePending(consumer.Pending())
	defer o.sched.Release()
	for checked := false; ; {
		if err := o.awaitRoom(ctx); err != nil {
			return err
		}
		batch, err := o.gather(ctx, consumer)
		if err != nil {
			return err
		}
		if batch.came == 0 {
			if err := o.passOver(ctx, consumer.Passed()); err != nil {
				return err
			}
			continue
		}
		if !checked { // not before: a leader that was just elected may not know yet of all that was acked
			if err := o.checkSource(ctx); err != nil {
				batch.close()
				return err
			}
			checked = true
		}
		if err := o.takeIn(ctx, batch); err != nil {
			return err
		}
	}
}

// collectBytes is how much of a backlog is taken in before its logs are made ready, see scheduler.Collect.
const collectBytes = 128 << 20

// takeIn applies a batch. Logs of a backlog wait for each other until it is caught up with or collectBytes came.
func (o *owner) takeIn(ctx context.Context, batch *intake) error {
	o.advance.begins(taking)
	behind := batch.pending > 0
	if behind {
		o.sched.Collect()
	}
	if err := o.apply(ctx, batch); err != nil {
		return err
	}
	o.notePending(batch.pending)
	o.collected += uint64(batch.bytes + entryCost*batch.messages)
	if !behind || o.collected >= min(collectBytes, o.cfg.BufferLimit/2)/uint64(o.share()) {
		o.collected = 0
		o.sched.Release()
	}
	return nil
}

// gatherWait is how long those that were announced may let a batch wait, which keeps the database from closing and its
// entries from being archived. They never come if the stream dropped them meanwhile.
const gatherWait = 250 * time.Millisecond

// gatherFirst is how long a batch waits for its first message. Then it is looked whether there is one to wait for.
const gatherFirst = 2 * time.Second

// gather waits for one message and takes those that follow at once: until the server has none pending or a bound is met. It
// returns an empty batch when none comes.
func (o *owner) gather(ctx context.Context, consumer source) (in *intake, err error) {
	in = o.newIntake()
	defer func() {
		if err != nil {
			in.close()
		}
	}()
	first, cancel := context.WithTimeout(ctx, gatherFirst)
	defer cancel()
	switch err := in.next(first, consumer); {
	case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
		return in, nil
	case err != nil || in.full():
		return in, err
	}
	rest, cancel := context.WithTimeout(ctx, gatherWait) // one for the batch: a timer for each message would cost more
	defer cancel()
	for !in.full() {
		switch err := in.next(rest, consumer); {
		case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
			in.pending = 0 // as far as is known: who waits for the end of a backlog must not wait for them
			return in, nil
		case err != nil:
			return in, err
		}
	}
	return in, nil
}

// source is an ordered.Consumer.
type source interface {
	Next(ctx context.Context) (ordered.Message, error)
}

// next takes the next message.
func (in *intake) next(ctx context.Context, consumer source) error {
	msg, err := consumer.Next(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", errSource, err)
	}
	if err := in.take(msg); err != nil {
		return fmt.Errorf("taking in a message of %s: %w", in.owner.source.Stream, err)
	}
	in.pending = msg.Pending
	in.owner.sawEnd(msg.Sequence + msg.Pending)
	return nil
}

// full reports whether the batch is to be applied as it is.
func (in *intake) full() bool {
	return in.pending == 0 || in.messages >= batchMessages || in.bytes >= batchBytes
}

const (
	entryCost = 64 // bytes that an entry costs besides its content, for the buffer limit
	freeShare = 5  // pulling goes on when a fifth of the buffer limit is free
	roomPoll  = 100 * time.Millisecond
)

// awaitRoom holds the consumer back while the node's buffers are over their limit; what is not pulled waits in JetStream.
// Logs that are not due yet are made ready, or a buffer full of patient logs would wait for the longest of them.
func (o *owner) awaitRoom(ctx context.Context) error {
	cost := func() uint64 {
		s := o.load()
		return s.Bytes + entryCost*s.Entries
	}
	if cost() < o.cfg.BufferLimit {
		return nil
	}
	o.outages.full.Failed(nil, "limit", o.cfg.BufferLimit)
	o.advance.setFull(true)
	defer o.advance.setFull(false)
	for {
		changed := o.ledger.changed()
		if cost() <= o.cfg.BufferLimit-o.cfg.BufferLimit/freeShare {
			break
		}
		o.sched.Expedite()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-time.After(roomPoll): // another shard of this node may have made room
		}
	}
	o.outages.full.Over()
	return nil
}
