package alone

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"iter"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"dormouse/internal/entry"
	"dormouse/internal/extent"
	"dormouse/store/client"
	"dormouse/store/reader"
)

// openAtOnce is how many segments are looked at at a time.
const openAtOnce = 8

// Read calls emit for each entry of the query in ascending sequence, each once. The error wraps client.ErrNoLog when no
// segment has the log. Follow is of no effect. emit's errors end the read.
func (a *Archive) Read(ctx context.Context, q reader.Query, emit func(entry.Entry) error) error {
	extents, err := a.find(ctx, q.Log)
	if err != nil {
		return err
	}
	if len(extents) == 0 {
		return client.ErrNoLog
	}
	extents = slices.DeleteFunc(extents, func(l extent.Located) bool { return outside(q, l.Extent) })
	for e, err := range a.entries(ctx, extents) {
		if err != nil {
			return err
		}
		if e.Seq < q.From || q.To > 0 && e.Seq > q.To || !q.FromTime.IsZero() && e.Time.Before(q.FromTime) ||
			!q.ToTime.IsZero() && e.Time.After(q.ToTime) {
			continue
		}
		if err := emit(e); err != nil {
			return err
		}
	}
	return nil
}

// outside reports whether the query wants nothing of an extent.
func outside(q reader.Query, e extent.Extent) bool {
	return e.Last < q.From || q.To > 0 && e.First > q.To ||
		!q.FromTime.IsZero() && time.Unix(0, e.MaxTime).Before(q.FromTime) ||
		!q.ToTime.IsZero() && time.Unix(0, e.MinTime).After(q.ToTime)
}

// find returns the extents of a log in all shards.
func (a *Archive) find(ctx context.Context, log string) (all []extent.Located, err error) {
	var pieces []extent.Segment
	for _, s := range a.shards {
		for _, p := range s.pieces {
			if p.Segment.MayHold(log) {
				pieces = append(pieces, p.Segment.Object)
			}
		}
	}
	found := make([]*extent.Located, len(pieces))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(openAtOnce)
	for i, s := range pieces {
		group.Go(func() error {
			e, ok, err := a.lookUp(ctx, s, log)
			if ok {
				found[i] = &extent.Located{Extent: e, Segment: s}
			}
			return err
		})
	}
	err = group.Wait()
	for _, l := range found {
		if l != nil {
			all = append(all, *l)
		}
	}
	return a.uncut(all), err
}

// lookUp returns a log's extent in a segment, if it has one.
func (a *Archive) lookUp(ctx context.Context, s extent.Segment, log string) (e extent.Extent, ok bool, err error) {
	r, err := a.Open(ctx, s)
	if err != nil {
		return e, false, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	c, err := r.Table(ctx, log, log+"\x00")
	if err != nil {
		return e, false, err
	}
	e, ok, err = c.Next()
	return e, ok, errors.Join(err, c.Close())
}

// entries yields the entries of a log's extents, ascending by sequence and time, each once.
func (a *Archive) entries(ctx context.Context, extents []extent.Located) iter.Seq2[entry.Entry, error] {
	return func(yield func(entry.Entry, error) bool) {
		for _, group := range overlapping(extents) {
			m := &merged{}
			for _, l := range group {
				next, stop := iter.Pull2(a.extent(ctx, l))
				defer stop()
				if !m.add(next, yield) {
					return
				}
			}
			for len(m.streams) > 0 {
				if e, isNew := m.top(); isNew && !yield(e, nil) {
					return
				}
				if !m.advance(yield) {
					return
				}
			}
		}
	}
}

// overlapping splits extents into groups of which none overlaps another, ascending.
func overlapping(extents []extent.Located) (groups [][]extent.Located) {
	slices.SortFunc(extents, func(a, b extent.Located) int { return cmp.Compare(a.Extent.First, b.Extent.First) })
	var last uint64
	for _, l := range extents {
		if len(groups) == 0 || l.Extent.First > last {
			groups = append(groups, nil)
		}
		last = max(last, l.Extent.Last)
		groups[len(groups)-1] = append(groups[len(groups)-1], l)
	}
	return groups
}

// extent yields the entries of one extent.
func (a *Archive) extent(ctx context.Context, l extent.Located) iter.Seq2[entry.Entry, error] {
	return func(yield func(entry.Entry, error) bool) {
		cuts := a.cuts(l.Segment).Of(l.Extent.Log)
		r, err := a.Open(ctx, l.Segment)
		if err == nil {
			err = r.Scan(ctx, l.Extent.Log, l.Extent.First, l.Extent.Last, func(e entry.Entry) error {
				if cuts.Have(e.Log, e.Seq, e.Time.UnixNano()) {
					return nil
				}
				if !yield(e, nil) {
					return errStopped
				}
				return nil
			})
			err = errors.Join(err, r.Close())
		}
		if err != nil && !errors.Is(err, errStopped) {
			yield(entry.Entry{}, err)
		}
	}
}

var errStopped = errors.New("nobody reads on")

// stream is the entries of one extent that are still to come.
type stream struct {
	now  entry.Entry
	next func() (entry.Entry, error, bool)
}

// merged is a heap of streams, by the sequence and the time of what comes next.
type merged struct {
	streams []*stream
	last    entry.Entry
	begun   bool
}

// add adds a stream, unless it fails, which it yields.
func (m *merged) add(next func() (entry.Entry, error, bool), yield func(entry.Entry, error) bool) bool {
	e, err, ok := next()
	if err != nil {
		yield(e, err)
		return false
	}
	if ok {
		heap.Push(m, &stream{e, next})
	}
	return true
}

// top returns the entry that comes next, and whether it is another one than the last.
func (m *merged) top() (e entry.Entry, isNew bool) {
	e = m.streams[0].now
	isNew = !m.begun || e.Seq != m.last.Seq || !e.Time.Equal(m.last.Time)
	m.last, m.begun = e, true
	return e, isNew
}

// advance moves on behind it.
func (m *merged) advance(yield func(entry.Entry, error) bool) bool {
	s := m.streams[0]
	e, err, ok := s.next()
	switch {
	case err != nil:
		yield(e, err)
		return false
	case ok:
		s.now = e
		heap.Fix(m, 0)
	default:
		heap.Pop(m)
	}
	return true
}

// Len implements heap.Interface.
func (m *merged) Len() int { return len(m.streams) }

// Less implements heap.Interface.
func (m *merged) Less(i, j int) bool {
	a, b := m.streams[i].now, m.streams[j].now
	return cmp.Or(cmp.Compare(a.Seq, b.Seq), a.Time.Compare(b.Time)) < 0
}

// Swap implements heap.Interface.
func (m *merged) Swap(i, j int) { m.streams[i], m.streams[j] = m.streams[j], m.streams[i] }

// Push implements heap.Interface.
func (m *merged) Push(x any) { m.streams = append(m.streams, x.(*stream)) }

// Pop implements heap.Interface.
func (m *merged) Pop() any {
	last := m.streams[len(m.streams)-1]
	m.streams = m.streams[:len(m.streams)-1]
	return last
}
