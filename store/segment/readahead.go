package segment

import (
	"cmp"
	"context"
	"fmt"

	"github.com/cockroachdb/pebble/v2/objstorage"
)

const (
	// tailSize is how much of a segment's end the first read fetches: footer, properties, index and table of contents
	// of a usual segment.
	tailSize = 64 << 10
	// minReadAhead and maxReadAhead bound one read of data blocks: it starts small, as a caller may stop early, and
	// doubles.
	minReadAhead = 128 << 10
	maxReadAhead = 1 << 20
)

// file is a Source of which the end is kept in memory. It is immutable once open.
type file struct {
	src       Source
	tail      []byte
	tailStart int64
}

// readTail fetches the segment's last n bytes, or those that are not in the tail yet.
func (f *file) readTail(ctx context.Context, n int64) error {
	start := f.src.Size() - n
	if start >= f.tailStart {
		return nil
	}
	tail := make([]byte, n)
	missing := f.tailStart - start
	if err := f.readSource(ctx, tail[:missing], start); err != nil {
		return err
	}
	copy(tail[missing:], f.tail)
	f.tail, f.tailStart = tail, start
	return nil
}

func (f *file) readSource(ctx context.Context, p []byte, off int64) error {
	if err := f.src.ReadAt(ctx, p, off); err != nil {
		return sourceError{fmt.Errorf("read %d bytes at offset %d: %w", len(p), off, err)}
	}
	return nil
}

// window is how the sorted-table library sees a file while it reads one range of keys: data blocks are fetched
// together, up to the range's last one and never past it. Fetching ahead by a fixed amount was rejected: in object
// storage it costs requests when it is too small and bytes when it is too large, and the index tells how much is
// needed.
//
// It is both Readable and ReadHandle, for one goroutine.
type window struct {
	*file
	blocks  int64 // bytes from the range's first data block to the end of its last one; 0 means no fetching ahead
	most    int64 // of one read; 0 means maxReadAhead
	until   int64 // where the last one ends; known with the first data block, 0 before
	buf     []byte
	bufAt   int64
	nextLen int64
}

var (
	_ objstorage.Readable   = (*window)(nil)
	_ objstorage.ReadHandle = (*window)(nil)
)

// expect says that what is read next are data blocks of n bytes together.
func (w *window) expect(n int64) { w.blocks, w.until = n, 0 }

// ReadAt implements objstorage.Readable and ReadHandle.
func (w *window) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := ctx.Err(); err != nil {
		return sourceError{err}
	}
	n := int64(len(p))
	switch {
	case off < 0 || n > w.src.Size()-off:
		return fmt.Errorf("a block of %d bytes at offset %d reaches past the end", n, off)
	case off >= w.tailStart:
		copy(p, w.tail[off-w.tailStart:])
		return nil
	case off < w.bufAt || off+n > w.bufAt+int64(len(w.buf)):
		if err := w.fill(ctx, n, off); err != nil {
			return err
		}
	}
	copy(p, w.buf[off-w.bufAt:])
	return nil
}

// fill puts n or more bytes at offset off, which is before the tail, into buf.
func (w *window) fill(ctx context.Context, n, off int64) error {
	if w.until == 0 {
		w.until, w.nextLen = off+w.blocks, minReadAhead
	}
	most := cmp.Or(w.most, maxReadAhead)
	n = max(n, min(w.nextLen, most, w.until-off, w.src.Size()-off))
	w.nextLen = min(2*w.nextLen, most)
	if int64(cap(w.buf)) < n {
		w.buf = make([]byte, n)
	}
	w.buf, w.bufAt = w.buf[:n], off
	fromSource := min(n, max(0, w.tailStart-off))
	if err := w.readSource(ctx, w.buf[:fromSource], off); err != nil {
		w.buf = w.buf[:0]
		return err
	}
	if fromSource < n {
		copy(w.buf[fromSource:], w.tail)
	}
	return nil
}

// Size implements objstorage.Readable.
func (w *window) Size() int64 { return w.src.Size() }

// Close implements objstorage.Readable and ReadHandle; the Reader closes the Source.
func (w *window) Close() error { return nil }

// NewReadHandle implements objstorage.Readable.
func (w *window) NewReadHandle(objstorage.ReadBeforeSize) objstorage.ReadHandle { return w }

// SetupForCompaction implements objstorage.ReadHandle.
func (w *window) SetupForCompaction() {}

// RecordCacheHit implements objstorage.ReadHandle; there is no cache.
func (w *window) RecordCacheHit(context.Context, int64, int64) {}
