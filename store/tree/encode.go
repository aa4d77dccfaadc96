package tree

import (
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"

	"dormouse/internal/codec"
)

// A tree's bytes, as a checkpoint has them:
//
//	+--------------+------------------------------------------------------------------------+
//	| version 0x01 | zstd frame, with a checksum, of the runs as CBOR, one behind the other |
//	+--------------+------------------------------------------------------------------------+
const treeVersion = 1

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
	var plain []byte
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
	if len(data) == 0 || data[0] != treeVersion {
		return Tree{}, fmt.Errorf("%w: unknown version", ErrInvalid)
	}
	_, dec := zstdCodec()
	plain, err := dec.DecodeAll(data[1:], nil)
	var t Tree
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
