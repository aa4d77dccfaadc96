package manifest

import (
	"context"
	"errors"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/extent"
)

// Newest returns the object that the newest commit, merge or checkpoint of the shard names, false when nothing was ever
// committed. The system's bucket has it: by this an archive is known whose bucket says nothing of itself.
func (m *Manifest) Newest(ctx context.Context) (extent.Segment, bool, error) {
	for r, seq := m.record, m.last; seq > 0; {
		if s, ok := r.object(); ok {
			return s, true, nil
		}
		var err error
		if seq = r.Prev; seq == 0 {
			break
		}
		r, err = m.get(ctx, seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			break // a checkpoint has it, which was passed on the way
		}
		if err != nil {
			return extent.Segment{}, false, err
		}
	}
	return extent.Segment{}, false, nil
}

// object returns an object of the bucket that the record names, the newest of them.
func (r Record) object() (extent.Segment, bool) {
	segments := r.Segments
	if r.Merge != nil {
		segments = r.Merge.Outputs
	}
	if n := len(segments); n > 0 {
		return segments[n-1].Object, true
	}
	if r.Checkpoint != nil {
		return r.Checkpoint.Object, true
	}
	return extent.Segment{}, false
}
