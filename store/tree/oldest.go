package tree

import (
	"math"
	"slices"
)

// Oldest returns the tree with its n oldest runs only, and with all of its cuts.
func (t Tree) Oldest(n int) Tree { return Tree{slices.Clone(t.runs[:n]), t.cuts} }

// Record returns the newest manifest record that the tree knows of: what is committed to it, or cut, comes after it.
func (t Tree) Record() (record uint64) {
	record = t.NewestCut().Record
	for _, r := range t.runs {
		record = max(record, r.Newest)
		for _, s := range r.Segments {
			record = max(record, s.Cut)
		}
	}
	return record
}

// Ever returns the highest sequence that the tree knows of, be it archived or cut: what is published later has to be
// above it. A cut of all sequences tells nothing.
func (t Tree) Ever() uint64 {
	seq := t.Highest()
	for _, c := range t.cuts {
		if c.UpTo < math.MaxUint64 {
			seq = max(seq, c.UpTo)
		}
	}
	return seq
}
