package alone

import (
	"context"
	"fmt"
	"iter"
	"reflect"
	"slices"

	"dormouse/internal/entry"
	"dormouse/internal/extent"
	"dormouse/internal/wire"
	"dormouse/store/client"
	"dormouse/store/contents"
	"dormouse/store/reader"
	"dormouse/store/verify"
)

// Logs yields the logs whose LogID begins with prefix, ascending, with what is archived of each. It streams, and ends
// at the first error.
func (a *Archive) Logs(ctx context.Context, prefix string) iter.Seq2[wire.LogInfo, error] {
	return func(yield func(wire.LogInfo, error) bool) {
		var pieces []extent.Piece
		for _, s := range a.shards { // a log lives in one
			pieces = append(pieces, s.pieces...)
		}
		for log, err := range contents.Gather(ctx, a, pieces, prefix, reader.After(prefix)) {
			log.Extents = a.uncut(log.Extents)
			info := wire.LogInfo{Log: log.Log, Extents: uint64(len(log.Extents))}
			if err == nil {
				info.Archived, err = a.sum(ctx, log.Extents)
			}
			if err == nil && info.Archived.Entries == 0 { // cut
				continue
			}
			if !yield(info, err) || err != nil {
				return
			}
		}
	}
}

// sum sums up a log's extents, of which some may have the same entries: those are read.
func (a *Archive) sum(ctx context.Context, extents []extent.Located) (sum wire.Part, err error) {
	for _, group := range overlapping(extents) {
		if (len(group) == 1 || same(group)) && a.isWhole(group[0]) {
			e := group[0].Extent
			sum = sum.Join(wire.Part{Entries: e.Count, Bytes: e.Bytes, First: e.First, Last: e.Last, MinTime: e.MinTime,
				MaxTime: e.MaxTime})
			continue
		}
		for e, err := range a.entries(ctx, group) {
			if err != nil {
				return sum, err
			}
			at := e.Time.UnixNano()
			sum = sum.Join(wire.Part{Entries: 1, Bytes: uint64(entry.Size(e.Headers, e.Data)), First: e.Seq, Last: e.Seq,
				MinTime: at, MaxTime: at})
		}
	}
	return sum, nil
}

// isWhole reports whether nothing is cut of an extent.
func (a *Archive) isWhole(l extent.Located) bool {
	whole, _ := a.cuts(l.Segment).Split(l.Extent)
	return whole
}

// same reports whether extents that overlap are one that is in several segments.
func same(group []extent.Located) bool {
	return !slices.ContainsFunc(group, func(l extent.Located) bool { return l.Extent != group[0].Extent })
}

// Log returns what is archived of one log. The error wraps client.ErrNoLog when no segment has it.
func (a *Archive) Log(ctx context.Context, log string) (info wire.LogInfo, err error) {
	extents, err := a.find(ctx, log)
	if err == nil && len(extents) == 0 {
		err = fmt.Errorf("%w in the archive: %s", client.ErrNoLog, log)
	}
	if err != nil {
		return info, err
	}
	info = wire.LogInfo{Log: log, Extents: uint64(len(extents))}
	if info.Archived, err = a.sum(ctx, extents); err == nil && info.Archived.Entries == 0 {
		err = fmt.Errorf("%w in the archive: %s", client.ErrNoLog, log)
	}
	return info, err
}

// Verify reads every segment that may be part of the archive, or those that have a log, and compares what it holds with
// its table of contents, and with the checkpoint if that has the segment. What is wrong goes to bad; progress is told
// of segments, and may be nil.
func (a *Archive) Verify(ctx context.Context, log string, bad func(error), progress func(done, total uint64)) (
	r verify.Report, err error) {
	var pieces []extent.Piece
	known := make(map[string]bool)
	for _, s := range a.shards {
		for i, p := range s.pieces {
			if log != "" && !p.Segment.MayHold(log) {
				continue
			}
			known[p.Segment.Object.Key] = i < s.known
			pieces = append(pieces, p)
		}
	}
	for i, p := range pieces {
		holds, err := a.verify(ctx, p.Segment, known[p.Segment.Object.Key])
		if ctx.Err() != nil {
			return r, ctx.Err()
		}
		if err != nil {
			r.Bad++
			bad(fmt.Errorf("segment %s: %w", p.Segment.Object.Key, err))
		}
		r.Segments++
		for _, e := range holds {
			if log == "" || e.Log == log {
				r.Extents++
				r.Entries += e.Count
			}
		}
		if progress != nil {
			progress(uint64(i+1), uint64(len(pieces)))
		}
	}
	if log != "" && r.Extents == 0 && r.Bad == 0 {
		return r, fmt.Errorf("%w in the archive: %s", client.ErrNoLog, log)
	}
	return r, nil
}

// verify reads one segment and returns what it holds of the archive.
func (a *Archive) verify(ctx context.Context, s extent.Summary, known bool) ([]extent.Extent, error) {
	opened, err := a.Open(ctx, s.Object)
	if err != nil {
		return nil, err
	}
	holds, err := opened.Verify(ctx, nil)
	if cerr := opened.Close(); err == nil {
		err = cerr
	}
	if err != nil || !known {
		return holds, err
	}
	holds = slices.DeleteFunc(holds, func(e extent.Extent) bool { return !s.MayHold(e.Log) })
	if len(holds) == 0 {
		return nil, fmt.Errorf("it has nothing of what the checkpoint has of it")
	}
	have := extent.Summarize(s.Object, holds)
	if have.Refused, have.Cut = s.Refused, s.Cut; !reflect.DeepEqual(have, s) {
		return nil, fmt.Errorf("it has %d logs with %d entries from %d to %d, and the checkpoint has %d with %d from %d to "+
			"%d of it", have.Logs, have.Entries, have.MinSeq, have.MaxSeq, s.Logs, s.Entries, s.MinSeq, s.MaxSeq)
	}
	return holds, nil
}
