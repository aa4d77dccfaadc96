package shard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"dormouse/internal/outage"
	"dormouse/internal/retry"
	"dormouse/internal/streamreader"
	"dormouse/scheduler"
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

// intake takes the source stream in: it reads batches, has put aside what is no entry, and makes the rest part of the
// ledger.
type intake struct {
	share     func() int // shards that this node owns; what it may hold in memory is divided by it
	from      *sourceStream
	ledger    *ledger
	sched     *scheduler.Scheduler
	rejects   *rejects
	losses    *losses
	limit     *bufferLimit
	advance   *Advance
	progress  *Progress
	collected uint64 // bytes taken in since logs were last made ready for the sake of a backlog
	metrics   *Metrics
	log       *slog.Logger

	reading, rejected *outage.Log
}

// run takes entries in until ctx is done or the local state cannot be written.
func (t *intake) run(ctx context.Context) (err error) {
	shut, err := t.rejects.open()
	if err != nil {
		return err
	}
	defer shut()
	pause := retry.Patient()
	for {
		before := t.ledger.applied()
		err := t.runOnce(ctx, before+1)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !errors.Is(err, errSource) {
			return err
		}
		if t.ledger.applied() > before {
			pause.Reset()
		}
		wait := pause.NextBackOff()
		t.reading.Failed(err)
		t.advance.Fails(Taking, err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// runOnce reads with one consumer from a sequence on.
func (t *intake) runOnce(ctx context.Context, from uint64) error {
	info, err := t.from.stream.Info(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", errSource, err)
	}
	if err := t.from.same(info.Created); err != nil {
		return err
	}
	t.from.sawEnd(info.State.LastSeq)
	if first := info.State.FirstSeq; first > from {
		if err := t.stepOver(ctx, first-1); err != nil {
			return err
		}
		from = first
	}
	share := t.share()
	consumer, err := streamreader.Open(ctx, t.from.js, t.from.source.Stream, "", from, streamreader.Limits{
		Messages: max(pullMessages/share, minPullMessages), Bytes: pullBytes / share, Heartbeat: sourceHeartbeat,
	})
	if err != nil {
		return fmt.Errorf("%w: %w", errSource, err)
	}
	defer consumer.Stop()
	t.reading.Over()
	t.notePending(consumer.Pending())
	defer t.sched.Release()
	for checked := false; ; {
		if err := t.limit.await(ctx); err != nil {
			return err
		}
		batch, err := t.readBatch(ctx, consumer)
		if err != nil {
			return err
		}
		if batch.came == 0 {
			if err := t.passOver(ctx, consumer.Passed()); err != nil {
				return err
			}
			continue
		}
		if !checked { // not before: a leader that was just elected may not know yet of all that was acked
			if err := t.from.check(ctx); err != nil {
				batch.close()
				return err
			}
			checked = true
		}
		if err := t.takeIn(ctx, batch); err != nil {
			return err
		}
	}
}

// collectBytes is how much of a backlog is taken in before its logs are made ready, see scheduler.Collect.
const collectBytes = 128 << 20

// takeIn applies a batch. Logs of a backlog wait for each other until it is caught up with or collectBytes came.
func (t *intake) takeIn(ctx context.Context, in *batch) error {
	t.advance.begins(Taking)
	behind := in.pending > 0
	if behind {
		t.sched.Collect()
	}
	if err := t.apply(ctx, in); err != nil {
		return err
	}
	t.notePending(in.pending)
	t.collected += uint64(in.bytes + entryCost*in.messages)
	if !behind || t.collected >= min(collectBytes, t.limit.bytes/2)/uint64(t.share()) {
		t.collected = 0
		t.sched.Release()
	}
	return nil
}

// followWait bounds the wait for messages that the server announced but may have dropped since. An open batch delays
// its entries, and keeps the database from closing.
const followWait = 250 * time.Millisecond

// firstWait is how long a batch waits for its first message. Then it is looked whether there is one to wait for.
const firstWait = 2 * time.Second

// readBatch waits for one message and takes those that follow at once: until the server has none pending, also not a
// moment later, or a bound is met. It returns an empty batch when none comes.
func (t *intake) readBatch(ctx context.Context, consumer source) (in *batch, err error) {
	in = t.newBatch()
	defer func() {
		if err != nil {
			in.close()
		}
	}()
	first, cancel := context.WithTimeout(ctx, firstWait)
	defer cancel()
	switch err := in.next(first, consumer); {
	case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
		return in, nil
	case err != nil || in.full():
		return in, err
	}
	if in.pending == 0 {
		select { // without a look at what comes meanwhile, or each message would wake this goroutine
		case <-ctx.Done():
			return in, ctx.Err()
		case <-time.After(gatherWait):
		}
	}
	rest, cancel := context.WithTimeout(ctx, followWait) // one for the batch: a timer for each message would cost more
	defer cancel()
	for !in.full() {
		if in.pending == 0 {
			if more, err := in.try(consumer); err != nil || !more {
				return in, err
			}
			continue
		}
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

// gatherWait is how long a batch that has all there is waits for what is being published. What comes one by one would
// be a Pebble batch each, at many times the cost of one more entry in a batch.
const gatherWait = 2 * time.Millisecond

// source is a streamreader.Consumer.
type source interface {
	Next(ctx context.Context) (streamreader.Message, error)
	Try() (streamreader.Message, bool, error)
}

// next takes the next message.
func (in *batch) next(ctx context.Context, consumer source) error {
	msg, err := consumer.Next(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", errSource, err)
	}
	return in.add(msg)
}

// try takes the next message, if it has come.
func (in *batch) try(consumer source) (more bool, err error) {
	msg, more, err := consumer.Try()
	if err != nil {
		return false, fmt.Errorf("%w: %w", errSource, err)
	}
	if more {
		err = in.add(msg)
	}
	return more, err
}

// add adds a message to the batch.
func (in *batch) add(msg streamreader.Message) error {
	if err := in.take(msg); err != nil {
		return fmt.Errorf("taking in a message of %s: %w", in.intake.from.source.Stream, err)
	}
	in.pending = msg.Pending
	in.intake.from.sawEnd(msg.Sequence + msg.Pending)
	return nil
}

// full reports whether the batch is to be applied as it is.
func (in *batch) full() bool { return in.messages >= batchMessages || in.bytes >= batchBytes }

// notePending notes that the stream has, or has not, something above what was taken in.
func (t *intake) notePending(pending uint64) {
	if pending > 0 {
		t.advance.begins(Taking)
		return
	}
	t.advance.Done(Taking)
}
