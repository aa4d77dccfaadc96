package rebuild

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"dormouse/internal/extent"
	"dormouse/store/alone"
	"dormouse/store/bucket"
	"dormouse/store/contents"
	"dormouse/store/segment"
	"dormouse/store/tree"
)

// readAtOnce is how many tables of contents are read at a time.
const readAtOnce = 8

// shard is one that is made out of what the bucket has of it.
type shard struct {
	alone.Shard
	bucket  Bucket
	tell    Tell
	damaged map[string]error // objects that cannot be read, by key
	met     []string         // their keys, in the order in which they were met

	kept    tree.Tree // what of the checkpoint's tree stays
	gone    []gone    // of that, what is not there
	young   []*node   // what is there besides
	lowest  uint64    // sequence of young; entries below it are in kept only
	highest uint64    // sequence that was ever seen of the shard
	size    uint64    // of the checkpoint that was put
	most    int       // nodes that are compared at a time; 0 is mostNodes
}

// gone is a segment of the checkpoint's tree that is not there any more.
type gone struct {
	extent.Summary
	above int  // so many of the runs that are kept are older than its run
	lost  bool // no merge has replaced it
}

// mayHave reports whether the segment may have had something of an extent.
func (g gone) mayHave(e extent.Extent) bool {
	return g.MayHold(e.Log) && e.Last >= g.MinSeq && e.First <= g.MaxSeq
}

// look reads the tables of contents of what the checkpoint has not, and of what of it reaches as far. Objects that
// cannot be read are damaged, and left out.
func (s *shard) look(ctx context.Context) error {
	s.young, s.lowest, s.highest = nil, 0, s.Tree.Ever()
	summaries, err := s.summaries(ctx, s.Since, "what is younger than the checkpoint")
	if err != nil {
		return err
	}
	for _, sum := range summaries {
		s.highest = max(s.highest, sum.MaxSeq)
		if s.lowest == 0 || sum.MinSeq < s.lowest {
			s.lowest = sum.MinSeq
		}
		s.young = append(s.young, &node{segments: []extent.Summary{sum}})
	}
	missing := make(map[string]bool)
	for _, g := range s.Gone {
		missing[g.Object.Key] = true
	}
	var reached []extent.Segment
	for p := range s.Tree.Overlapping("", "") {
		if s.reaches(p.Segment) && !missing[p.Segment.Object.Key] {
			reached = append(reached, p.Segment.Object)
		}
	}
	if _, err := s.summaries(ctx, reached, "what the checkpoint has"); err != nil {
		return err
	}
	if err := s.drop(missing); err != nil {
		return err
	}
	return s.findLost(ctx)
}

// reaches reports whether a segment of the checkpoint's tree may have the same entries as a younger one.
func (s *shard) reaches(of extent.Summary) bool { return s.lowest > 0 && of.MaxSeq >= s.lowest }

// summaries sums up segments by their tables of contents, without those that are damaged.
func (s *shard) summaries(ctx context.Context, of []extent.Segment, what string) (found []extent.Summary, err error) {
	all := make([]extent.Summary, len(of))
	bad := make([]error, len(of))
	done := make(chan struct{}, len(of))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(readAtOnce)
	for i, object := range of {
		if s.damaged[object.Key] != nil {
			continue
		}
		group.Go(func() (err error) {
			if all[i], err = s.summary(ctx, object); isDamage(err) {
				bad[i], err = err, nil
			}
			done <- struct{}{}
			s.tell.progress("shard "+s.ID.String()+": reading "+what, uint64(len(done)), uint64(len(of)))
			return err
		})
	}
	err = group.Wait()
	for i, sum := range all {
		if bad[i] != nil {
			s.note(of[i].Key, bad[i])
		} else if sum.Logs > 0 {
			found = append(found, sum)
		}
	}
	return found, err
}

// note notes that an object is damaged.
func (s *shard) note(key string, err error) {
	s.damaged[key] = err
	s.met = append(s.met, key)
}

// isDamage reports whether an object will not be read however often it is tried.
func isDamage(err error) bool {
	return errors.Is(err, segment.ErrCorrupt) || errors.Is(err, bucket.ErrNotFound)
}

