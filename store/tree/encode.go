package tree

import (
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"

	"dormouse/internal/codec"
	"dormouse/internal/extent"
)

// A tree's bytes, as a checkpoint has them:
//
//	+--------------+-------------------------------------------------------------------------------+
//	| version 0x02 | zstd frame, with a checksum, of CBOR: the cuts, an array, then run after run  |
//	+--------------+-------------------------------------------------------------------------------+
//
// Version 1 had no cuts.
const (
	treeVersion    = 2
	versionOfNoCut = 1
)

// maxDecoded bounds what a damaged tree can make the decoder allocate: some 200 bytes for each of a few million
// segments, each of which is 64 MiB as a rule.
const maxDecoded = 1 << 30

var zstdCodec = sync.OnceValues(func() (*zstd.Encoder, *zstd.Decoder) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithLowerEncoderMem(true))
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

// Encode returns the tree's bytes.
func (t Tree) Encode() ([]byte, error) {
	plain, err := codec.Encode(append(extent.Cuts{}, t.cuts...))
	if err != nil {
		return nil, fmt.Errorf("encoding a tree: %w", err)
	}
	for _, r := range t.runs {
		run, err := codec.Encode(r)
		if err != nil {
			return nil, fmt.Errorf("encoding a tree: %w", err)
		}
		plain = append(plain, run...)
	}
	enc, _ := zstdCodec()
	return enc.EncodeAll(plain, []byte{treeVersion}), nil
}

// Decode reads a tree. Its error wraps ErrInvalid.
func Decode(data []byte) (Tree, error) {
	if len(data) == 0 || data[0] != treeVersion && data[0] != versionOfNoCut {
		return Tree{}, fmt.Errorf("%w: unknown version", ErrInvalid)
	}
	_, dec := zstdCodec()
	plain, err := dec.DecodeAll(data[1:], nil)
	var t Tree
	if err == nil && data[0] == treeVersion {
		if plain, err = codec.DecodeFirst(plain, &t.cuts); len(t.cuts) == 0 {
			t.cuts = nil
		}
	}
	for err == nil && len(plain) > 0 {
		var r Run
		if plain, err = codec.DecodeFirst(plain, &r); err != nil {
			break
		}
		if err := r.validate(); err != nil { // before the next one: one of nothing is a byte, and some forty in memory
			return Tree{}, err
		}
		t.runs = append(t.runs, r)
	}
	if err != nil {
		return Tree{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return t, t.Validate()
}

// Validate reports which part of the invariant does not hold.
func (t Tree) Validate() error {
	var record uint64
	for _, c := range t.cuts {
		if err := c.Validate(); err != nil || c.Record <= record || len(t.cuts) > MaxCuts {
			return fmt.Errorf("%w: a cut by record %d after record %d, of %d: %w", ErrInvalid, c.Record, record, len(t.cuts),
				err)
		}
		record = c.Record
	}
	keys := make(map[string]bool)
	for i, r := range t.runs {
		if err := r.validate(); err != nil {
			return err
		}
		if i > 0 && (r.Newest < t.runs[i-1].Newest || r.Level > t.runs[i-1].Level) {
			return fmt.Errorf("%w: a run of level %d up to record %d after one of level %d up to record %d", ErrInvalid, r.Level,
				r.Newest, t.runs[i-1].Level, t.runs[i-1].Newest)
		}
		for _, s := range r.Segments {
			if keys[s.Object.Key] {
				return fmt.Errorf("%w: segment %s twice", ErrInvalid, s.Object.Key)
			}
			keys[s.Object.Key] = true
		}
	}
	return nil
}
