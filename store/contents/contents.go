// Package contents joins the tables of contents of live segments: which logs there are, and which extents each has, in
// the order in which they are read.
//
// It streams: what it has in memory is a block of the table of one segment of each run. Open store/segment for what a
// table is, store/tree for why the order is right.
package contents

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"

	"dormouse/internal/extent"
	"dormouse/store/segment"
)

// Opener opens segments.
type Opener interface {
	Open(ctx context.Context, s extent.Segment) (*segment.Reader, error)
	// Done takes back a segment that Open has returned.
	Done(s extent.Segment, r *segment.Reader) error
}

// Log is what the segments have of one log.
type Log struct {
	Log     string
	Extents []extent.Located // in the order in which they are read, of one segment each
}

// Walk yields the logs of live segments, ascending, which are not below from and, unless to is empty, below to. The
// pieces are in the tree's order. It ends at the first error, which wraps bucket.ErrNotFound when a segment is gone: a
// merge has replaced it.
func Walk(ctx context.Context, open Opener, pieces []extent.Piece, from, to string) iter.Seq2[Log, error] {
	return walkOf(ctx, &walk{open: open, from: from, to: to, ordered: true}, pieces)
}

// Gather is Walk of segments that need not be in the tree's order, and may have the same entries. Segments of one run
// must be neighbours.
func Gather(ctx context.Context, open Opener, pieces []extent.Piece, from, to string) iter.Seq2[Log, error] {
	return walkOf(ctx, &walk{open: open, from: from, to: to}, pieces)
}

func walkOf(ctx context.Context, w *walk, pieces []extent.Piece) iter.Seq2[Log, error] {
	return func(yield func(Log, error) bool) {
		var failed error
		defer func() {
			if err := w.close(); failed == nil && err != nil {
				yield(Log{}, err)
			}
		}()
		for _, l := range lanesOf(pieces) {
			if failed = w.advance(ctx, l); failed != nil {
				yield(Log{}, failed)
				return
			}
			if l.has {
				w.lanes = append(w.lanes, l)
			}
		}
		heap.Init(&w.lanes)
		for len(w.lanes) > 0 {
			log, err := w.next(ctx)
			if failed = err; err != nil {
				yield(Log{}, err)
				return
			}
			if !yield(log, nil) {
				failed = errStopped // nobody listens any more
				return
			}
		}
	}
}

var errStopped = errors.New("nobody listens")

// lane is the segments of one run, of which one at a time is open.
type lane struct {
	age    int // its place in the tree's order
	pieces []extent.Piece
	reader *segment.Reader // of pieces[0]; nil: none is open
	cursor *segment.TableCursor
	now    extent.Located // if has
	has    bool
}

// lanesOf splits pieces by runs.
func lanesOf(pieces []extent.Piece) (lanes []*lane) {
	for i, p := range pieces {
		if i > 0 && p.Level > 0 && pieces[i-1].Level == p.Level && pieces[i-1].Newest == p.Newest {
			l := lanes[len(lanes)-1]
			l.pieces = append(l.pieces, p)
			continue
		}
		lanes = append(lanes, &lane{age: len(lanes), pieces: []extent.Piece{p}})
	}
	return lanes
}

// walk is one Walk under way. Its lanes are a heap by log and age.
type walk struct {
	open     Opener
	from, to string
	ordered  bool // that the extents of a log are out of order is an error
	lanes    lanes
}

// next returns the least log, and moves all that have it on.
func (w *walk) next(ctx context.Context) (Log, error) {
	log := Log{Log: w.lanes[0].now.Extent.Log}
	for len(w.lanes) > 0 && w.lanes[0].now.Extent.Log == log.Log {
		l := w.lanes[0]
		if n := len(log.Extents); w.ordered && n > 0 && log.Extents[n-1].Extent.Last >= l.now.Extent.First {
			before := log.Extents[n-1]
			return log, fmt.Errorf("%w: log %s goes on at %d in segment %s, after %d in segment %s", ErrOrder, log.Log,
				l.now.Extent.First, l.now.Segment.Key, before.Extent.Last, before.Segment.Key)
		}
		log.Extents = append(log.Extents, l.now)
		if err := w.advance(ctx, l); err != nil {
			return log, err
		}
		if l.has {
			heap.Fix(&w.lanes, 0)
		} else {
			heap.Pop(&w.lanes)
		}
	}
	return log, nil
}

// ErrOrder is wrapped when the extents of a log do not ascend in the tree's order.
var ErrOrder = errors.New("extents of a log overlap or are out of order")

// advance moves a lane to its next log that is part of the archive.
func (w *walk) advance(ctx context.Context, l *lane) (err error) {
	l.has = false
	for len(l.pieces) > 0 {
		p := l.pieces[0]
		if l.reader == nil {
			if l.reader, err = w.open.Open(ctx, p.Segment.Object); err != nil {
				return err
			}
			if l.cursor, err = l.reader.Table(ctx, w.from, w.to); err != nil {
				return errors.Join(err, w.release(l))
			}
		}
		e, ok, err := l.cursor.Next()
		switch {
		case err != nil:
			return errors.Join(err, w.release(l))
		case !ok:
			if err := w.release(l); err != nil {
				return err
			}
			l.pieces = l.pieces[1:]
		case p.Segment.MayHold(e.Log):
			l.now, l.has = extent.Located{Extent: e, Segment: p.Segment.Object}, true
			return nil
		}
	}
	return nil
}

// release gives back what a lane has open.
func (w *walk) release(l *lane) (err error) {
	if l.cursor != nil {
		err = l.cursor.Close()
	}
	if l.reader != nil {
		err = errors.Join(err, w.open.Done(l.pieces[0].Segment.Object, l.reader))
	}
	l.cursor, l.reader = nil, nil
	return err
}

func (w *walk) close() (err error) {
	for _, l := range w.lanes {
		err = errors.Join(err, w.release(l))
	}
	return err
}

// lanes is a heap: the least log first, and of one log the oldest lane.
type lanes []*lane

func (l lanes) Len() int { return len(l) }

func (l lanes) Less(i, j int) bool {
	if c := strings.Compare(l[i].now.Extent.Log, l[j].now.Extent.Log); c != 0 {
		return c < 0
	}
	return l[i].age < l[j].age
}

func (l lanes) Swap(i, j int) { l[i], l[j] = l[j], l[i] }

// Push implements heap.Interface.
func (l *lanes) Push(x any) { *l = append(*l, x.(*lane)) }

// Pop implements heap.Interface.
func (l *lanes) Pop() any {
	last := (*l)[len(*l)-1]
	*l = (*l)[:len(*l)-1]
	return last
}
