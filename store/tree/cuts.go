package tree

import (
	"fmt"
	"slices"
	"time"

	"dormouse/internal/extent"
)

// MaxCuts is how many cuts a tree may have, and MaxCutsBytes their size. Each of them is looked at for each question.
const (
	MaxCuts      = 2000
	MaxCutsBytes = 4 << 20
)

// cutLife is how long a cut stays at least, though nothing live has anything of it any more: for objects that were
// never committed, which show when the bucket is read alone, and for those who ask again what became of it.
const cutLife = 24 * time.Hour

// Cuts returns the cuts, in the order of their records. They are not to be changed.
func (t Tree) Cuts() extent.Cuts { return t.cuts }

// NewestCut returns the newest cut; the zero Cut without any.
func (t Tree) NewestCut() (c extent.Cut) {
	if n := len(t.cuts); n > 0 {
		c = t.cuts[n-1]
	}
	return c
}

// Cut returns the tree with a cut that a manifest record has made.
func (t Tree) Cut(record uint64, c extent.Cut) (Tree, error) {
	if err := c.Validate(); err != nil {
		return t, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	c.Record = record
	cuts := slices.DeleteFunc(slices.Clone(t.cuts), func(before extent.Cut) bool {
		return c.Kept && before.Kept && before.Logs == c.Logs && before.Before <= c.Before && (before.Lazy || !c.Lazy)
	})
	size := c.Size()
	for _, before := range cuts {
		size += before.Size()
	}
	if len(cuts) >= MaxCuts || size > MaxCutsBytes || record <= t.NewestCut().Record {
		return t, fmt.Errorf("%w: a cut by record %d after %d of them with %d bytes, the last by record %d", ErrInvalid,
			record, len(cuts), size, t.NewestCut().Record)
	}
	return Tree{t.runs, append(cuts, c)}, nil
}

// Kept returns the cuts of what a policy does not keep any longer of some logs: the newest lazy one and the newest
// other; the zero Cut where there is none.
func (t Tree) Kept(logs string) (lazy, eager extent.Cut) {
	for _, c := range t.cuts {
		switch {
		case !c.Kept || c.Logs != logs:
		case c.Lazy:
			lazy = c
		default:
			eager = c
		}
	}
	return lazy, eager
}

// Newest returns the time of the newest entry, Unix nanoseconds; 0 without any.
func (t Tree) Newest() (at int64) {
	for _, r := range t.runs {
		for _, s := range r.Segments {
			at = max(at, s.MaxTime)
		}
	}
	return at
}

// Settle returns the tree without the cuts of which nothing can show up any more: all that they may cut is archived or
// was stepped over, since it is not above the floor, no live segment has any of it, and they were made long ago.
func (t Tree) Settle(floor uint64, now time.Time) Tree {
	old := now.Add(-cutLife).UnixNano()
	over := func(c extent.Cut) bool {
		return c.Made < old && c.UpTo <= floor && !slices.ContainsFunc(t.runs, func(r Run) bool {
			return slices.ContainsFunc(r.Segments, func(s extent.Summary) bool { return r.mayHave(s, c) })
		})
	}
	if !slices.ContainsFunc(t.cuts, over) {
		return t
	}
	return Tree{t.runs, slices.DeleteFunc(slices.Clone(t.cuts), over)}
}

// mayHave reports whether the object of one of the run's segments may have entries that are cut, those included that
// are no part of the archive. A segment that was committed after the cut has none: its owner had removed them from the
// buffer. Only what was refused in it may be. What is kept no longer stays in the buffer.
func (r Run) mayHave(s extent.Summary, c extent.Cut) bool {
	if s.Cut >= c.Record {
		return false
	}
	return (c.Kept || !r.Fresh() || r.Newest < c.Record) && c.MayTouch(s) || slices.ContainsFunc(s.Refused, c.Covers)
}

// Uncut is a live segment whose object may have entries that are cut.
type Uncut struct {
	Segment extent.Summary
	Whole   bool // nothing of it is left: it can be dropped unread
}

// Uncut yields the segments that are to be written anew since they may have something of a cut. For a lazy one alone
// only those that can be dropped.
func (t Tree) Uncut() func(yield func(Uncut) bool) {
	return func(yield func(Uncut) bool) {
		if len(t.cuts) == 0 {
			return
		}
		for _, r := range t.runs {
			for _, s := range r.Segments {
				touched, whole := false, false
				for _, c := range t.cuts {
					if has := r.mayHave(s, c); has && (!c.Lazy || c.Whole(s)) {
						touched, whole = true, whole || c.Whole(s)
					}
				}
				if touched && !yield(Uncut{s, whole}) {
					return
				}
			}
		}
	}
}

// Left returns how many live segments may have something of one cut, and the bytes of their objects.
func (t Tree) Left(c extent.Cut) (segments, bytes uint64) {
	for _, r := range t.runs {
		for _, s := range r.Segments {
			if r.mayHave(s, c) {
				segments++
				bytes += s.Object.Size
			}
		}
	}
	return segments, bytes
}

// Touching returns the cuts that may leave something out of segments, and the record of the newest of all cuts: what is
// written without what they cut is written under that.
func (t Tree) Touching(segments []extent.Summary) (cuts extent.Cuts, newest uint64) {
	for _, c := range t.cuts {
		if slices.ContainsFunc(segments, func(s extent.Summary) bool { return s.Cut < c.Record && c.MayTouch(s) }) {
			cuts = append(cuts, c)
		}
	}
	return cuts, t.NewestCut().Record
}

// rewrite puts one segment, or nothing, in the place of another one, wherever that is in the tree.
func (t Tree) rewrite(key string, outputs []extent.Summary) (Tree, []extent.Summary, error) {
	if len(outputs) > 1 {
		return t, nil, fmt.Errorf("%w: %d segments for one", ErrInvalid, len(outputs))
	}
	for i, r := range t.runs {
		n := slices.IndexFunc(r.Segments, func(s extent.Summary) bool { return s.Object.Key == key })
		if n < 0 {
			continue
		}
		if len(outputs) > 0 && t.Has(outputs[0].Object.Key) {
			return t, nil, fmt.Errorf("%w: segment %s is live already", ErrInvalid, outputs[0].Object.Key)
		}
		was := r.Segments[n]
		r.Segments = slices.Replace(slices.Clone(r.Segments), n, n+1, outputs...)
		runs := slices.Clone(t.runs)
		if len(r.Segments) == 0 {
			return Tree{slices.Delete(runs, i, i+1), t.cuts}, []extent.Summary{was}, nil
		}
		if err := r.validate(); err != nil {
			return t, nil, err
		}
		runs[i] = r
		return Tree{runs, t.cuts}, []extent.Summary{was}, nil
	}
	return t, nil, fmt.Errorf("%w: segment %s", ErrNotLive, key)
}
