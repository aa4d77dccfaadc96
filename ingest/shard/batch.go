package shard

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/entry"
	"dormouse/internal/extent"
	"dormouse/internal/header"
	"dormouse/internal/jsapi"
	"dormouse/internal/logid"
	"dormouse/internal/rejected"
	"dormouse/internal/streamreader"
	"dormouse/scheduler"
	"dormouse/store/cache"
)

// batch is a number of messages on their way into the buffer.
type batch struct {
	intake   *intake
	batch    *cache.Batch // nil until the first message: waiting for one must not keep the database from resting
	arrivals []scheduler.Arrival
	doubts   []streamreader.Message // whose headers may not be all that their publishers sent
	// to be published elsewhere before the batch counts as applied: rejected, or published again
	outgoing []outgoing

	came              int // messages, those included that were taken in before
	messages, bytes   int
	pending           uint64 // messages that the stream holds beyond this batch
	expected, applied uint64 // the sequence that should come next; the last that came
	appliedTime       time.Time
	counts
	gaps    []span // sequences that did not come
	highest uint64 // at or below it, an entry may be archived already
	cuts    extent.Cuts
	cut     uint64 // manifest record of the newest of all cuts, when the batch was begun
	scratch
}

// counts are what a batch adds to the metrics.
type counts struct {
	skipped, reused int
	rejected        reasons
}

// scratch is memory for the key and the value of one entry.
type scratch struct{ key, value []byte }

func (t *intake) newBatch() *batch {
	expected, highest := t.ledger.expect()
	in := &batch{intake: t, expected: expected, highest: highest}
	in.cuts, in.cut = t.ledger.cutting(expected - 1)
	return in
}

func (in *batch) close() {
	if in.batch != nil {
		_ = in.batch.Close() // in memory; closing cannot lose anything
	}
}

// take sorts one message in: an entry for the buffer, one that is archived already, or one to be put aside.
func (in *batch) take(msg streamreader.Message) error {
	seq := msg.Sequence
	in.came++
	if seq < in.expected {
		return nil // the consumer began again below what is taken in
	}
	if in.batch == nil {
		in.batch = in.intake.ledger.disk.newBatch()
	}
	if seq > in.expected {
		in.gaps = append(in.gaps, span{in.expected, seq - 1})
	}
	in.expected, in.applied, in.appliedTime = seq+1, seq, msg.Time
	in.messages++
	in.bytes += msg.HeaderBytes + len(msg.Data)

	if !header.Fits(msg.HeaderBytes, msg.Header) {
		in.doubts = append(in.doubts, msg)
		return nil
	}
	return in.sort(msg)
}

// sort takes a message whose headers are known.
func (in *batch) sort(msg streamreader.Message) error {
	seq, t := msg.Sequence, in.intake
	log, err := logid.FromSubject(t.from.source.Prefix, msg.Subject)
	if err != nil {
		in.reject(t.message(msg), err)
		return nil
	}
	if len(in.cuts) > 0 && in.cuts.Have(log, seq, msg.Time.UnixNano()) {
		return nil
	}
	if seq <= in.highest {
		switch is, err := t.ledger.disk.whatIsArchived(log, seq, msg.Time); {
		case err != nil:
			return err
		case is == archivedHere:
			in.skipped++
			return nil
		case is == archivedAnother:
			again := t.rejects.republication(t.message(msg))
			if in.outgoing = append(in.outgoing, again...); again[0].refused != nil {
				in.reused++
			} else {
				in.rejected.add(refusedReason, 1)
			}
			return nil
		}
	}
	in.value = entry.AppendValue(in.value[:0], msg.Time, msg.Header, msg.Data)
	if in.key, err = t.ledger.disk.buffer.Put(in.batch, in.key, log, seq, in.value); err != nil {
		return err
	}
	in.arrivals = append(in.arrivals, scheduler.Arrival{
		Log: log, Seq: seq, Bytes: uint64(entry.Size(msg.Header, msg.Data)), Time: msg.Time,
	})
	return nil
}

func (in *batch) reject(m rejected.Message, reason error) {
	in.rejected.add(reasonOf(reason), 1)
	in.outgoing = append(in.outgoing, in.intake.rejects.rejection(m, reason.Error())...)
	in.intake.rejected.Failed(reason, "subject", m.Subject, "sequence", m.Seq)
}

// message is one of the source stream, to be put aside.
func (t *intake) message(msg streamreader.Message) rejected.Message {
	return rejected.Message{Stream: t.from.source.Stream, Subject: msg.Subject, Seq: msg.Sequence, Time: msg.Time,
		Headers: msg.Header, Data: msg.Data}
}

// apply makes a batch part of the buffer: first what goes elsewhere, then entries and applied sequence in one Pebble
// batch, then the log states.
func (t *intake) apply(ctx context.Context, in *batch) error {
	defer in.close()
	if err := in.lookAgain(ctx); err != nil {
		return err
	}
	refused, err := t.rejects.publish(ctx, in.outgoing)
	if err != nil {
		return err
	}
	in.reused -= refused
	in.rejected.add(refusedReason, refused)
	skipped, err := t.losses.report(ctx, in.gaps)
	if err != nil {
		return err
	}
	if in.messages == 0 {
		return nil
	}
	if err := t.ledger.takeIn(in.batch, in.applied, in.appliedTime, in.arrivals, in.cut); err != nil {
		return err
	}
	t.tookIn(in.applied)
	t.metrics.ingested.Add(float64(len(in.arrivals)))
	in.rejected.add(skippedReason, int(skipped))
	t.metrics.reject(in.rejected)
	t.metrics.skipped.Add(float64(in.skipped))
	t.metrics.republished.Add(float64(in.reused))
	return nil
}

// passOver moves the applied sequence over an end of the stream that was deleted before it was taken in: no later entry
// tells. The consumer's server has nothing up to a sequence, and it has all that is stored in its order; the stream's
// leader has nothing either, and must have come as far. What may still come is above the sequence.
func (t *intake) passOver(ctx context.Context, passed uint64) error {
	applied := t.ledger.applied()
	if passed <= applied {
		return nil
	}
	info, err := t.from.stream.Info(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", errSource, err)
	}
	if err := t.from.same(info.Created); err != nil || info.State.LastSeq < passed {
		return err
	}
	next, err := jsapi.GetNext(ctx, t.from.js, t.from.source.Stream, ">", applied+1)
	switch {
	case err == nil && next.Sequence <= passed:
		return fmt.Errorf("%w: entry %d is there and did not come", errSource, next.Sequence)
	case err != nil && !errors.Is(err, jetstream.ErrMsgNotFound):
		return fmt.Errorf("%w: %w", errSource, err)
	}
	return t.stepOver(ctx, passed)
}

// stepOver moves the applied sequence over entries that the stream has dropped.
func (t *intake) stepOver(ctx context.Context, to uint64) error {
	skipped, err := t.losses.report(ctx, []span{{t.ledger.applied() + 1, to}})
	if err != nil {
		return err
	}
	t.metrics.reject(reasons{skippedReason: int(skipped)})
	if err := t.ledger.stepOver(to); err != nil {
		return err
	}
	t.tookIn(to)
	return nil
}

// tookIn notes how far the stream was taken in.
func (t *intake) tookIn(to uint64) {
	t.advance.Done(Taking)
	t.progress.replayedUpTo(to)
}
