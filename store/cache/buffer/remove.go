package buffer

import (
	"bytes"
	"errors"

	"dormouse/internal/extent"
	"dormouse/store/cache"
)

// Remove adds to batch the removal of the entries of extents. The buffer must not change from the call to the batch's
// commit.
//
// Entries that lie next to each other go together, across logs, which takes a look at each of them. Extents that do not
// ascend are removed all the same, with less in common.
func (b *Buffer) Remove(batch *cache.Batch, extents []extent.Extent) (err error) {
	c, err := b.Iter()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	run := run{batch: batch}
	var end []byte
	for i, e := range extents {
		if i > 0 && extents[i-1].Log < e.Log {
			c.forward(e.Log, e.First)
		} else {
			c.seek(e.Log, e.First)
		}
		if c.passed { // entries of others lie between
			if err := run.end(); err != nil {
				return err
			}
		}
		end = append(b.key(end[:0], e.Log, e.Last), 0)
		for c.it.Valid() && bytes.Compare(c.it.Key(), end) < 0 {
			run.add(c.it.Key())
			c.it.Next()
		}
		if err := c.it.Error(); err != nil {
			return err
		}
	}
	return run.end()
}

// rangeKeys is how many neighbours are worth a range tombstone instead of one for each. A tombstone of a key costs
// those who read over it a step. One of a range costs whoever reads anything: Pebble sorts those of its memtable anew
// for the first read after each change, 100 bytes for each, so that thousands of small ones make each drain as dear as
// all of them.
const rangeKeys = 64

// run is keys between which the buffer has no other.
//
// Invariant: up to rangeKeys of them are in keys, and none is removed yet; beyond that they lie from keys' first to
// last.
type run struct {
	batch *cache.Batch
	keys  [][]byte // the memory of which serves the next run
	last  []byte
	count int
}

func (r *run) add(key []byte) {
	if r.count++; r.count > rangeKeys {
		r.last = append(r.last[:0], key...)
		return
	}
	if len(r.keys) < r.count {
		r.keys = append(r.keys, nil)
	}
	r.keys[r.count-1] = append(r.keys[r.count-1][:0], key...)
}

// end adds the removal of the run to the batch and begins a new one.
func (r *run) end() error {
	n := r.count
	r.count = 0
	if n > rangeKeys {
		return r.batch.DeleteRange(r.keys[0], append(r.last, 0), nil)
	}
	for _, key := range r.keys[:n] {
		if err := r.batch.Delete(key, nil); err != nil {
			return err
		}
	}
	return nil
}
