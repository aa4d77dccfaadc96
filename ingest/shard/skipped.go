package shard

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/jsapi"
	"dormouse/internal/rejected"
	"dormouse/internal/wire"
)

// span is a run of sequences that the stream does not have any more; both bounds are in it.
type span struct{ first, last uint64 }

func (s span) count() uint64 { return s.last - s.first + 1 }

// skippedIn returns how many of the sequences that are missing an operator has put aside: dormouse provision --skip
// stores a message in DORMOUSE_REJECTED before it deletes it.
func (r *rejects) skippedIn(ctx context.Context, gaps []span) (n uint64, err error) {
	skipped, err := r.skipped(ctx)
	for seq := range skipped {
		for _, gap := range gaps {
			if gap.first <= seq && seq <= gap.last {
				n++
			}
		}
	}
	return n, err
}

// skipped returns the sequences of the stream that an operator has put aside. There are few, and it is asked rarely.
func (r *rejects) skipped(ctx context.Context) (map[uint64]bool, error) {
	created := r.from.stream.CachedInfo().Created
	skipped := make(map[uint64]bool)
	for from := uint64(1); ; {
		msg, err := jsapi.GetNext(ctx, r.js, wire.RejectedStream, wire.SkippedSubject(r.from.source.Shard), from)
		switch {
		case errors.Is(err, jetstream.ErrMsgNotFound) || errors.Is(err, jetstream.ErrStreamNotFound):
			return skipped, nil
		case err != nil:
			return nil, fmt.Errorf("looking for messages that an operator has put aside: %w", err)
		}
		from = msg.Sequence + 1
		seq, at, err := rejected.Origin(msg.Header)
		if err != nil {
			r.log.Warn("a message in DORMOUSE_REJECTED does not say where it was", "sequence", msg.Sequence, "error", err)
			continue
		}
		if !at.Before(created.Truncate(time.Second)) { // else it was of another stream of that name
			skipped[seq] = true
		}
	}
}

// withoutSkipped leaves out what an operator has put aside and deleted while it waited. dropped is how many of those
// were to be published again.
func (r *rejects) withoutSkipped(ctx context.Context, left []outgoing) (rest []outgoing, dropped int) {
	skipped, err := r.skipped(ctx)
	if err != nil || len(skipped) == 0 {
		return left, 0
	}
	for _, one := range left {
		if skipped[one.from.Seq] {
			if _, err := jsapi.Get(ctx, r.js, r.from.source.Stream, one.from.Seq); errors.Is(err, jetstream.ErrMsgNotFound) {
				if one.refused != nil {
					dropped++
				}
				continue
			}
		}
		rest = append(rest, one)
	}
	return rest, dropped
}
