package rebuild

import (
	"cmp"
	"context"
	"slices"

	"dormouse/internal/extent"
	"dormouse/store/contents"
)

// plan says which nodes come on top of which runs of the checkpoint's tree.
type plan struct {
	runs  int    // oldest ones that stay
	steps []step // on top of those
}

// plan compares what is younger than the checkpoint with its tree, and with itself, by tables of contents only.
//
// Commits of a log ascend, and a merge changes nothing of that. So what was committed after the checkpoint is above all
// that its tree has of the log, and an entry that is not above was never committed: it is left out. The exception is
// what merges have made of segments that are gone: it may belong below runs that are there still. Then these are taken
// off the tree and placed anew as well.
func (s *shard) plan(ctx context.Context) (p plan, err error) {
	if p.runs, err = s.stay(ctx); err != nil {
		return p, err
	}
	nodes := slices.Clone(s.young)
	for _, run := range s.kept.Runs()[p.runs:] {
		nodes = append(nodes, &node{segments: run.Segments, ofTree: true})
	}
	if err := s.relate(ctx, p.runs, nodes); err != nil {
		return p, err
	}
	p.steps = inOrder(slices.DeleteFunc(nodes, func(n *node) bool { return !n.adds }))
	return p, nil
}

// stay returns how many of the oldest runs stay: those below which nothing belongs that is younger.
func (s *shard) stay(ctx context.Context) (runs int, err error) {
	runs = len(s.kept.Runs())
	if len(s.gone) == 0 || len(s.young) == 0 {
		return runs, nil
	}
	err = s.walk(ctx, runs, s.young, "what merges have replaced", func(log string, of []found) {
		for _, y := range of {
			if y.node == nil {
				continue
			}
			for _, g := range s.gone {
				if !g.mayHave(y.Extent) || y.Last <= last(of, g.above) {
					continue
				}
				for _, t := range of {
					if t.node == nil && t.run >= g.above && t.Last >= y.First {
						runs = min(runs, t.run)
					}
				}
			}
		}
	})
	return runs, err
}

// last returns the highest sequence that the oldest runs have of a log; 0 without any.
func last(of []found, runs int) (seq uint64) {
	for _, f := range of {
		if f.node == nil && f.run < runs {
			seq = max(seq, f.Last)
		}
	}
	return seq
}

// relate finds out what nodes add to the oldest runs, which of them have to be written anew, and what comes before
// what.
func (s *shard) relate(ctx context.Context, runs int, nodes []*node) error {
	for _, n := range nodes {
		n.adds, n.anew, n.older = false, false, make(map[*node]bool)
	}
	cuts := s.kept.Cuts()
	return s.walk(ctx, runs, nodes, "what is where", func(log string, of []found) {
		floor := last(of, runs)
		var adding []found
		for _, f := range of {
			if f.node == nil {
				continue
			}
			whole, none := cuts.Split(f.Extent)
			if !whole || f.First <= floor {
				f.node.anew = true // if it adds anything
			}
			if !none && f.Last > floor {
				f.node.adds = true
				adding = append(adding, f)
			}
		}
		chain(adding)
	})
}

// chain relates the nodes that have extents of one log: those that overlap are written anew, the others are in order.
func chain(of []found) {
	slices.SortFunc(of, func(a, b found) int { return cmp.Compare(a.First, b.First) })
	var before, now []*node
	var end uint64
	for _, f := range of {
		if f.First > end {
			before, now = now, nil
		} else if len(now) > 0 && (now[0] != f.node || len(now) > 1) {
			for _, n := range append(now, f.node) {
				n.anew = true
			}
		}
		for _, b := range before {
			if b != f.node {
				f.node.older[b] = true
			}
		}
		now, end = append(now, f.node), max(end, f.Last)
	}
}

// found is an extent of a log: of a node, or of one of the oldest runs.
type found struct {
	extent.Extent
	node *node
	run  int
}

// walk calls fn for each log of nodes, ascending, with all extents that they and the oldest runs have of it.
func (s *shard) walk(ctx context.Context, runs int, nodes []*node, what string,
	fn func(log string, of []found)) error {
	if len(nodes) == 0 {
		return nil
	}
	owners := make(map[string]found)
	var pieces []extent.Piece
	first, end := "", ""
	for i, n := range nodes {
		for _, seg := range n.segments {
			owners[seg.Object.Key] = found{node: n}
			// Level and Newest make one lane of the node's segments.
			pieces = append(pieces, extent.Piece{Segment: seg, Level: 1, Newest: uint64(i) + 1})
			if first == "" || seg.First < first {
				first = seg.First
			}
			end = max(end, seg.Last+"\x00")
		}
	}
	pieces = append(pieces, s.pieces(runs, first, end, owners)...)
	var logs uint64
	for log, err := range contents.Gather(ctx, s, pieces, first, end) {
		if err != nil {
			return err
		}
		var of []found
		for _, l := range log.Extents {
			f := owners[l.Segment.Key]
			f.Extent = l.Extent
			of = append(of, f)
		}
		fn(log.Log, of)
		if logs++; logs%tellEvery == 0 {
			s.tell.progress("shard "+s.ID.String()+": comparing "+what, logs, 0)
		}
	}
	return nil
}

// tellEvery is how many logs or entries go by between two reports of progress.
const tellEvery = 4096

// pieces returns the segments of the oldest runs that can have entries as young as those of younger segments, and notes
// in owners of which run they are.
func (s *shard) pieces(runs int, first, end string, owners map[string]found) (pieces []extent.Piece) {
	oldest := s.kept.Oldest(runs)
	of := make(map[string]int)
	for i, run := range oldest.Runs() {
		for _, seg := range run.Segments {
			of[seg.Object.Key] = i
		}
	}
	for p := range oldest.Overlapping(first, end) {
		if !s.reaches(p.Segment) {
			continue
		}
		owners[p.Segment.Object.Key] = found{run: of[p.Segment.Object.Key]}
		// Nodes have the level 1; only neighbours of one run are a lane.
		p.Level, p.Newest = 2, uint64(of[p.Segment.Object.Key])
		pieces = append(pieces, p)
	}
	return pieces
}
