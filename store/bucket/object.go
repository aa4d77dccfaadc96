package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"

	"dormouse/internal/extent"
	"dormouse/store/segment"
)

// Object is one object of a bucket, read by ranges; it holds nothing open between reads. It is a segment.Source and for
// any number of goroutines.
type Object struct {
	bucket *Bucket
	key    string
	size   int64
}

var _ segment.Source = (*Object)(nil)

// Object finds an object, with one request for its size. The error wraps ErrNotFound when it does not exist. Whoever
// knows the size spares that request with Segment.
func (b *Bucket) Object(ctx context.Context, key string) (*Object, error) {
	if err := checkKey(key); err != nil {
		return nil, err
	}
	attrs, err := b.blob.Attributes(ctx, key)
	if err != nil {
		return nil, b.explain("find", key, err)
	}
	return &Object{bucket: b, key: key, size: attrs.Size}, nil
}

// Segment is Object for an object whose size is known, as from the catalog, without a request: that it is missing shows
// at the first read, as ErrNotFound.
func (b *Bucket) Segment(s extent.Segment) (*Object, error) {
	if err := checkKey(s.Key); err != nil {
		return nil, err
	}
	return &Object{bucket: b, key: s.Key, size: int64(s.Size)}, nil
}

// Get reads a whole object whose size is known, in one request.
func (b *Bucket) Get(ctx context.Context, s extent.Segment) ([]byte, error) {
	o, err := b.Segment(s)
	if err != nil {
		return nil, err
	}
	data := make([]byte, s.Size)
	return data, o.ReadAt(ctx, data, 0)
}

// GetSmall reads a whole object of at most limit bytes, in one request. Of a larger one the error wraps ErrTooLarge.
func (b *Bucket) GetSmall(ctx context.Context, key string, limit int64) ([]byte, error) {
	if err := checkKey(key); err != nil {
		return nil, err
	}
	r, err := b.blob.NewReader(ctx, key, nil)
	if err != nil {
		return nil, b.explain("read", key, err)
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%w: it has %d bytes, and %d at most were expected", ErrTooLarge, r.Size(), limit)
	}
	return data, b.explain("read", key, err)
}

// Name returns the object's key and where it is, for errors.
func (o *Object) Name() string { return fmt.Sprintf("object %s in %s", o.key, o.bucket.url) }

// Size returns the object's size in bytes.
func (o *Object) Size() int64 { return o.size }

// ReadAt fills p from offset off with one ranged request, or fails. When the object is shorter than it should be, a
// server refuses the range, or the error wraps io.ErrUnexpectedEOF. A server that answers with more than it was asked
// for ignores ranges, which only shows in what follows: the error wraps ErrUnable.
func (o *Object) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := ctx.Err(); err != nil || len(p) == 0 {
		return err
	}
	r, err := o.bucket.blob.NewRangeReader(ctx, o.key, off, int64(len(p)), nil)
	if err != nil {
		return o.bucket.explain("read", o.key, err)
	}
	defer r.Close()
	if n, err := io.ReadFull(r, p); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return o.bucket.explain("read", o.key, fmt.Errorf("%d of %d bytes at offset %d: %w", n, len(p), off, err))
	}
	if n, _ := io.ReadFull(r, make([]byte, 1)); n > 0 { // an error after all that was wanted is none of ours
		return o.bucket.explain("read", o.key, fmt.Errorf("%w: asked for a part of the object (Range), "+
			"it sends another one: use a server, or a proxy before it, that does ranges", ErrUnable))
	}
	return nil
}

// Close does nothing: an Object holds nothing open.
func (o *Object) Close() error { return nil }
