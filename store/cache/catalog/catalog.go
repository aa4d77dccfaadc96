// Package catalog is the index from (LogID, first sequence) to the extent that holds the entries from there on, one row
// for each committed extent of a shard.
//
// It is derived from the manifest and never the truth: ingest rebuilds it from there when it is missing or behind. Open
// manifest next.
package catalog

import (
	"dormouse/internal/entry"
	"dormouse/internal/extent"
	"dormouse/internal/shardid"
	"dormouse/store/cache"
)

// Catalog is one shard's part of the database. It is safe for concurrent use; who may write is ingest's to order.
type Catalog struct {
	db         *cache.DB
	prefix     []byte
	upperBound []byte
}

// New returns the catalog of shard.
func New(db *cache.DB, shard shardid.Shard) *Catalog {
	return &Catalog{
		db:         db,
		prefix:     cache.Prefix(cache.SpaceCatalog, shard),
		upperBound: cache.PrefixEnd(cache.SpaceCatalog, shard),
	}
}

// Put adds a committed extent to batch. Putting the same extent again changes nothing.
func (c *Catalog) Put(batch *cache.Batch, e extent.Extent, s extent.Segment) error {
	scratch := make([]byte, 0, len(c.prefix)+len(e.Log)+len(s.Key)+rowBytes) // one allocation for key and row
	key := entry.AppendKey(append(scratch, c.prefix...), e.Log, e.First)
	row := appendRow(key[len(key):], e, s)
	return batch.Set(key, row, nil)
}

// Covering returns the last extent of log that begins at or before seq. ok is false when there is none; the extent may
// end before seq.
func (c *Catalog) Covering(log string, seq uint64) (located extent.Located, ok bool, err error) {
	err = c.read(func(v *View) error {
		located, ok, err = v.covering(log, seq)
		return err
	})
	return located, ok, err
}

// Last returns the last committed extent of log.
func (c *Catalog) Last(log string) (extent.Located, bool, error) {
	return c.Covering(log, ^uint64(0))
}

// Extents returns up to limit extents of log that end above after, ascending, and whether there are more. With all,
// those of the logs that sort after log follow.
func (c *Catalog) Extents(log string, after uint64, all bool, limit int) (page []extent.Located, more bool, err error) {
	err = c.read(func(v *View) error {
		page, more, err = v.Extents(log, after, all, limit)
		return err
	})
	return page, more, err
}

func (c *Catalog) read(fn func(*View) error) (err error) {
	v, err := c.View()
	if err != nil {
		return err
	}
	defer func() {
		if cerr := v.Close(); err == nil {
			err = cerr
		}
	}()
	return fn(v)
}
