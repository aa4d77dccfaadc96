package shard

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"dormouse/internal/header"
	"dormouse/internal/jsapi"
	"dormouse/internal/streamreader"
	"dormouse/scheduler"
)

// doubtsAtATime is how many messages are asked for together, each with up to max_payload and a third.
const doubtsAtATime = 8

// lookAgain fetches the header blocks of messages of which the client library may not have told all, and sorts them in:
// one whose block is not one of names and values is rejected, with the block. Usual messages are not among them.
func (in *batch) lookAgain(ctx context.Context) error {
	if len(in.doubts) == 0 {
		return nil
	}
	blocks := make([][]byte, len(in.doubts)) // nil: the message is gone
	group, asking := errgroup.WithContext(ctx)
	group.SetLimit(doubtsAtATime)
	for i, msg := range in.doubts {
		group.Go(func() (err error) {
			blocks[i], err = in.intake.blockOf(asking, msg)
			in.intake.advance.moves(Taking)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for i, msg := range in.doubts {
		if blocks[i] == nil {
			in.gaps = append(in.gaps, span{msg.Sequence, msg.Sequence})
			continue
		}
		headers, err := header.Parse(blocks[i])
		if err != nil {
			m := in.intake.message(msg)
			m.Block = blocks[i]
			in.reject(m, err)
			continue
		}
		msg.Header = headers
		if err := in.sort(msg); err != nil {
			return err
		}
	}
	in.doubts = nil
	slices.SortFunc(in.gaps, func(a, b span) int { return cmp.Compare(a.first, b.first) })
	slices.SortFunc(in.arrivals, func(a, b scheduler.Arrival) int { return cmp.Compare(a.Seq, b.Seq) })
	return nil
}

// blockOf returns the header block of a message that came, nil if the stream dropped the message since.
func (t *intake) blockOf(ctx context.Context, msg streamreader.Message) ([]byte, error) {
	stored, err := jsapi.Get(ctx, t.from.js, t.from.source.Stream, msg.Sequence)
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("%w: the headers of message %d: %w", errSource, msg.Sequence, err)
	case !stored.Time.Equal(msg.Time):
		return nil, fmt.Errorf("%w: message %d is another one by now", errSource, msg.Sequence)
	}
	return stored.Header, nil
}
