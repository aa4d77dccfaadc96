package segment

import (
	"context"
	"fmt"
)

// Source is where the bytes of one segment are, for example an object in a bucket. ReadAt fills p or fails; it honours
// ctx and, if the Reader is used by several goroutines, must bear that too. A Source may also have a method
// Name() string, which errors then cite.
type Source interface {
	ReadAt(ctx context.Context, p []byte, off int64) error
	Size() int64
	Close() error
}

// Bytes returns a Source over data, which must not change while it is in use.
func Bytes(name string, data []byte) Source { return memory{name, data} }

type memory struct {
	name string
	data []byte
}

func (m memory) Name() string { return m.name }
func (m memory) Size() int64  { return int64(len(m.data)) }
func (m memory) Close() error { return nil }

func (m memory) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if off < 0 || off+int64(len(p)) > int64(len(m.data)) {
		return fmt.Errorf("%d bytes at offset %d are not in %s, which has %d", len(p), off, m.name, len(m.data))
	}
	copy(p, m.data[off:])
	return nil
}

func nameOf(src Source) string {
	if n, ok := src.(interface{ Name() string }); ok {
		return n.Name()
	}
	return "segment"
}

// sourceError marks what the Source failed with, so that an unreachable bucket is never reported as a corrupt segment.
type sourceError struct{ err error }

func (e sourceError) Error() string { return e.err.Error() }
func (e sourceError) Unwrap() error { return e.err }
