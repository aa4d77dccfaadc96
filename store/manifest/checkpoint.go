package manifest

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/extent"
	"dormouse/internal/shardid"
	"dormouse/internal/wire"
)

// Checkpoint says which object of the bucket has the tree as it was at one record. With a checkpoint in the manifest
// the records up to that one are needed no more.
type Checkpoint struct {
	UpTo   uint64         `cbor:"1,keyasint"` // sequence of the last record that is in it
	UpToID string         `cbor:"2,keyasint"` // that record's ID
	Object extent.Segment `cbor:"3,keyasint"` // of store/tree's format
}

// Mark names the last record that is in the checkpoint; nil's is the manifest's beginning.
func (c *Checkpoint) Mark() Mark {
	if c == nil {
		return Mark{}
	}
	return Mark{c.UpTo, c.UpToID}
}

// Checkpoint returns the shard's newest checkpoint, nil without one. It must be asked after the owner's claim was
// appended: before, an earlier owner may replace it.
func (m *Manifest) Checkpoint(ctx context.Context) (*Checkpoint, error) {
	r := m.record
	if r.Kind == TakeCheckpoint {
		return r.Checkpoint, nil
	}
	if r.CheckpointSeq == 0 {
		return nil, nil
	}
	at, err := m.get(ctx, r.CheckpointSeq)
	if err == nil && at.Kind != TakeCheckpoint {
		err = fmt.Errorf("%w: it is no checkpoint", ErrCorrupt)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the checkpoint of manifest record %d: %w", m.last, err)
	}
	return at.Checkpoint, nil
}

// Purge drops the records of shard that c has. The record of c must be in the manifest, and safe from a power failure,
// as with trimming a source stream. The shard's last record stays, being no older than that.
func Purge(ctx context.Context, js jetstream.JetStream, shard shardid.Shard, c *Checkpoint) error {
	stream, err := js.Stream(ctx, wire.ManifestStream)
	if err == nil {
		err = stream.Purge(ctx, jetstream.WithPurgeSubject(wire.ManifestSubject(shard)),
			jetstream.WithPurgeSequence(c.UpTo+1))
	}
	if err != nil {
		return fmt.Errorf("dropping manifest records that a checkpoint has: %w", err)
	}
	return nil
}
