package segment

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2/sstable"

	"dormouse/internal/extent"
	"dormouse/internal/logid"
)

// guarded runs one step of the sorted-table library and makes a panic in it an error: behind its checksums the library
// takes blocks at their word and asserts the rest, and one bad object must not end the process. Functions of callers
// never run inside it: their panics are theirs.
func guarded[T any](step func() (T, error)) (v T, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("unreadable: %v", p)
		}
	}()
	return step()
}

// guard is guarded for a step without a result.
func guard(step func() error) error {
	_, err := guarded(func() (struct{}, error) { return struct{}{}, step() })
	return err
}

// row is one key and its value, valid until the next step of the iterator. The key is nil at the end.
type row struct{ key, value []byte }

// rows returns an iterator over the rows of t with lower <= key < upper.
func rows(ctx context.Context, t *sstable.Reader, lower, upper []byte) (sstable.Iterator, error) {
	return guarded(func() (sstable.Iterator, error) {
		return t.NewPointIter(ctx, sstable.IterOptions{
			Lower: lower, Upper: upper,
			FilterBlockSizeLimit: sstable.NeverUseFilterBlock,
			ReaderProvider:       sstable.MakeTrivialReaderProvider(t),
			BlobContext:          sstable.AssertNoBlobHandles,
		})
	})
}

// eachRow calls fn for the rows of t with lower <= key < upper (nil: no bound), in the order in which they are stored,
// until fn returns an error. After errStop that is not an error.
func eachRow(ctx context.Context, t *sstable.Reader, lower, upper []byte, fn func(key, value []byte) error) error {
	it, err := rows(ctx, t, lower, upper)
	if err != nil {
		return err
	}
	for first := true; err == nil; first = false {
		var r row
		r, err = guarded(func() (row, error) { return step(it, first, lower) })
		if err != nil || r.key == nil {
			break
		}
		err = fn(r.key, r.value)
	}
	if errors.Is(err, errStop) {
		err = nil
	}
	if cerr := guard(it.Close); err == nil {
		err = cerr
	}
	return err
}

// step moves it to the first row that is not below lower, or to the next row.
func step(it sstable.Iterator, first bool, lower []byte) (row, error) {
	move := it.Next
	if first {
		move = constant(it.SeekGE(lower, 0))
	}
	kv := move()
	if kv == nil {
		return row{}, it.Error()
	}
	value, _, err := kv.Value(nil)
	return row{kv.K.UserKey, value}, err
}

// constant lets step name neither of the library's internal types.
func constant[T any](v T) func() T { return func() T { return v } }

// contents collects the table of contents, row by row.
type contents struct {
	extents []extent.Extent
	sum     totals
	seal    *totals
}

func (c *contents) add(key, value []byte) error {
	if c.seal != nil {
		return fmt.Errorf("%w: %q after the seal", errRow, key)
	}
	if bytes.Equal(key, sealKey) {
		seal, err := decodeTotals(value)
		c.seal = &seal
		return err
	}
	log := string(key[1:])
	if n := len(c.extents); n > 0 && log <= c.extents[n-1].Log {
		return fmt.Errorf("%w: %q after %q", errRow, log, c.extents[n-1].Log)
	}
	if err := logid.Validate(log); err != nil {
		return fmt.Errorf("%w: %w", errRow, err)
	}
	e, err := decodeExtent(log, value)
	if err != nil {
		return fmt.Errorf("%w (of %q)", err, log)
	}
	c.extents = append(c.extents, e)
	c.sum.add(e)
	return nil
}

// check reports whether the table of contents is whole.
func (c *contents) check() error {
	switch {
	case c.seal == nil:
		return errors.New("its table of contents has no end")
	case *c.seal != c.sum:
		return fmt.Errorf("its table of contents adds up to %d logs, %d entries and %d bytes, its seal says %d, %d and %d",
			c.sum.logs, c.sum.entries, c.sum.bytes, c.seal.logs, c.seal.entries, c.seal.bytes)
	}
	return nil
}