// summary sums up what a table of contents has, a block of it in memory at a time.
func (s *shard) summary(ctx context.Context, object extent.Segment) (sum extent.Summary, err error) {
	r, err := s.Open(ctx, object)
	if err != nil {
		return sum, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	table, err := r.Table(ctx, "", "")
	if err != nil {
		return sum, err
	}
	defer func() { err = errors.Join(err, table.Close()) }()
	for {
		e, ok, err := table.Next()
		switch {
		case err != nil:
			return sum, err
		case !ok && sum.Logs == 0:
			return sum, fmt.Errorf("%w: %s: it has no log", segment.ErrCorrupt, object.Key)
		case !ok:
			return sum, nil
		case sum.Logs == 0:
			sum = extent.Summarize(object, []extent.Extent{e})
		default:
			sum.Add(e)
		}
	}
}

// drop takes what is missing, or damaged, out of the checkpoint's tree.
func (s *shard) drop(missing map[string]bool) (err error) {
	s.kept, s.gone = s.Tree, nil
	older := 0
	for _, run := range s.Tree.Runs() {
		left := 0
		for _, seg := range run.Segments {
			key := seg.Object.Key
			if !missing[key] && s.damaged[key] == nil {
				left++
				continue
			}
			s.gone = append(s.gone, gone{Summary: seg, above: older})
			if s.kept, _, err = s.kept.Replace(tree.Replacement{Inputs: []string{key}}); err != nil {
				return fmt.Errorf("shard %s: %w", s.ID, err)
			}
		}
		if left > 0 {
			older++
		}
	}
	return nil
}

// problems says which objects are missing or damaged, those last that were met last. What a merge has replaced since
// the checkpoint is not missing.
func (s *shard) problems() (all []error) {
	all = append(all, s.Unread...)
	for _, g := range s.gone {
		if s.damaged[g.Object.Key] == nil && g.lost {
			all = append(all, fmt.Errorf("segment %s is missing: it had %d entries of %d logs, from %s to %s",
				g.Object.Key, g.Entries, g.Logs, g.First, g.Last))
		}
	}
	for _, key := range s.met {
		all = append(all, s.damaged[key])
	}
	return all
}

// tally is what younger segments have that may have been in one that is gone.
type tally struct {
	log         string // the last one
	logs        uint64
	first, last bool // that of the gone segment's first log, and of its last
	extent.Total
}

func (t *tally) add(e extent.Extent, g gone) {
	if t.logs == 0 {
		t.Total = extent.Total{MinSeq: e.First, MinTime: e.MinTime, MaxTime: e.MaxTime}
	}
	if t.logs == 0 || e.Log != t.log {
		t.logs++
		t.log = e.Log
	}
	t.first, t.last = t.first || e.Log == g.First, t.last || e.Log == g.Last
	t.Entries += e.Count
	t.Bytes += e.Bytes
	t.MinSeq, t.MaxSeq = min(t.MinSeq, e.First), max(t.MaxSeq, e.Last)
	t.MinTime, t.MaxTime = min(t.MinTime, e.MinTime), max(t.MaxTime, e.MaxTime)
}

// has reports whether that can be all of the gone segment.
func (t *tally) has(g gone) bool {
	return t.logs >= g.Logs && t.first && t.last && t.Entries >= g.Entries && t.Bytes >= g.Bytes &&
		t.MinSeq <= g.MinSeq && t.MaxSeq >= g.MaxSeq && t.MinTime <= g.MinTime && t.MaxTime >= g.MaxTime
}

// findLost finds out which segments that are gone cannot be in what a merge has made. One of which something was cut
// may have been dropped, or be less; of that nobody can say.
func (s *shard) findLost(ctx context.Context) error {
	if len(s.gone) == 0 {
		return nil
	}
	have := make([]tally, len(s.gone))
	err := s.walk(ctx, 0, s.young, "what is gone", func(_ string, of []found) {
		for _, f := range of {
			for i, g := range s.gone {
				if g.mayHave(f.Extent) {
					have[i].add(f.Extent, g)
				}
			}
		}
	})
	for i, g := range s.gone {
		s.gone[i].lost = !have[i].has(g) &&
			!slices.ContainsFunc(s.Tree.Cuts(), func(c extent.Cut) bool { return c.MayTouch(g.Summary) })
	}
	return err
}

// Open implements contents.Opener.
func (s *shard) Open(ctx context.Context, object extent.Segment) (*segment.Reader, error) {
	source, err := s.bucket.Segment(object)
	if err != nil {
		return nil, err
	}
	r, err := segment.Open(ctx, source)
	if err != nil {
		return nil, errors.Join(err, source.Close())
	}
	return r, nil
}

// Done implements contents.Opener.
func (s *shard) Done(_ extent.Segment, r *segment.Reader) error { return r.Close() }

var _ contents.Opener = (*shard)(nil)
