// Package catalog is the index from (LogID, first sequence) to the extent that holds the entries from there on, one row
// for each committed extent of a shard.
//
// It is derived from the manifest and never the truth: ingest rebuilds it from there when it is missing or behind. Open
// manifest next.
package catalog

import (
	"context"
	"fmt"
	"strings"
	"time"

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

// Summary is what some extents of one log hold in all.
type Summary struct {
	Log     string
	Extents uint64
	All     wire.Part
}

// Mark is where Summaries begins, or went no further: at the log's first extent from a sequence on. The zero Mark is where
// there is nothing more to come.
type Mark struct {
	Log string
	Seq uint64
}

// Bounds of one call of Summaries.
type Bounds struct {
	Logs, Extents int       // both above 0
	Until         time.Time // for a disk that is slow; an extent is read even then
}

// Summaries sums up the extents of each log that begins with prefix, from a Mark on, in order. It ends at the bounds or when
// ctx is done; next is the first extent that it left out. If that is of the page's last log, that is not whole: the Summary of
// the call that begins there is to be added to it.
//
// The extents are read one by one, since only all of them together tell how many entries a log has; the bound is there
// because one log may have a million of them. A row of sums per log would have to be written with every commit.
func (c *Catalog) Summaries(ctx context.Context, prefix string, from Mark, bounds Bounds) (page []Summary, next Mark, err error) {
	key := append(append([]byte(nil), c.prefix...), max(prefix, from.Log)...)
	if from.Seq > 0 {
		key = entry.AppendKey(append([]byte(nil), c.prefix...), from.Log, from.Seq)
	}
	err = c.read(func(it *store.Iterator) error {
		rows := 0
		for ok := it.SeekGE(key); ok; ok = it.Next() {
			if err := ctx.Err(); err != nil {
				return err
			}
			located, err := c.row(it)
			if err != nil {
				return err
			}
			e := located.Extent
			if !strings.HasPrefix(e.Log, prefix) {
				return nil
			}
			begins := len(page) == 0 || page[len(page)-1].Log != e.Log
			over := rows == bounds.Extents || rows > 0 && time.Now().After(bounds.Until)
			if over || begins && len(page) == bounds.Logs {
				next = Mark{e.Log, e.First}
				return nil
			}
			if begins {
				page = append(page, Summary{Log: e.Log})
			}
			page[len(page)-1].add(e)
			rows++
		}
		return nil
	})
	return page, next, err
}

func (s *Summary) add(e extent.Extent) {
	s.Extents++
	s.All = s.All.Join(wire.Part{Entries: e.Count, Bytes: e.Bytes, First: e.First, Last: e.Last, MinTime: e.MinTime, MaxTime: e.MaxTime})
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
