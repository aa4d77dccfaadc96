// Package catalog is the index from (LogID, first sequence) to the extent that holds the entries from there on, one row
// for each committed extent of a shard.
//
// It is derived from the manifest and never the truth: ingest rebuilds it from there when it is missing or behind. Open
// manifest next.
package catalog

import (
	"fmt"
	"strings"

	"github.com/cockroachdb/pebble/v2"

	"dormouse/internal/entry"
	"dormouse/internal/extent"
	"dormouse/internal/wire"
	"dormouse/store"
)

// Catalog is one shard's part of the database. It is safe for concurrent use; who may write is ingest's to order.
type Catalog struct {
	db         *store.DB
	prefix     []byte
	upperBound []byte
}

// New returns the catalog of shard.
func New(db *store.DB, shard wire.Shard) *Catalog {
	return &Catalog{
		db:         db,
		prefix:     store.Prefix(store.SpaceCatalog, shard),
		upperBound: store.PrefixEnd(store.SpaceCatalog, shard),
	}
}

// Put adds a committed extent to batch. Putting the same extent again changes nothing.
func (c *Catalog) Put(batch *store.Batch, e extent.Extent, s extent.Segment) error {
	scratch := make([]byte, 0, len(c.prefix)+len(e.Log)+len(s.Key)+rowBytes) // one allocation for key and row
	key := entry.AppendKey(append(scratch, c.prefix...), e.Log, e.First)
	row := appendRow(key[len(key):], e, s)
	return batch.Set(key, row, nil)
}

// Covering returns the last extent of log that begins at or before seq. ok is false when there is none; the extent may
// end before seq.
func (c *Catalog) Covering(log string, seq uint64) (located extent.Located, ok bool, err error) {
	err = c.read(func(it *store.Iterator) error {
		key := entry.AppendKey(append([]byte(nil), c.prefix...), log, seq)
		key = append(key, 0) // just above, so that an extent that begins at seq is found too
		if !it.SeekLT(key) {
			return nil
		}
		located, err = c.row(it)
		ok = err == nil && located.Extent.Log == log
		return err
	})
	return located, ok, err
}

// Last returns the last committed extent of log.
func (c *Catalog) Last(log string) (extent.Located, bool, error) {
	return c.Covering(log, ^uint64(0))
}

// Extents returns up to limit extents of log that end above after, ascending, and whether there are more. With all, those
// of the logs that sort after log follow.
func (c *Catalog) Extents(log string, after uint64, all bool, limit int) (page []extent.Located, more bool, err error) {
	from := after
	if covering, ok, err := c.Covering(log, after); err != nil {
		return nil, false, err
	} else if ok {
		from = covering.Extent.First
	}
	err = c.read(func(it *store.Iterator) error {
		for ok := it.SeekGE(entry.AppendKey(append([]byte(nil), c.prefix...), log, from)); ok; ok = it.Next() {
			located, err := c.row(it)
			if err != nil {
				return err
			}
			same := located.Extent.Log == log
			if !same && !all {
				return nil
			}
			if same && located.Extent.Last <= after {
				continue
			}
			if len(page) == limit {
				more = true
				return nil
			}
			page = append(page, located)
		}
		return nil
	})
	return page, more, err
}

// Summaries calls fn for each log that begins with prefix and sorts at or after from, in order, with the number of its
// extents and what they hold in all, until fn returns false.
func (c *Catalog) Summaries(prefix, from string, fn func(log string, extents uint64, all wire.Part) bool) error {
	return c.read(func(it *store.Iterator) error {
		var log string
		var extents uint64
		var all wire.Part
		for ok := it.SeekGE(append(append([]byte(nil), c.prefix...), max(prefix, from)...)); ok; ok = it.Next() {
			located, err := c.row(it)
			if err != nil {
				return err
			}
			e := located.Extent
			if e.Log != log {
				if extents > 0 && !fn(log, extents, all) {
					return nil
				}
				log, extents, all = e.Log, 0, wire.Part{First: e.First, MinTime: e.MinTime, MaxTime: e.MaxTime}
				if !strings.HasPrefix(log, prefix) {
					return nil
				}
			}
			extents++
			all.Entries += e.Count
			all.Bytes += e.Bytes
			all.Last = e.Last
			all.MinTime, all.MaxTime = min(all.MinTime, e.MinTime), max(all.MaxTime, e.MaxTime)
		}
		if extents > 0 {
			fn(log, extents, all)
		}
		return nil
	})
}

func (c *Catalog) read(fn func(*store.Iterator) error) (err error) {
	it, err := c.db.NewIter(&pebble.IterOptions{LowerBound: c.prefix, UpperBound: c.upperBound})
	if err != nil {
		return fmt.Errorf("reading the catalog: %w", err)
	}
	defer func() {
		if cerr := it.Close(); err == nil && cerr != nil {
			err = fmt.Errorf("reading the catalog: %w", cerr)
		}
	}()
	return fn(it)
}

func (c *Catalog) row(it *store.Iterator) (extent.Located, error) {
	return decodeRow(it.Key()[len(c.prefix):], it.Value())
}
