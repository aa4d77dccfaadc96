// Package manifest is the ordered record of what was committed to the archive: one JetStream subject for each shard,
// the source of truth from which the tree of live segments is made, and the fence that lets only the current owner
// commit.
//
// It never touches Pebble or the bucket. Open ingest/shard/committer.go for who appends.
package manifest

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"

	"dormouse/internal/codec"
	"dormouse/internal/extent"
	"dormouse/store/tree"
)

// Kind says what a record is for.
type Kind uint8

// The kinds.
const (
	Claim          Kind = iota + 1 // an owner begins a new epoch
	Commit                         // segments are part of the archive from here on
	Floor                          // the floor moved on while nothing was committed
	TakeCheckpoint                 // the tree that the earlier records make is an object of the bucket too
	Merge                          // segments take the place of others
	MakeCut                        // entries are deleted, wherever they show up
)

// Record is one manifest record.
//
// Invariants: Epoch never falls from one record of a shard to the next, and rises only in a Claim. Floor never falls
// but in a Claim whose owner found that the source stream had lost its end.
type Record struct {
	Kind  Kind   `cbor:"1,keyasint"`
	Epoch uint64 `cbor:"2,keyasint"`
	Owner string `cbor:"3,keyasint"` // node that appended it
	// unique: tells an append whose answer was lost from somebody else's
	ID   string    `cbor:"4,keyasint"`
	Time time.Time `cbor:"5,keyasint"` // by the clock of the owner's machine
	// by the clock of the stream's server; of a record that was read from it
	Stored     time.Time         `cbor:"-"`
	Floor      uint64            `cbor:"6,keyasint"`            // everything up to this source sequence is archived
	Segments   []extent.Summary  `cbor:"7,keyasint,omitempty"`  // of a Commit; none shares a log with another one
	Checkpoint *Checkpoint       `cbor:"8,keyasint,omitempty"`  // of a TakeCheckpoint
	Merge      *tree.Replacement `cbor:"15,keyasint,omitempty"` // of a Merge
	Cut        *extent.Cut       `cbor:"16,keyasint,omitempty"` // of a MakeCut
	Source     Source            `cbor:"14,keyasint"`           // what Floor and Segments speak of
	// Prev and PrevID are the sequence and the ID of the record that this one follows; 0 and "" for the first. End and
	// EndID are those of the message directly before it, when that is not Prev because it counts for nothing. Append sets
	// them. They tell a record that is missing, and one that was appended to a history which a power failure took back.
	Prev   uint64 `cbor:"10,keyasint,omitempty"`
	PrevID string `cbor:"11,keyasint,omitempty"`
	End    uint64 `cbor:"12,keyasint,omitempty"`
	EndID  string `cbor:"13,keyasint,omitempty"`
	// CheckpointSeq is the sequence of the newest TakeCheckpoint before this record; 0 is none. Append sets it.
	CheckpointSeq uint64 `cbor:"9,keyasint,omitempty"`
}

// Source says which source stream a record's sequences are of, and how far that was taken in. A later owner tells by it
// whether the stream is still the same one, with or without a disk of its own.
type Source struct {
	Created time.Time `cbor:"1,keyasint"` // when the stream was made
	Seq     uint64    `cbor:"2,keyasint"` // of the last entry that was taken in, by whichever owner came furthest
	Time    time.Time `cbor:"3,keyasint"` // that entry's
}

// before names the message directly before the record.
func (r Record) before() (seq uint64, id string) {
	if r.End > 0 {
		return r.End, r.EndID
	}
	return r.Prev, r.PrevID
}

// ChangesTree reports whether the record makes another tree: what is live, or what is cut.
func (r Record) ChangesTree() bool { return r.Kind == Commit || r.Kind == Merge || r.Kind == MakeCut }

// Apply returns the tree that t becomes by the record, which is at seq, and the segments that are live no more.
func (r Record) Apply(t tree.Tree, seq uint64) (next tree.Tree, replaced []extent.Summary, err error) {
	next = t
	switch {
	case len(r.Segments) > 0:
		next, err = t.Commit(seq, r.Segments)
	case r.Merge != nil:
		next, replaced, err = t.Replace(*r.Merge)
	case r.Cut != nil:
		next, err = t.Cut(seq, *r.Cut)
	}
	next = next.Settle(r.Floor, r.Time)
	if err != nil {
		err = fmt.Errorf("%w: at %d: %w", ErrCorrupt, seq, err)
	}
	return next, replaced, err
}

// ErrCorrupt is wrapped by the errors of records that cannot be read.
var ErrCorrupt = errors.New("corrupt manifest record")

// A record's bytes:
//
//	+--------------+-----------------------------------+
//	| version 0x02 | zstd frame of the record as CBOR  |
//	+--------------+-----------------------------------+
//
// Version 1 named every extent. Its records are refused: the extents of a snapshot do not tell the order in which their
// segments were committed, which a tree needs.
const recordVersion = 2

const oldVersion = 1

// ErrOldFormat is what records of an archive return that a version of Dormouse made whose manifest named extents.
var ErrOldFormat = errors.New("this archive was made by a Dormouse whose manifest names extents, which this one does " +
	"not read: go on with that version, or publish what it reads into a new system")

// maxDecoded bounds what a damaged record can make the decoder allocate.
const maxDecoded = 64 << 20

// windowBytes is how far back the encoder looks. It keeps a buffer about as large while the process lives.
const windowBytes = 512 << 10

var zstdCodec = sync.OnceValues(func() (*zstd.Encoder, *zstd.Decoder) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(windowBytes))
	if err != nil {
		panic(err) // constant options
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxDecoded),
		zstd.WithDecoderLowmem(true))
	if err != nil {
		panic(err) // constant options
	}
	return enc, dec
})

// Encode returns the record's bytes.
func (r Record) Encode() ([]byte, error) {
	plain, err := codec.Encode(r)
	if err != nil {
		return nil, fmt.Errorf("encoding a manifest record: %w", err)
	}
	enc, _ := zstdCodec()
	return enc.EncodeAll(plain, []byte{recordVersion}), nil
}

// Decode reads a record. Its error wraps ErrCorrupt, or is ErrOldFormat.
func Decode(data []byte) (Record, error) {
	var r Record
	switch {
	case len(data) > 0 && data[0] == oldVersion:
		return r, ErrOldFormat
	case len(data) == 0 || data[0] != recordVersion:
		return r, fmt.Errorf("%w: unknown version", ErrCorrupt)
	}
	_, dec := zstdCodec()
	plain, err := dec.DecodeAll(data[1:], nil)
	if err != nil {
		return r, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if err := codec.Decode(plain, &r); err != nil {
		return r, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if r.Kind < Claim || r.Kind > MakeCut || r.Epoch == 0 || (r.Kind == TakeCheckpoint) != (r.Checkpoint != nil) ||
		(r.Kind == Merge) != (r.Merge != nil) || (r.Kind == MakeCut) != (r.Cut != nil) ||
		r.Kind != Commit && len(r.Segments) > 0 {
		return r, fmt.Errorf("%w: kind %d in epoch %d", ErrCorrupt, r.Kind, r.Epoch)
	}
	if r.Cut != nil {
		if err := r.Cut.Validate(); err != nil {
			return r, fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
	}
	segments := r.Segments
	if r.Merge != nil {
		segments = r.Merge.Outputs
	}
	for _, s := range segments {
		if err := s.Validate(); err != nil {
			return r, fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
	}
	return r, nil
}
