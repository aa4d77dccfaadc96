package segment

import (
	"bytes"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2/sstable"

	"dormouse/internal/entry"
)

// Cursor walks over all entries of a segment, in order. It reads ahead in requests of a bounded size, and has no more
// than one such read and one block in memory. It is for one goroutine, which must close it.
type Cursor struct {
	reader  *Reader
	table   *sstable.Reader
	it      sstable.Iterator
	refused []string // logs that are passed over, ascending
	begun   bool
	row     row
}

// Cursor opens a cursor that stands before the first entry. Entries of the refused logs, which must be ascending, are
// passed over. A read has at most readAhead bytes; 0 is 1 MiB.
func (r *Reader) Cursor(ctx context.Context, readAhead int64, refused []string) (*Cursor, error) {
	c := &Cursor{reader: r, refused: refused}
	w := &window{file: &r.file, most: readAhead}
	w.expect(w.Size())
	var err error
	c.table, err = guarded(func() (*sstable.Reader, error) { return sstable.NewReader(ctx, w, sstable.ReaderOptions{}) })
	if err != nil {
		return nil, r.explain(err)
	}
	if c.it, err = rows(ctx, c.table, nil, []byte{contentsPrefix}); err != nil {
		return nil, r.explain(errors.Join(err, guard(c.table.Close)))
	}
	return c, nil
}

// Next moves to the next entry, and reports whether there is one. The error wraps ErrCorrupt, or is what the Source or
// ctx failed with.
func (c *Cursor) Next() (bool, error) {
	for {
		var err error
		c.row, err = guarded(func() (row, error) { return step(c.it, !c.begun, nil) })
		c.begun = true
		if err != nil || c.row.key == nil {
			return false, c.reader.explain(err)
		}
		if len(c.refused) == 0 {
			return true, nil
		}
		log, _, err := entry.SplitKey(c.row.key)
		if err != nil {
			return false, c.reader.explain(err)
		}
		if _, refused := slices.BinarySearch(c.refused, string(log)); !refused {
			return true, nil
		}
	}
}

// Key returns the key of the entry, see internal/entry; it is valid until the next move.
func (c *Cursor) Key() []byte { return c.row.key }

// Value returns the value of the entry; it is valid until the next move.
func (c *Cursor) Value() []byte { return c.row.value }

// Close releases the cursor. The Reader stays open.
func (c *Cursor) Close() error {
	return c.reader.explain(errors.Join(guard(c.it.Close), guard(c.table.Close)))
}

// ErrDuplicate is wrapped when two segments that are merged have an entry of the same log and sequence.
var ErrDuplicate = errors.New("an entry is in two segments")

// Merged walks over the entries of several cursors, which it does not close, in the order of their keys. The zero
// Merged has none.
type Merged struct {
	cursors cursors // the first of which stands on the entry that Next has told of
	begun   bool
	last    []byte // key of the entry before
}

// Merge returns a Merged that stands before the first entry.
func Merge(of []*Cursor) *Merged { return &Merged{cursors: slices.Clone(of)} }

// Next moves to the next entry of all, and reports whether there is one.
func (m *Merged) Next() (bool, error) {
	if !m.begun {
		m.begun = true
		all := m.cursors
		m.cursors = nil
		for _, c := range all {
			more, err := c.Next()
			if err != nil {
				return false, err
			}
			if more {
				m.cursors = append(m.cursors, c)
			}
		}
		heap.Init(&m.cursors)
	} else if len(m.cursors) > 0 {
		m.last = append(m.last[:0], m.cursors[0].Key()...)
		before := m.cursors[0].reader.name
		more, err := m.cursors[0].Next()
		if err != nil {
			return false, err
		}
		if more {
			heap.Fix(&m.cursors, 0)
		} else {
			heap.Pop(&m.cursors)
		}
		if len(m.cursors) > 0 && bytes.Compare(m.cursors[0].Key(), m.last) <= 0 {
			return false, fmt.Errorf("%w: %q in %s, after it in %s", ErrDuplicate, m.cursors[0].Key(),
				m.cursors[0].reader.name, before)
		}
	}
	return len(m.cursors) > 0, nil
}

// Key returns the key of the entry; it is valid until the next move.
func (m *Merged) Key() []byte { return m.cursors[0].Key() }

// Value returns the value of the entry; it is valid until the next move.
func (m *Merged) Value() []byte { return m.cursors[0].Value() }

// Segment returns the name of the segment that the entry is in.
func (m *Merged) Segment() string { return m.cursors[0].reader.name }

// cursors is a heap, the least key first.
type cursors []*Cursor

func (c cursors) Len() int           { return len(c) }
func (c cursors) Less(i, j int) bool { return bytes.Compare(c[i].Key(), c[j].Key()) < 0 }
func (c cursors) Swap(i, j int)      { c[i], c[j] = c[j], c[i] }

// Push implements heap.Interface; nothing is pushed.
func (c *cursors) Push(x any) { *c = append(*c, x.(*Cursor)) }

// Pop implements heap.Interface.
func (c *cursors) Pop() any {
	last := (*c)[len(*c)-1]
	*c = (*c)[:len(*c)-1]
	return last
}
