// Package tree says which segments of a shard are live, in which order they are read, and which of them are to be
// merged. It is pure: it knows neither the bucket nor the manifest, and starts nothing.
//
// A tree is a list of runs, from the oldest to the newest. The segments of a run do not overlap, and are ascending; a
// segment that was just committed is a run of its own, which is called fresh. Commits of a log come in the order of its
// sequences, and a merge puts one run in the place of neighbours in age. So the runs hold the entries of any log in
// ascending order, and a read is a concatenation of one segment of each, or of neighbours of a run if the log is large.
// This is a log-structured merge tree (O'Neil et al. 1996) that is tiered by the number of runs.
//
// Open plan.go for what is merged when, store/manifest for the records that a tree is made of.
package tree

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"
	"strings"

	"dormouse/internal/extent"
)

// ErrInvalid is wrapped by what Validate and the changes of a tree return for what cannot be.
var ErrInvalid = errors.New("no tree of segments")

// Run is segments of one span of age, ascending. Two neighbours may share one log, which then ends in the second; the
// sequences of that log ascend from the one to the other.
type Run struct {
	Level    uint8            `cbor:"1,keyasint,omitempty"` // 0: fresh; else how often the newest of it was merged
	Newest   uint64           `cbor:"2,keyasint"`           // manifest record that committed the newest of it
	Segments []extent.Summary `cbor:"3,keyasint"`
}

// Fresh reports whether the run is one segment as it was committed.
func (r Run) Fresh() bool { return r.Level == 0 }

// Bytes returns how large the run's objects are.
func (r Run) Bytes() (n uint64) {
	for _, s := range r.Segments {
		n += s.Object.Size
	}
	return n
}

