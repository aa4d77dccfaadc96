package segment

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/cockroachdb/pebble/v2/sstable"

	"dormouse/internal/entry"
	"dormouse/internal/extent"
)

// Reader reads one segment. It keeps the segment's end in memory (64 KiB, or the index when that is larger), and no
// cache. It is for several goroutines at a time if its Source is.
type Reader struct {
	file file
	name string
}

// Open reads the end of the segment in one request, or two when its index is large, and checks that it is a segment.
// The error wraps ErrCorrupt when it is not, and what the Source returned when that failed. The Reader closes src; when
// Open fails, the caller still has to.
func Open(ctx context.Context, src Source) (*Reader, error) {
	r := &Reader{file: file{src: src, tailStart: src.Size()}, name: nameOf(src)}
	if err := r.readEnd(ctx); err != nil {
		return nil, r.explain(err)
	}
	return r, nil
}

func (r *Reader) readEnd(ctx context.Context) error {
	size := r.file.src.Size()
	if size < int64(len(footerEnd)) {
		return fmt.Errorf("it has only %d bytes", size)
	}
	if err := r.file.readTail(ctx, min(size, tailSize)); err != nil {
		return err
	}
	if string(r.file.tail[len(r.file.tail)-len(footerEnd):]) != footerEnd {
		return errors.New("it does not end like a segment")
	}
	return r.withTable(ctx, func(t *sstable.Reader, _ *window) error {
		props, err := guarded(func() (sstable.Properties, error) { return t.ReadPropertiesBlock(ctx, nil) })
		if err != nil {
			return err
		}
		if props.DataSize > uint64(size) {
			return fmt.Errorf("it says that it has %d bytes of entries, but it is %d bytes long", props.DataSize, size)
		}
		return r.file.readTail(ctx, size-int64(props.DataSize))
	})
}

// Scan calls fn for every entry of log with first <= sequence <= last, in ascending order, and returns the first error
// of fn as it is. It fetches only the blocks that hold such entries. The entries' memory belongs to fn.
func (r *Reader) Scan(ctx context.Context, log string, first, last uint64, fn func(entry.Entry) error) error {
	if first > last {
		return nil
	}
	lower, end := entry.AppendKey(nil, log, first), entry.AppendKey(nil, log, last)
	upper := entry.AppendLogEnd(nil, log)
	if last < math.MaxUint64 {
		upper = entry.AppendKey(nil, log, last+1)
	}
	var refused error
	err := r.scanRows(ctx, lower, end, upper, func(key, value []byte) error {
		e, err := decodeEntry(log, key, value)
		if err != nil {
			return err
		}
		if refused = fn(e); refused == nil && e.Seq == last {
			return errStop
		}
		return refused
	})
	if refused != nil {
		return refused
	}
	return r.explain(err)
}

// errStop ends a walk over rows that needs no more of them. Asking for one more row may cost a block: at the end of a
// block the library loads the next one to see that it is out of range.
var errStop = errors.New("enough rows")

func decodeEntry(log string, key, value []byte) (entry.Entry, error) {
	_, seq, err := entry.SplitKey(key)
	if err != nil {
		return entry.Entry{}, err
	}
	v, err := entry.DecodeValue(value)
	if err != nil {
		return entry.Entry{}, fmt.Errorf("entry %d of %s: %w", seq, log, err)
	}
	data := append(make([]byte, 0, len(v.Data)), v.Data...)
	return entry.Entry{Log: log, Seq: seq, Time: v.Time, Headers: v.Headers, Data: data}, nil
}

// Contents returns the extents of the segment, ascending by log, from its table of contents.
func (r *Reader) Contents(ctx context.Context) ([]extent.Extent, error) {
	var c contents
	err := r.scanRows(ctx, []byte{contentsPrefix}, sealKey, nil, c.add)
	if err == nil {
		err = c.check()
	}
	return c.extents, r.explain(err)
}

// ContentsOf reads the table of contents of an object that open gives.
func ContentsOf[S Source](ctx context.Context, s extent.Segment, open func(extent.Segment) (S, error)) ([]extent.Extent,
	error) {
	source, err := open(s)
	if err != nil {
		return nil, err
	}
	r, err := Open(ctx, source)
	if err != nil {
		return nil, errors.Join(err, source.Close())
	}
	contents, err := r.Contents(ctx)
	return contents, errors.Join(err, r.Close())
}

// Close closes the Source. No call may be running.
func (r *Reader) Close() error { return r.file.src.Close() }

// scanRows calls fn for the rows with lower <= key < upper; end is the last key that can be of interest, and a nil
// upper means the end of the segment. Key and value are only valid until fn returns.
func (r *Reader) scanRows(ctx context.Context, lower, end, upper []byte, fn func(key, value []byte) error) error {
	return r.withTable(ctx, func(t *sstable.Reader, w *window) error {
		size, err := guarded(func() (uint64, error) { return t.EstimateDiskUsage(lower, end, sstable.NoReadEnv) })
		if err != nil {
			return err
		}
		w.expect(int64(min(size, uint64(w.Size()))))
		return eachRow(ctx, t, lower, upper, fn)
	})
}

// withTable hands fn the sorted table, seen through a window of its own. Making one costs no request: what it needs is
// in the tail.
func (r *Reader) withTable(ctx context.Context, fn func(*sstable.Reader, *window) error) error {
	w := &window{file: &r.file}
	t, err := guarded(func() (*sstable.Reader, error) { return sstable.NewReader(ctx, w, sstable.ReaderOptions{}) })
	if err != nil {
		return err
	}
	err = fn(t, w)
	if cerr := guard(t.Close); err == nil {
		err = cerr
	}
	return err
}

// explain puts the object's name around err, and ErrCorrupt unless the Source or the context is to blame.
func (r *Reader) explain(err error) error {
	var source sourceError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &source):
		return fmt.Errorf("%s: %w", r.name, source.err)
	}
	return fmt.Errorf("%w: %s: %w", ErrCorrupt, r.name, err)
}
