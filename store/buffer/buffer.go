// Package buffer keeps the entries of active logs until a committed segment holds them, in Pebble, keyed by
// (LogID, sequence).
//
// It decides nothing: ingest says what goes in, what is drained and what may go. Open ingest/commit.go for when entries
// leave, and internal/entry for their bytes.
package buffer

import (
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"dormouse/internal/entry"
	"dormouse/internal/wire"
	"dormouse/store"
)

// Buffer is one shard's part of the database. It is safe for concurrent use; who may write is ingest's to order.
type Buffer struct {
	db         *store.DB
	prefix     []byte
	upperBound []byte
}

// New returns the buffer of shard.
func New(db *store.DB, shard wire.Shard) *Buffer {
	return &Buffer{
		db:         db,
		prefix:     store.Prefix(store.SpaceBuffer, shard),
		upperBound: store.PrefixEnd(store.SpaceBuffer, shard),
	}
}

func (b *Buffer) key(dst []byte, log string, seq uint64) []byte {
	return entry.AppendKey(append(dst, b.prefix...), log, seq)
}

// Put adds an entry to batch. Scratch is memory to build the key in; it is returned for the next call.
func (b *Buffer) Put(batch *pebble.Batch, scratch []byte, log string, seq uint64, value []byte) ([]byte, error) {
	scratch = b.key(scratch[:0], log, seq)
	return scratch, batch.Set(scratch, value, nil)
}

// Delete adds to batch the removal of a log's entries from first to last, of which there are count. Up to two are
// deleted as keys, since range tombstones cost every later read of the region until they are compacted away.
func (b *Buffer) Delete(batch *pebble.Batch, log string, first, last, count uint64) error {
	if count <= 2 {
		if err := batch.Delete(b.key(nil, log, first), nil); err != nil || first == last {
			return err
		}
		return batch.Delete(b.key(nil, log, last), nil)
	}
	return batch.DeleteRange(b.key(nil, log, first), b.key(nil, log, last+1), nil)
}

// Iter opens a cursor over the buffer as it is now. The caller closes it.
func (b *Buffer) Iter() (*Cursor, error) {
	it, err := b.db.NewIter(&pebble.IterOptions{LowerBound: b.prefix, UpperBound: b.upperBound})
	if err != nil {
		return nil, fmt.Errorf("reading the buffer: %w", err)
	}
	return &Cursor{buffer: b, it: it}, nil
}

// Cursor walks over buffered entries in key order. It is for one goroutine.
type Cursor struct {
	buffer  *Buffer
	it      *pebble.Iterator
	scratch []byte
}

// Seek moves to the first entry of log at or above seq, and reports whether there is one.
func (c *Cursor) Seek(log string, seq uint64) (found uint64, at time.Time, ok bool, err error) {
	c.scratch = c.buffer.key(c.scratch[:0], log, seq)
	return c.at(log, c.it.SeekGE(c.scratch))
}

// Last moves to the last entry of log, and reports whether there is one.
func (c *Cursor) Last(log string) (found uint64, at time.Time, ok bool, err error) {
	c.scratch = entry.AppendLogEnd(append(c.scratch[:0], c.buffer.prefix...), log)
	return c.at(log, c.it.SeekLT(c.scratch))
}

func (c *Cursor) at(log string, valid bool) (seq uint64, at time.Time, ok bool, err error) {
	if !valid {
		return 0, at, false, c.it.Error()
	}
	id, seq, err := entry.SplitKey(c.Key())
	if err != nil || string(id) != log {
		return 0, at, false, err
	}
	at, _, err = entry.Measure(c.it.Value())
	return seq, at, err == nil, err
}

// SeekLog moves to the first entry of the first log at or after log, and returns that log.
func (c *Cursor) SeekLog(log string) (string, bool, error) {
	c.scratch = append(append(c.scratch[:0], c.buffer.prefix...), log...)
	if !c.it.SeekGE(c.scratch) {
		return "", false, c.it.Error()
	}
	id, _, err := entry.SplitKey(c.Key())
	return string(id), err == nil, err
}

// Key returns the current entry.Key; it is valid until the next move.
func (c *Cursor) Key() []byte { return c.it.Key()[len(c.buffer.prefix):] }

// Value returns the current entry's value; it is valid until the next move.
func (c *Cursor) Value() []byte { return c.it.Value() }

// Next moves on by one entry.
func (c *Cursor) Next() bool { return c.it.Next() }

// First moves to the first entry of the buffer.
func (c *Cursor) First() bool { return c.it.First() }

// Close releases the cursor and returns the error that ended it, if one did.
func (c *Cursor) Close() error { return c.it.Close() }
