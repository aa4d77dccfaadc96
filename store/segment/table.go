package segment

import (
	"context"
	"errors"

	"github.com/cockroachdb/pebble/v2/sstable"

	"dormouse/internal/extent"
)

// TableCursor walks over a part of a segment's table of contents, in order, with one block of it in memory. It is for
// one goroutine, which must close it.
type TableCursor struct {
	reader *Reader
	table  *sstable.Reader
	it     sstable.Iterator
	lower  []byte
	begun  bool
}

// Table opens a cursor over the logs that are not below from and, unless to is empty, below to. It makes no request
// yet. Most segments have their table of contents in what Open has read.
func (r *Reader) Table(ctx context.Context, from, to string) (*TableCursor, error) {
	c := &TableCursor{reader: r, lower: append([]byte{contentsPrefix}, from...)}
	upper := sealKey
	if to != "" {
		upper = append([]byte{contentsPrefix}, to...)
	}
	w := &window{file: &r.file}
	var err error
	c.table, err = guarded(func() (*sstable.Reader, error) { return sstable.NewReader(ctx, w, sstable.ReaderOptions{}) })
	if err != nil {
		return nil, r.explain(err)
	}
	size, err := guarded(func() (uint64, error) { return c.table.EstimateDiskUsage(c.lower, upper, sstable.NoReadEnv) })
	if err == nil {
		w.expect(int64(min(size, uint64(w.Size()))))
		c.it, err = rows(ctx, c.table, c.lower, upper)
	}
	if err != nil {
		return nil, r.explain(errors.Join(err, guard(c.table.Close)))
	}
	return c, nil
}

// Next returns the next extent; ok is false when there is none. The error wraps ErrCorrupt, or is what the Source or
// the context failed with.
func (c *TableCursor) Next() (e extent.Extent, ok bool, err error) {
	r, err := guarded(func() (row, error) { return step(c.it, !c.begun, c.lower) })
	c.begun = true
	if err != nil || r.key == nil {
		return e, false, c.reader.explain(err)
	}
	if e, err = decodeExtent(string(r.key[1:]), r.value); err != nil {
		return e, false, c.reader.explain(err)
	}
	return e, true, nil
}

// Close releases the cursor. The Reader stays open.
func (c *TableCursor) Close() error {
	return c.reader.explain(errors.Join(guard(c.it.Close), guard(c.table.Close)))
}
