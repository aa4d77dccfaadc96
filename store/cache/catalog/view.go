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
	"dormouse/store/cache"
)

// View is the catalog as it was when it was opened. It is for one goroutine, which must close it.
type View struct {
	catalog *Catalog
	it      *cache.Iterator
}

// View opens a view.
func (c *Catalog) View() (*View, error) {
	it, err := c.db.NewIter(&pebble.IterOptions{LowerBound: c.prefix, UpperBound: c.upperBound})
	if err != nil {
		return nil, fmt.Errorf("reading the catalog: %w", err)
	}
	return &View{catalog: c, it: it}, nil
}

// Close releases the view and returns the error that ended it, if one did.
func (v *View) Close() error {
	if err := v.it.Close(); err != nil {
		return fmt.Errorf("reading the catalog: %w", err)
	}
	return nil
}

func (v *View) key(log string, seq uint64) []byte {
	return entry.AppendKey(append([]byte(nil), v.catalog.prefix...), log, seq)
}

func (v *View) row() (extent.Located, error) {
	return decodeRow(v.it.Key()[len(v.catalog.prefix):], v.it.Value())
}

// covering is Catalog.Covering.
func (v *View) covering(log string, seq uint64) (located extent.Located, ok bool, err error) {
	key := append(v.key(log, seq), 0) // just above, so that an extent that begins at seq is found too
	if !v.it.SeekLT(key) {
		return located, false, nil
	}
	located, err = v.row()
	return located, err == nil && located.Extent.Log == log, err
}

// Extents is Catalog.Extents.
func (v *View) Extents(log string, after uint64, all bool, limit int) (page []extent.Located, more bool, err error) {
	from := after
	if covering, ok, err := v.covering(log, after); err != nil {
		return nil, false, err
	} else if ok {
		from = covering.Extent.First
	}
	for ok := v.it.SeekGE(v.key(log, from)); ok; ok = v.it.Next() {
		located, err := v.row()
		if err != nil {
			return nil, false, err
		}
		same := located.Extent.Log == log
		if !same && !all {
			return page, false, nil
		}
		if same && located.Extent.Last <= after {
			continue
		}
		if len(page) == limit {
			return page, true, nil
		}
		page = append(page, located)
	}
	return page, false, nil
}

// Summary is what some extents of one log hold in all.
type Summary struct {
	Log     string
	Extents uint64
	All     wire.Part
}

// Mark is where Summaries begins, or went no further: at the log's first extent from a sequence on. The zero Mark is
// where there is nothing more to come.
type Mark struct {
	Log string
	Seq uint64
}

// Bounds of one call of Summaries.
type Bounds struct {
	Logs, Extents int       // both above 0
	Until         time.Time // for a disk that is slow; an extent is read even then
}

// Summaries sums up the extents of each log that begins with prefix, from a Mark on, in order. It ends at the bounds or
// when ctx is done; next is the first extent that it left out. If next is in the page's last log, the Summary of that
// log is partial: add the first one of the next call.
//
// The extents are read one by one, since only all of them together tell how many entries a log has; the bound is there
// because one log may have a million of them. A row of sums per log would have to be written with every commit.
func (v *View) Summaries(ctx context.Context, prefix string, from Mark, bounds Bounds) (page []Summary, next Mark,
	err error) {
	key := append(append([]byte(nil), v.catalog.prefix...), max(prefix, from.Log)...)
	if from.Seq > 0 {
		key = v.key(from.Log, from.Seq)
	}
	rows := 0
	for ok := v.it.SeekGE(key); ok; ok = v.it.Next() {
		if err := ctx.Err(); err != nil {
			return nil, next, err
		}
		located, err := v.row()
		if err != nil {
			return nil, next, err
		}
		e := located.Extent
		if !strings.HasPrefix(e.Log, prefix) {
			break
		}
		begins := len(page) == 0 || page[len(page)-1].Log != e.Log
		over := rows == bounds.Extents || rows > 0 && time.Now().After(bounds.Until)
		if over || begins && len(page) == bounds.Logs {
			return page, Mark{e.Log, e.First}, nil
		}
		if begins {
			page = append(page, Summary{Log: e.Log})
		}
		page[len(page)-1].add(e)
		rows++
	}
	return page, next, v.it.Error()
}

func (s *Summary) add(e extent.Extent) {
	s.Extents++
	s.All = s.All.Join(wire.Part{Entries: e.Count, Bytes: e.Bytes, First: e.First, Last: e.Last, MinTime: e.MinTime,
		MaxTime: e.MaxTime})
}
