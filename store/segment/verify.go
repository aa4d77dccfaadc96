package segment

import (
	"bytes"
	"context"
	"fmt"
	"sort"

	"github.com/cockroachdb/pebble/v2/sstable"

	"dormouse/internal/entry"
	"dormouse/internal/extent"
)

// Verify reads the whole segment, once and into memory. It checks the checksum of every block, the order of all keys,
// and that every entry decodes. The table of contents must be what the entries add up to: count, bytes, first and last
// sequence, earliest and latest time. Every extent of want must be in it, exactly; the segment may hold more, extents
// whose commit was refused. Verify returns what the segment holds, ascending by log. The error wraps ErrCorrupt and
// says object, log and difference, or is what the Source or ctx failed with.
func (r *Reader) Verify(ctx context.Context, want []extent.Extent) (holds []extent.Extent, err error) {
	whole := file{src: r.file.src, tail: r.file.tail, tailStart: r.file.tailStart}
	if err = whole.readWhole(ctx); err == nil {
		in := &Reader{file: whole, name: r.name}
		err = in.withTable(ctx, func(t *sstable.Reader, _ *window) error {
			holds, err = verifyTable(ctx, t, want)
			return err
		})
	}
	return holds, r.explain(err)
}

// readWhole grows the tail to the whole segment, in requests of a bounded size.
func (f *file) readWhole(ctx context.Context) error {
	whole := make([]byte, f.src.Size())
	copy(whole[f.tailStart:], f.tail)
	for off := int64(0); off < f.tailStart; off += maxReadAhead {
		if err := f.readSource(ctx, whole[off:min(off+maxReadAhead, f.tailStart)], off); err != nil {
			return err
		}
	}
	f.tail, f.tailStart = whole, 0
	return nil
}

func verifyTable(ctx context.Context, t *sstable.Reader, want []extent.Extent) ([]extent.Extent, error) {
	if err := guard(t.ValidateBlockChecksums); err != nil {
		return nil, err
	}
	var v verifier
	if err := eachRow(ctx, t, nil, nil, v.row); err != nil {
		return nil, err
	}
	if err := v.contents.check(); err != nil {
		return nil, err
	}
	return v.contents.extents, v.compare(want)
}

// verifier adds up the entries again, independently of the table of contents.
type verifier struct {
	last     []byte
	found    []extent.Extent
	contents contents
}

func (v *verifier) row(key, value []byte) error {
	if bytes.Compare(key, v.last) <= 0 {
		return fmt.Errorf("%w: %q after %q", ErrOrder, key, v.last)
	}
	v.last = append(v.last[:0], key...)
	if key[0] == contentsPrefix {
		return v.contents.add(key, value)
	}
	log, seq, err := entry.SplitKey(key)
	if err != nil {
		return err
	}
	decoded, err := entry.DecodeValue(value)
	if err != nil {
		return fmt.Errorf("entry %d of %s: %w", seq, log, err)
	}
	if n := len(v.found); n == 0 || v.found[n-1].Log != string(log) {
		v.found = append(v.found, extent.Extent{Log: string(log)})
	}
	v.found[len(v.found)-1].Add(seq, decoded.Time, decoded.Bytes)
	return nil
}

// compare holds the entries against the table of contents, and that against want.
func (v *verifier) compare(want []extent.Extent) error {
	listed := v.contents.extents
	for i := range min(len(listed), len(v.found)) {
		if listed[i] != v.found[i] {
			return fmt.Errorf("its entries are %s, its table of contents has %s", describe(v.found[i]), describe(listed[i]))
		}
	}
	if len(listed) != len(v.found) {
		return fmt.Errorf("it has entries of %d logs, its table of contents has %d", len(v.found), len(listed))
	}
	for _, w := range want {
		i := sort.Search(len(listed), func(i int) bool { return listed[i].Log >= w.Log })
		switch {
		case i == len(listed) || listed[i].Log != w.Log:
			return fmt.Errorf("it has nothing of %s, want %s", w.Log, describe(w))
		case listed[i] != w:
			return fmt.Errorf("it has %s, want %s", describe(listed[i]), describe(w))
		}
	}
	return nil
}

func describe(e extent.Extent) string {
	return fmt.Sprintf("%s from %d to %d: %d entries, %d bytes, times %d to %d",
		e.Log, e.First, e.Last, e.Count, e.Bytes, e.MinTime, e.MaxTime)
}
