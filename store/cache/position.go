package cache

import (
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"dormouse/internal/codec"
	"dormouse/internal/shardid"
)

// Position is how far the local state of one shard has come. It is written in the same batch as what it speaks of.
type Position struct {
	Source   time.Time `cbor:"1,keyasint"` // when the source stream was created: another stream is another story
	Manifest time.Time `cbor:"2,keyasint"` // when the manifest stream was created

	Applied uint64 `cbor:"3,keyasint"` // last source sequence that was taken in
	// that entry's time, which tells whether the stream still has the same entry there
	AppliedTime time.Time `cbor:"4,keyasint"`
	ManifestSeq uint64    `cbor:"5,keyasint"` // last manifest record that was applied
	ManifestID  string    `cbor:"8,keyasint"` // its ID, which tells whether the manifest still has the same record there
	Floor       uint64    `cbor:"7,keyasint"` // of the last manifest record; Floor <= Applied once an owner is active
}

// Position returns the shard's position; the zero Position when the database knows nothing of the shard.
func (db *DB) Position(shard shardid.Shard) (Position, error) {
	var p Position
	value, err := db.get(Prefix(spaceMeta, shard))
	if errors.Is(err, pebble.ErrNotFound) {
		return p, nil
	}
	if err != nil {
		return p, fmt.Errorf("reading the position of shard %s: %w", shard, err)
	}
	return p, codec.Decode(value, &p)
}

// SetPosition adds the shard's new position to batch.
func SetPosition(batch *Batch, shard shardid.Shard, p Position) error {
	value, err := codec.Encode(p)
	if err != nil {
		return fmt.Errorf("encoding the position of shard %s: %w", shard, err)
	}
	return batch.Set(Prefix(spaceMeta, shard), value, nil)
}

// checkpointKey is where a shard's newest checkpoint is kept, beside its position.
func checkpointKey(shard shardid.Shard) []byte { return append(Prefix(spaceMeta, shard), 'c') }

// keptCheckpoint is an object of the bucket that a restart needs.
type keptCheckpoint struct {
	Key  string `cbor:"1,keyasint"`
	Data []byte `cbor:"2,keyasint"`
}

// Checkpoint returns the shard's checkpoint of that key in the bucket, nil when it is not here. With it a process that
// comes back needs no bucket.
func (db *DB) Checkpoint(shard shardid.Shard, key string) ([]byte, error) {
	value, err := db.get(checkpointKey(shard))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	var kept keptCheckpoint
	if err == nil {
		err = codec.Decode(value, &kept)
	}
	if err != nil || kept.Key != key {
		return nil, err
	}
	return kept.Data, nil
}

// KeepCheckpoint adds the shard's newest checkpoint to batch, in the place of the one before.
func KeepCheckpoint(batch *Batch, shard shardid.Shard, key string, data []byte) error {
	value, err := codec.Encode(keptCheckpoint{key, data})
	if err != nil {
		return fmt.Errorf("encoding the checkpoint of shard %s: %w", shard, err)
	}
	return batch.Set(checkpointKey(shard), value, nil)
}

// Forget adds the deletion of all that is kept of a shard in the given spaces (all of them when none is given, with
// its position).
func Forget(batch *Batch, shard shardid.Shard, spaces ...byte) error {
	if len(spaces) == 0 {
		spaces = []byte{SpaceBuffer, SpaceRecent, spaceMeta}
	}
	for _, space := range spaces {
		if err := batch.DeleteRange(Prefix(space, shard), PrefixEnd(space, shard), nil); err != nil {
			return err
		}
	}
	return nil
}
