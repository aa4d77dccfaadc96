package reader

import (
	"context"
	"slices"

	"github.com/nats-io/nats.go/jetstream"
)

// keptDetails is how many deletes in the middle of a stream are looked at one by one.
const keptDetails = 4096

// Kept asks the stream's leader, see First.
func (t *streamTail) Kept(ctx context.Context, after, upTo uint64) (bool, error) {
	state, err := t.state(ctx, current)
	if err != nil || state.LastSeq <= after {
		return err == nil, err
	}
	if state.FirstSeq <= after+1 && 0 < state.NumDeleted && state.NumDeleted <= keptDetails {
		state, err = t.state(ctx, current, jetstream.WithDeletedDetails(true))
	}
	if err != nil || state.FirstSeq > after+1 {
		return false, err
	}
	among := func(seq uint64) bool { return after < seq && seq <= upTo }
	return len(state.Deleted) == state.NumDeleted && !slices.ContainsFunc(state.Deleted, among), nil
}
