package catalog

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"iter"
	"slices"
	"sync"

	"github.com/klauspost/compress/zstd"

	"dormouse/internal/entry"
	"dormouse/internal/extent"
	"dormouse/store/cache"
)

// A snapshot of a catalog is made of runs, each a list of parts, each an object of the bucket:
//
//	+--------------+------------------------------------------------------------------+
//	| version 0x01 | zstd frame, with a checksum, of rows ascending by key, each:     |
//	|              |   uvarint length | key | uvarint length | value                  |
//	+--------------+------------------------------------------------------------------+
//
// Keys and values are those of the database, without the prefix of the shard.
const partVersion = 1

// PartBytes is about how much a part holds, uncompressed. Whoever reads or merges runs has one part of each in memory.
const PartBytes = 4 << 20

// maxPart bounds what a damaged part can make the decoder allocate.
const maxPart = 2*PartBytes + 1<<20

// Row is one extent as the catalog keeps it.
type Row struct{ Key, Value []byte }

// RowOf returns the row of a committed extent.
func RowOf(e extent.Extent, s extent.Segment) Row {
	scratch := make([]byte, 0, len(e.Log)+len(s.Key)+rowBytes)
	key := entry.AppendKey(scratch, e.Log, e.First)
	row := appendRow(key[len(key):], e, s)
	return Row{key[:len(key):len(key)], row}
}

// Located returns what the row says.
func (r Row) Located() (extent.Located, error) { return decodeRow(r.Key, r.Value) }

// Sort orders rows as a run has them.
func Sort(rows []Row) {
	slices.SortFunc(rows, func(a, b Row) int { return bytes.Compare(a.Key, b.Key) })
}

// PutRow adds a row of a snapshot to batch.
func (c *Catalog) PutRow(batch *cache.Batch, r Row) error {
	return batch.Set(append(slices.Clip(c.prefix), r.Key...), r.Value, nil)
}

var partCodec = sync.OnceValues(func() (*zstd.Encoder, *zstd.Decoder) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithLowerEncoderMem(true))
	if err != nil {
		panic(err) // constant options
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxPart),
		zstd.WithDecoderLowmem(true))
	if err != nil {
		panic(err) // constant options
	}
	return enc, dec
})

// WriteParts cuts ascending rows into parts and calls put for each, in order. The part belongs to put.
func WriteParts(rows iter.Seq2[Row, error], put func(part []byte) error) error {
	enc, _ := partCodec()
	var plain []byte
	flush := func() error {
		if len(plain) == 0 {
			return nil
		}
		part := enc.EncodeAll(plain, []byte{partVersion})
		plain = plain[:0]
		return put(part)
	}
	for r, err := range rows {
		if err != nil {
			return err
		}
		plain = binary.AppendUvarint(plain, uint64(len(r.Key)))
		plain = append(plain, r.Key...)
		plain = binary.AppendUvarint(plain, uint64(len(r.Value)))
		plain = append(plain, r.Value...)
		if len(plain) >= PartBytes {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// Rows yields the rows of a part, which share one allocation. A part that cannot be read ends in an error that wraps
// ErrCorrupt.
func Rows(part []byte) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		fail := func(format string, args ...any) {
			yield(Row{}, fmt.Errorf("%w: part of a snapshot: %s", ErrCorrupt, fmt.Sprintf(format, args...)))
		}
		if len(part) == 0 || part[0] != partVersion {
			fail("unknown version")
			return
		}
		_, dec := partCodec()
		rest, err := dec.DecodeAll(part[1:], nil)
		if err != nil {
			fail("%v", err)
			return
		}
		var last []byte
		for len(rest) > 0 {
			var r Row
			for _, field := range []*[]byte{&r.Key, &r.Value} {
				n, size := binary.Uvarint(rest)
				if size <= 0 || n > uint64(len(rest)-size) {
					fail("it ends in the middle of a row")
					return
				}
				*field, rest = rest[size:size+int(n):size+int(n)], rest[size+int(n):]
			}
			if bytes.Compare(r.Key, last) <= 0 {
				fail("%q after %q", r.Key, last)
				return
			}
			if last = r.Key; !yield(r, nil) {
				return
			}
		}
	}
}

// Run yields the rows of a run's parts, one part in memory at a time.
func Run(ctx context.Context, parts []extent.Segment,
	get func(context.Context, extent.Segment) ([]byte, error)) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		for _, s := range parts {
			part, err := get(ctx, s)
			if err != nil {
				yield(Row{}, err)
				return
			}
			for r, err := range Rows(part) {
				if err != nil {
					err = fmt.Errorf("object %s: %w", s.Key, err)
				}
				if !yield(r, err) || err != nil {
					return
				}
			}
		}
	}
}

// Merge yields the rows of several runs as one. A key is in one of them only, since no two records commit one extent.
func Merge(runs []iter.Seq2[Row, error]) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		type cursor struct {
			row  Row
			next func() (Row, error, bool)
		}
		cursors := make([]*cursor, 0, len(runs))
		advance := func(c *cursor) (ok bool, err error) {
			c.row, err, ok = c.next()
			return ok, err
		}
		for _, run := range runs {
			next, stop := iter.Pull2(run)
			defer stop()
			c := &cursor{next: next}
			ok, err := advance(c)
			if err != nil {
				yield(Row{}, err)
				return
			}
			if ok {
				cursors = append(cursors, c)
			}
		}
		for len(cursors) > 0 { // few: a search through all of them is as fast as a heap
			least := 0
			for i, c := range cursors {
				if bytes.Compare(c.row.Key, cursors[least].row.Key) < 0 {
					least = i
				}
			}
			c := cursors[least]
			if !yield(c.row, nil) {
				return
			}
			ok, err := advance(c)
			if err != nil {
				yield(Row{}, err)
				return
			}
			if !ok {
				cursors = slices.Delete(cursors, least, least+1)
			}
		}
	}
}
