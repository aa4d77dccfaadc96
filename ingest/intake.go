package ingest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/entry"
	"dormouse/internal/header"
	"dormouse/internal/jsapi"
	"dormouse/internal/logid"
	"dormouse/internal/ordered"
	"dormouse/internal/rejected"
	"dormouse/internal/topology"
	"dormouse/scheduler"
	"dormouse/store/cache"
	"dormouse/store/manifest"
)

// intake is one batch of messages on their way into the buffer.
type intake struct {
	owner    *owner
	batch    *cache.Batch // nil until the first message: waiting for one must not keep the database from resting
	arrivals []scheduler.Arrival
	doubts   []ordered.Message // whose headers may not be all that their publishers sent
	aside    []aside           // to be published elsewhere before the batch counts as applied: rejected, or published again

	came              int // messages, those included that were taken in before
	messages, bytes   int
	pending           uint64 // messages that the stream holds beyond this batch
	expected, applied uint64 // the sequence that should come next; the last that came
	appliedTime       time.Time
	skipped, reused   int
	rejected          reasons
	gaps              []span // sequences that did not come
	highest           uint64 // at or below it, an entry may be archived already
	key, value        []byte // scratch
}

func (o *owner) newIntake() *intake {
	expected, highest := o.ledger.expect()
	return &intake{owner: o, expected: expected, highest: highest}
}

func (in *intake) close() {
	if in.batch != nil {
		_ = in.batch.Close() // in memory; closing cannot lose anything
	}
}

