package manifest

import (
	"context"
	"errors"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/extent"
)

// Newest returns the object that the newest commit or snapshot of the shard names, false when nothing was ever
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
			break // a snapshot has it, which was passed on the way and names nothing
		}
		if err != nil {
			return extent.Segment{}, false, err
		}
	}
	return extent.Segment{}, false, nil
}

// object returns an object of the bucket that the record names, the newest of them.
func (r Record) object() (extent.Segment, bool) {
	if n := len(r.Segments); n > 0 {
		return r.Segments[n-1].Segment, true
	}
	if r.Snapshot != nil {
		for i := len(r.Snapshot.Runs) - 1; i >= 0; i-- {
			if parts := r.Snapshot.Runs[i].Parts; len(parts) > 0 {
				return parts[len(parts)-1], true
			}
		}
	}
	return extent.Segment{}, false
}
