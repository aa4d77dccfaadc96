package manifest

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/extent"
	"dormouse/internal/shardid"
	"dormouse/internal/wire"
)

// Snapshot says which objects of the bucket hold the catalog as it was at one record. With a snapshot in the manifest
// the records up to that one are needed no more.
//
// Invariant: the runs follow each other without a gap from the manifest's beginning to UpTo.
type Snapshot struct {
	UpTo    uint64 `cbor:"1,keyasint"` // sequence of the last record that is in it
	UpToID  string `cbor:"4,keyasint"` // that record's ID
	Highest uint64 `cbor:"2,keyasint"` // highest source sequence in its extents
	Runs    []Run  `cbor:"3,keyasint"` // ascending
}

// Run is the extents of a stretch of records, sorted, in one object or several that follow each other.
type Run struct {
	After   uint64           `cbor:"1,keyasint"` // the stretch begins above this sequence
	UpTo    uint64           `cbor:"2,keyasint"`
	Extents uint64           `cbor:"3,keyasint"`
	Entries uint64           `cbor:"4,keyasint"` // in those extents
	Parts   []extent.Segment `cbor:"5,keyasint"`
}

func (s *Snapshot) validate() error {
	after := uint64(0)
	for _, r := range s.Runs {
		if r.After != after || r.UpTo <= r.After {
			return fmt.Errorf("%w: a snapshot's run from above %d to %d follows %d", ErrCorrupt, r.After, r.UpTo, after)
		}
		after = r.UpTo
	}
	if after != s.UpTo {
		return fmt.Errorf("%w: a snapshot up to %d has runs up to %d", ErrCorrupt, s.UpTo, after)
	}
	return nil
}

// Snapshot returns the shard's newest snapshot, nil without one. It must be asked after the owner's claim was appended:
// before, an earlier owner may replace it.
func (m *Manifest) Snapshot(ctx context.Context) (*Snapshot, error) {
	r := m.record
	if r.Kind == TakeSnapshot {
		return r.Snapshot, nil
	}
	if r.SnapshotSeq == 0 {
		return nil, nil
	}
	at, err := m.get(ctx, r.SnapshotSeq)
	if err == nil && at.Kind != TakeSnapshot {
		err = fmt.Errorf("%w: it is no snapshot", ErrCorrupt)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the snapshot of manifest record %d: %w", m.last, err)
	}
	return at.Snapshot, nil
}

// Purge drops the records of shard that s has. The record of s must be in the manifest, and safe from a power failure,
// as with trimming a source stream. The shard's last record stays, being no older than that.
func Purge(ctx context.Context, js jetstream.JetStream, shard shardid.Shard, s *Snapshot) error {
	stream, err := js.Stream(ctx, wire.ManifestStream)
	if err == nil {
		err = stream.Purge(ctx, jetstream.WithPurgeSubject(wire.ManifestSubject(shard)),
			jetstream.WithPurgeSequence(s.UpTo+1))
	}
	if err != nil {
		return fmt.Errorf("dropping manifest records that a snapshot has: %w", err)
	}
	return nil
}
