// Package buffer keeps the entries of active logs until a committed segment holds them, in Pebble, keyed by
// (LogID, sequence).
//
// It decides nothing: ingest says what goes in, what is drained and what may go. Open ingest/shard/ledger.go for when
// entries leave, and internal/entry for their bytes.
package buffer

import (
	"bytes"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"dormouse/internal/entry"
	"dormouse/internal/shardid"
	"dormouse/store/cache"
)

// Buffer is one shard's part of the database. It is safe for concurrent use; who may write is ingest's to order.
type Buffer struct {
	db         *cache.DB
	prefix     []byte
	upperBound []byte
}

// New returns the buffer of shard.
func New(db *cache.DB, shard shardid.Shard) *Buffer {
	return &Buffer{
		db:         db,
		prefix:     cache.Prefix(cache.SpaceBuffer, shard),
		upperBound: cache.PrefixEnd(cache.SpaceBuffer, shard),
	}
}

func (b *Buffer) key(dst []byte, log string, seq uint64) []byte {
	return entry.AppendKey(append(dst, b.prefix...), log, seq)
}

// Put adds an entry to batch. Scratch is memory to build the key in; it is returned for the next call.
func (b *Buffer) Put(batch *cache.Batch, scratch []byte, log string, seq uint64, value []byte) ([]byte, error) {
	scratch = b.key(scratch[:0], log, seq)
	return scratch, batch.Set(scratch, value, nil)
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
	it      *cache.Iterator
	scratch []byte

	near, far int  // how often forward found the log within its steps, and how often not
	passed    bool // the last forward may have gone past entries
}

// Seek moves to the first entry of log at or above seq, and reports whether there is one.
func (c *Cursor) Seek(log string, seq uint64) (found uint64, at time.Time, ok bool, err error) {
	c.scratch = c.buffer.key(c.scratch[:0], log, seq)
	return c.at(log, c.it.SeekGE(c.scratch))
}

// forward moves to the first entry of log at or above seq, or to another log if there is none, for a cursor that visits
// logs in ascending order. Logs that are ready together lie together when many are, and then a step costs a fraction of
// a seek. When stepping has mostly been in vain it only seeks.
func (c *Cursor) forward(log string, seq uint64) {
	c.scratch = c.buffer.key(c.scratch[:0], log, seq)
	for steps := 0; !c.sparse() && steps < forwardSteps && c.it.Valid(); steps++ {
		if bytes.Compare(c.it.Key(), c.scratch) >= 0 {
			c.near++
			c.passed = steps > 0
			return
		}
		c.it.Next()
	}
	c.far++
	c.seek(log, seq)
}

// seek is forward for a log that may lie before the cursor.
func (c *Cursor) seek(log string, seq uint64) {
	c.scratch = c.buffer.key(c.scratch[:0], log, seq)
	c.passed = true
	c.it.SeekGE(c.scratch)
}

// sparse reports whether forward has found the logs to lie apart.
func (c *Cursor) sparse() bool { return c.far >= farEnough && c.far > c.near }

// on reports whether the cursor stands on an entry of log.
func (c *Cursor) on(log string) bool {
	if !c.it.Valid() {
		return false
	}
	key := c.Key()
	return len(key) > len(log) && key[len(log)] == 0 && string(key[:len(log)]) == log
}

const (
	forwardSteps = 8 // keys that forward passes before it seeks
	farEnough    = 8 // seeks before forward judges whether stepping pays
)

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
