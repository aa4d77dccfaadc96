package rebuild

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"dormouse/internal/extent"
	"dormouse/store/contents"
	"dormouse/store/tree"
)

// segmentBytes is the size at which a segment that is written is closed, as with merges.
const segmentBytes = 64 << 20

// Built is what a shard has become.
type Built struct {
	Tree    tree.Tree
	Highest uint64 // sequence that was ever seen of the shard
	Taken   int    // segments that came on top of the checkpoint's tree as they are
	Written int    // segments that were written anew
	Other   uint64 // entries that were left out, for another one of their log and sequence
}

// build makes the shard's tree. What is damaged is left out, and noted; then it begins again.
func (s *shard) build(ctx context.Context) (b Built, err error) {
	for {
		b, err = s.try(ctx)
		damage := damageError{}
		if !errors.As(err, &damage) || s.damaged[damage.key] != nil {
			return b, err
		}
		s.note(damage.key, damage)
		if err := s.look(ctx); err != nil {
			return b, err
		}
	}
}

func (s *shard) try(ctx context.Context) (b Built, err error) {
	if err := s.condense(ctx, cmp.Or(s.most, mostNodes)); err != nil {
		return b, err
	}
	p, err := s.plan(ctx)
	if err != nil {
		return b, err
	}
	b.Tree, b.Highest = s.kept.Oldest(p.runs), s.highest
	record := s.Tree.Record()
	for _, step := range p.steps {
		var segments []extent.Summary
		if step.anew {
			w, err := s.write(ctx, step.nodes, p.runs)
			if err != nil {
				return b, err
			}
			segments = w.outputs
			b.Written, b.Other = b.Written+len(segments), b.Other+w.other
		} else {
			segments = step.nodes[0].segments
			b.Taken += len(segments)
		}
		// Each is a run of its own, since levels must not rise towards the newest: the owner merges them.
		for _, one := range segments {
			record++
			if b.Tree, err = b.Tree.Commit(record, []extent.Summary{one}); err != nil {
				return b, fmt.Errorf("shard %s: %w", s.ID, err)
			}
		}
	}
	if err := b.Tree.Validate(); err != nil {
		return b, fmt.Errorf("shard %s: %w", s.ID, err)
	}
	return b, s.check(ctx, b.Tree)
}

// check reads the tables of contents of what came on top, and of what reaches as far, again: of each log they must
// ascend in the tree's order.
func (s *shard) check(ctx context.Context, t tree.Tree) error {
	var pieces []extent.Piece
	for p := range t.Overlapping("", "") {
		if s.reaches(p.Segment) {
			pieces = append(pieces, p)
		}
	}
	var logs uint64
	for _, err := range contents.Walk(ctx, s, pieces, "", "") {
		if err != nil {
			return fmt.Errorf("shard %s: %w", s.ID, err)
		}
		if logs++; logs%tellEvery == 0 {
			s.tell.progress("shard "+s.ID.String()+": checking", logs, 0)
		}
	}
	return nil
}