func (r Run) validate() error {
	if len(r.Segments) == 0 || r.Newest == 0 || r.Fresh() && len(r.Segments) > 1 {
		return fmt.Errorf("%w: a run of level %d up to record %d has %d segments", ErrInvalid, r.Level, r.Newest,
			len(r.Segments))
	}
	for i, s := range r.Segments {
		if err := s.Validate(); err != nil {
			return fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		if i > 0 && s.First < r.Segments[i-1].Last {
			return fmt.Errorf("%w: segment %s begins at %q, the one before it ends at %q", ErrInvalid, s.Object.Key, s.First,
				r.Segments[i-1].Last)
		}
		if !r.Fresh() && len(s.Refused) > 0 {
			return fmt.Errorf("%w: merged segment %s with refused logs", ErrInvalid, s.Object.Key)
		}
	}
	return nil
}

// Tree is the live segments of a shard. It does not change: what changes it returns another one, and whoever holds a
// tree may go on reading it. The zero Tree is empty.
//
// Invariant: the runs' Newest and, backwards, their levels never fall from one run to the next; no key occurs twice.
type Tree struct {
	runs []Run
	cuts extent.Cuts // see cuts.go
}

// Runs returns the runs, oldest first. They are not to be changed.
func (t Tree) Runs() []Run { return t.runs }

// Fresh returns how many runs are fresh.
func (t Tree) Fresh() (n int) {
	for i := len(t.runs) - 1; i >= 0 && t.runs[i].Fresh(); i-- {
		n++
	}
	return n
}

// Segments returns how many segments are live, and the bytes of their objects.
func (t Tree) Segments() (count, bytes uint64) {
	for _, r := range t.runs {
		count += uint64(len(r.Segments))
		bytes += r.Bytes()
	}
	return count, bytes
}

// Highest returns the highest sequence in the tree, 0 without any.
func (t Tree) Highest() (seq uint64) {
	for _, r := range t.runs {
		for _, s := range r.Segments {
			seq = max(seq, s.MaxSeq)
		}
	}
	return seq
}

// Commit returns the tree with segments that a manifest record has committed, none of which shares a log with another
// one of them.
func (t Tree) Commit(record uint64, segments []extent.Summary) (Tree, error) {
	if n := len(t.runs); n > 0 && record <= t.runs[n-1].Newest {
		return t, fmt.Errorf("%w: record %d after record %d", ErrInvalid, record, t.runs[n-1].Newest)
	}
	runs := slices.Grow(slices.Clone(t.runs), len(segments))
	for _, s := range segments {
		run := Run{Newest: record, Segments: []extent.Summary{s}}
		if err := run.validate(); err != nil {
			return t, err
		}
		runs = append(runs, run)
	}
	return Tree{runs, t.cuts}, nil
}

// ErrNotLive is wrapped by what Replace returns when the inputs are not live, or no neighbours: somebody else has
// merged them.
var ErrNotLive = errors.New("what was merged is not live any more")

// Replacement puts the outputs of a merge, ascending and not overlapping, in the place of the runs that Inputs are.
type Replacement struct {
	Inputs  []string         `cbor:"1,keyasint"` // keys of all segments of neighbours in age, oldest run first
	Outputs []extent.Summary `cbor:"2,keyasint"` // none when all that was merged is cut; none of them is live already
}

// Replace returns the tree with the outputs of a merge in the place of its inputs, and those. A single input is written
// anew, or dropped, in its place, and has one output at most. The error wraps ErrNotLive when these are not live
// neighbours, and ErrInvalid when the outputs, or their place, cannot be.
func (t Tree) Replace(r Replacement) (Tree, []extent.Summary, error) {
	if len(r.Inputs) == 1 {
		return t.rewrite(r.Inputs[0], r.Outputs)
	}
	from, to, err := t.find(r.Inputs)
	if err != nil {
		return t, nil, err
	}
	var inputs []extent.Summary
	merged := Run{Newest: t.runs[to-1].Newest, Segments: r.Outputs}
	for _, run := range t.runs[from:to] {
		inputs = append(inputs, run.Segments...)
		merged.Level = max(merged.Level, min(run.Level, math.MaxUint8-1)+1)
	}
	if from > 0 && t.runs[from-1].Level < merged.Level {
		return t, nil, fmt.Errorf("%w: older runs are of level %d, these would be of %d", ErrInvalid, t.runs[from-1].Level,
			merged.Level)
	}
	for _, s := range r.Outputs {
		if t.Has(s.Object.Key) { // also as an input, whose object is deleted later on
			return t, nil, fmt.Errorf("%w: segment %s is live already", ErrInvalid, s.Object.Key)
		}
	}
	runs := slices.Clone(t.runs[:from])
	if len(r.Outputs) > 0 {
		if err := merged.validate(); err != nil {
			return t, nil, err
		}
		runs = append(runs, merged)
	}
	return Tree{append(runs, t.runs[to:]...), t.cuts}, inputs, nil
}

// find returns the runs whose segments the keys are, all of them and in order.
func (t Tree) find(keys []string) (from, to int, err error) {
	if len(keys) == 0 {
		return 0, 0, fmt.Errorf("%w: nothing", ErrNotLive)
	}
	from = slices.IndexFunc(t.runs, func(r Run) bool { return r.Segments[0].Object.Key == keys[0] })
	if from < 0 {
		return 0, 0, fmt.Errorf("%w: segment %s", ErrNotLive, keys[0])
	}
	for to = from; len(keys) > 0; to++ {
		if to == len(t.runs) || len(t.runs[to].Segments) > len(keys) {
			return 0, 0, fmt.Errorf("%w: they are not whole neighbours from segment %s on", ErrNotLive, keys[0])
		}
		for i, s := range t.runs[to].Segments {
			if s.Object.Key != keys[i] {
				return 0, 0, fmt.Errorf("%w: segment %s where %s was", ErrNotLive, s.Object.Key, keys[i])
			}
		}
		keys = keys[len(t.runs[to].Segments):]
	}
	return from, to, nil
}

// Has reports whether a segment is live.
func (t Tree) Has(key string) bool {
	for _, r := range t.runs {
		for _, s := range r.Segments {
			if s.Object.Key == key {
				return true
			}
		}
	}
	return false
}

// ForLog yields the segments that can have entries of a log above a sequence, in the order in which they are read. Runs
// of which nothing is newer than the manifest record since are left out.
func (t Tree) ForLog(log string, after, since uint64) func(yield func(extent.Piece) bool) {
	return func(yield func(extent.Piece) bool) {
		from := sort.Search(len(t.runs), func(i int) bool { return t.runs[i].Newest > since })
		for _, r := range t.runs[from:] {
			at, _ := slices.BinarySearchFunc(r.Segments, log, func(s extent.Summary, log string) int {
				return strings.Compare(s.Last, log)
			})
			for _, s := range r.Segments[at:] {
				if s.First > log {
					break
				}
				if s.MaxSeq > after && s.MayHold(log) && !yield(extent.Piece{Segment: s, Newest: r.Newest, Level: r.Level}) {
					return
				}
			}
		}
	}
}

// Overlapping yields the segments that can have logs which are not below from and, unless to is empty, below to, in the
// order in which they are read.
func (t Tree) Overlapping(from, to string) func(yield func(extent.Piece) bool) {
	return func(yield func(extent.Piece) bool) {
		for _, r := range t.runs {
			at, _ := slices.BinarySearchFunc(r.Segments, from, func(s extent.Summary, log string) int {
				return strings.Compare(s.Last, log)
			})
			for _, s := range r.Segments[at:] {
				if !s.Overlaps(from, to) {
					break
				}
				if !yield(extent.Piece{Segment: s, Newest: r.Newest, Level: r.Level}) {
					return
				}
			}
		}
	}
}
