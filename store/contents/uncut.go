package contents

import (
	"context"
	"errors"
	"math"

	"dormouse/internal/entry"
	"dormouse/internal/extent"
)

// Uncut returns what cuts leave of a log's extents. One of which a part is cut is read: its table of contents does not
// tell.
func Uncut(ctx context.Context, open Opener, cuts extent.Cuts, extents []extent.Located) (left []extent.Located,
	err error) {
	for _, l := range extents {
		whole, none := cuts.Split(l.Extent)
		if !whole && !none {
			if l.Extent, err = uncut(ctx, open, cuts, l); err != nil {
				return nil, err
			}
			none = l.Extent.Count == 0
		}
		if !none {
			left = append(left, l)
		}
	}
	return left, nil
}

// uncut reads the entries of an extent and sums up those that are not cut; the zero Extent without any.
func uncut(ctx context.Context, open Opener, cuts extent.Cuts, l extent.Located) (left extent.Extent, err error) {
	r, err := open.Open(ctx, l.Segment)
	if err != nil {
		return left, err
	}
	err = r.Scan(ctx, l.Extent.Log, 0, math.MaxUint64, func(e entry.Entry) error {
		if !cuts.Have(e.Log, e.Seq, e.Time.UnixNano()) {
			left.Log = e.Log
			left.Add(e.Seq, e.Time, entry.Size(e.Headers, e.Data))
		}
		return nil
	})
	return left, errors.Join(err, open.Done(l.Segment, r))
}
