package buffer

import (
	"bytes"
	"errors"

	"dormouse/internal/extent"
	"dormouse/store"
)

// Remove adds to batch the removal of the entries of extents. The buffer must not change from the call to the batch's
// commit.
//
// A tombstone costs every later read of its region until it is compacted away. So entries that lie next to each other go
// together, across logs, which takes a look at each; unless the logs lie apart, or do not ascend.
func (b *Buffer) Remove(batch *store.Batch, extents []extent.Extent) (err error) {
	c, err := b.Iter()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	run := run{batch: batch}
	var end []byte
	for i, e := range extents {
		if c.sparse() || i > 0 && extents[i-1].Log >= e.Log {
			return errors.Join(run.end(), b.removeApart(batch, extents[i:]))
		}
		if c.forward(e.Log, e.First); c.passed || i == 0 {
			if err := run.end(); err != nil { // entries of others lie between
				return err
			}
		}
		end = append(b.key(end[:0], e.Log, e.Last), 0)
		for c.it.Valid() && bytes.Compare(c.it.Key(), end) < 0 {
			run.add(c.it.Key())
			c.it.Next()
		}
	}
	return run.end()
}

// removeApart removes each extent by itself, without a look.
func (b *Buffer) removeApart(batch *store.Batch, extents []extent.Extent) error {
	var run run
	run.batch = batch
	for _, e := range extents {
		run.first, run.last = b.key(run.first[:0], e.Log, e.First), b.key(run.last[:0], e.Log, e.Last)
		run.count = int(min(e.Count, 3))
		if err := run.end(); err != nil {
			return err
		}
	}
	return nil
}

// run is keys between which the buffer has no other.
type run struct {
	batch       *store.Batch
	first, last []byte
	count       int
}

func (r *run) add(key []byte) {
	if r.count == 0 {
		r.first = append(r.first[:0], key...)
	}
	r.last = append(r.last[:0], key...)
	r.count++
}

// end adds the removal of the run to the batch and begins a new one: up to two entries as keys, more as a range.
func (r *run) end() error {
	n := r.count
	r.count = 0
	switch n {
	case 0:
		return nil
	case 1:
		return r.batch.Delete(r.first, nil)
	case 2:
		return errors.Join(r.batch.Delete(r.first, nil), r.batch.Delete(r.last, nil))
	default:
		r.last = append(r.last, 0)
		return r.batch.DeleteRange(r.first, r.last, nil)
	}
}