// take sorts one message in: an entry for the buffer, one that is archived already, or one to be put aside.
func (in *intake) take(msg ordered.Message) error {
	seq, o := msg.Sequence, in.owner
	in.came++
	if seq < in.expected {
		return nil // the consumer began again below what is taken in
	}
	if in.batch == nil {
		in.batch = o.cfg.DB.NewBatch()
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
func (in *intake) sort(msg ordered.Message) error {
	seq, o := msg.Sequence, in.owner
	log, err := logid.FromSubject(o.source.Prefix, msg.Subject)
	if err != nil {
		in.reject(o.message(msg), err)
		return nil
	}
	if seq <= in.highest {
		switch known, err := o.whatIsArchived(log, seq, msg.Time); {
		case err != nil:
			return err
		case known == archivedHere:
			in.skipped++
			return nil
		case known == archivedAnother:
			again := o.republication(o.message(msg))
			if in.aside = append(in.aside, again...); again[0].refused != nil {
				in.reused++
			} else {
				in.rejected.add(refusedReason, 1)
			}
			return nil
		}
	}
	in.value = entry.AppendValue(in.value[:0], msg.Time, msg.Header, msg.Data)
	if in.key, err = o.ledger.buffer.Put(in.batch, in.key, log, seq, in.value); err != nil {
		return err
	}
	in.arrivals = append(in.arrivals, scheduler.Arrival{
		Log: log, Seq: seq, Bytes: uint64(entry.Size(msg.Header, msg.Data)), Time: msg.Time,
	})
	return nil
}

func (in *intake) reject(m rejected.Message, reason error) {
	in.rejected.add(reasonOf(reason), 1)
	in.aside = append(in.aside, in.owner.rejection(m, reason.Error())...)
	in.owner.outages.rejected.Failed(reason, "subject", m.Subject, "sequence", m.Seq)
}

// message is one of the source stream, to be put aside.
func (o *owner) message(msg ordered.Message) rejected.Message {
	return rejected.Message{Stream: o.source.Stream, Subject: msg.Subject, Seq: msg.Sequence, Time: msg.Time, Headers: msg.Header, Data: msg.Data}
}

// apply makes a batch part of the buffer: first what goes elsewhere, then entries and applied sequence in one Pebble
// batch, then the log states.
func (o *owner) apply(ctx context.Context, in *intake) error {
	defer in.close()
	if err := in.lookAgain(ctx); err != nil {
		return err
	}
	refused, err := o.publishAside(ctx, in.aside)
	if err != nil {
		return err
	}
	in.reused -= refused
	in.rejected.add(refusedReason, refused)
	skipped, err := o.reportLoss(ctx, in.gaps)
	if err != nil {
		return err
	}
	if in.messages == 0 {
		return nil
	}
	if err := o.ledger.takeIn(in.batch, in.applied, in.appliedTime, in.arrivals); err != nil {
		return err
	}
	o.tookIn(in.applied)
	o.metrics.ingested.Add(float64(len(in.arrivals)))
	in.rejected.add(skippedReason, int(skipped))
	o.metrics.reject(in.rejected)
	o.metrics.skipped.Add(float64(in.skipped))
	o.metrics.republished.Add(float64(in.reused))
	return nil
}

// passOver moves the applied sequence over an end of the stream that was deleted before it was taken in: no later entry tells.
// The consumer's server has nothing up to a sequence, and it has all that is stored in its order; the stream's leader has
// nothing either, and must have come as far. What may still come is above the sequence.
func (o *owner) passOver(ctx context.Context, passed uint64) error {
	applied := o.ledger.applied()
	if passed <= applied {
		return nil
	}
	info, err := o.stream.Info(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", errSource, err)
	}
	if err := o.sameStream(info.Created); err != nil || info.State.LastSeq < passed {
		return err
	}
	next, err := jsapi.GetNext(ctx, o.cfg.JS, o.source.Stream, ">", applied+1)
	switch {
	case err == nil && next.Sequence <= passed:
		return fmt.Errorf("%w: entry %d is there and did not come", errSource, next.Sequence)
	case err != nil && !errors.Is(err, jetstream.ErrMsgNotFound):
		return fmt.Errorf("%w: %w", errSource, err)
	}
	return o.skipGap(ctx, passed)
}

// skipGap moves the applied sequence over entries that the stream has dropped.
func (o *owner) skipGap(ctx context.Context, to uint64) error {
	skipped, err := o.reportLoss(ctx, []span{{o.ledger.applied() + 1, to}})
	if err != nil {
		return err
	}
	o.metrics.reject(reasons{skippedReason: int(skipped)})
	if err := o.ledger.stepOver(to); err != nil {
		return err
	}
	o.tookIn(to)
	return nil
}

// tookIn notes how far the stream was taken in.
func (o *owner) tookIn(to uint64) {
	o.advance.done(taking)
	o.progress.taken(to)
}

// reportLoss says what a gap in the sequences is: entries that the stream's own limits, or somebody's purge or delete,
// took away before they could be archived. But an owner that was stopped and goes on meets what its successor has archived and
// trimmed; it has to step down, and the error wraps manifest.ErrFenced. What an operator has put aside is no loss: skipped is how
// many those are.
func (o *owner) reportLoss(ctx context.Context, gaps []span) (skipped uint64, err error) {
	if len(gaps) == 0 {
		return 0, nil
	}
	_, epoch, err := manifest.Head(ctx, o.cfg.JS, o.source.Shard)
	if err == nil && epoch != o.epoch {
		return 0, fmt.Errorf("%w: shard %s, epoch %d", manifest.ErrFenced, o.source.Shard, epoch)
	}
	if err == nil {
		skipped, err = o.skippedIn(ctx, gaps)
	}
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errSource, err)
	}
	if skipped > 0 {
		o.log.Warn("stepping over what an operator has put aside in DORMOUSE_REJECTED", "messages", skipped, "from_sequence", gaps[0].first)
	}
	lost := -skipped
	for _, gap := range gaps {
		lost += gap.count()
	}
	if lost == 0 {
		return skipped, nil
	}
	o.metrics.lost.Add(float64(lost))
	o.log.Error("data loss: the source stream dropped entries before they were archived", "entries", lost,
		"from_sequence", gaps[0].first, "to_sequence", gaps[len(gaps)-1].last, "why", lossCause(o.stream.CachedInfo().Config))
	return skipped, nil
}

// lossCause says what can have taken entries out of a stream that is configured like that.
func lossCause(stream jetstream.StreamConfig) string {
	const somebody = "a purge or delete by somebody"
	drops := topology.Drops(stream)
	if len(drops) == 0 {
		return somebody + ": nothing in the stream's configuration drops entries"
	}
	return "its configuration (" + strings.Join(drops, ", ") + "), which should be changed, or " + somebody
}

// known says what the archive has at a sequence.
type known int

const (
	archivedNot     known = iota
	archivedHere          // this very entry
	archivedAnother       // an earlier entry of that sequence, or later ones of the log
)

// whatIsArchived looks a replayed entry up in the catalog. An entry at or below the log's last committed sequence is
// archived, unless the source stream lost its end after the archive had it: then the sequences are used a second time, and
// the entry's time, which is later than all of the extent's, tells the two apart.
func (o *owner) whatIsArchived(log string, seq uint64, at time.Time) (known, error) {
	last, ok, err := o.ledger.catalog.Last(log)
	if err != nil || !ok || last.Extent.Last < seq {
		return archivedNot, err
	}
	located, ok, err := o.ledger.catalog.Covering(log, seq)
	if err != nil {
		return archivedNot, err
	}
	e, nanos := located.Extent, at.UnixNano()
	if ok && seq <= e.Last && e.MinTime <= nanos && nanos <= e.MaxTime {
		return archivedHere, nil
	}
	return archivedAnother, nil
}
