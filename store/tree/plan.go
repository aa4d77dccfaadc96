package tree

import "dormouse/internal/wire"

// Limits say when neighbours are merged. More runs of a level mean less that is written again, and more runs that a
// read opens.
type Limits struct {
	Fresh int // so many fresh segments are merged
	// Runs of level n, from 1 on, of which so many are merged: Runs[n-1], or the last one for all higher levels.
	Runs []int
	// Most segments that one merge reads, unless there are but two runs: its memory is a buffer for each run, and its work
	// is lost if it is given up. Two runs with more than wire.MaxMergeInputs are not merged, as no worker does it.
	Inputs int
	Bytes  uint64 // most bytes of objects that one merge reads, unless there are but two runs
}

// Defaults are the limits of a shard. Runs of the levels hold 24, 192, 3,072 and 98,304 fresh segments: with an object
// each second an hour is one run, and a month some tens, each entry being written again at most four times. With eight
// runs of each level there would be fewer runs, and an entry would be written again six times (TestWriteAmplification).
var Defaults = Limits{Fresh: 24, Runs: []int{8, 16, 32}, Inputs: 64, Bytes: 8 << 30}

// Plan returns the runs that are to be merged, neighbours in age and oldest first, at most one merge for each level and
// the lowest level first. Levels that skip names are left alone: a merge of them is under way. With rest the shard has
// rested for a while: fresh segments are merged if there are two.
func (t Tree) Plan(l Limits, rest bool, skip func(level uint8) bool) (plans [][]Run) {
	for end := len(t.runs); end > 0; {
		level, from := t.runs[end-1].Level, end-1
		for from > 0 && t.runs[from-1].Level == level {
			from--
		}
		if end-from >= l.least(level, rest) && !skip(level) {
			if plan := l.bounded(t.runs[from:end]); len(plan) > 1 {
				plans = append(plans, plan)
			}
		}
		end = from
	}
	return plans
}

// least is how many runs of a level are merged.
func (l Limits) least(level uint8, rest bool) int {
	switch {
	case level == 0 && rest:
		return 2
	case level == 0:
		return l.Fresh
	}
	return l.Runs[min(int(level), len(l.Runs))-1]
}

// bounded returns the oldest of neighbours that one merge may read, one alone when two are too many for any merge.
func (l Limits) bounded(runs []Run) []Run {
	var segments int
	var bytes uint64
	for i, r := range runs {
		segments += len(r.Segments)
		bytes += r.Bytes()
		if segments > wire.MaxMergeInputs || i > 1 && (segments > l.Inputs || bytes > l.Bytes) {
			return runs[:i]
		}
	}
	return runs
}

// Inputs returns the keys of all segments of runs, for a Replacement.
func Inputs(runs []Run) (keys []string) {
	for _, r := range runs {
		for _, s := range r.Segments {
			keys = append(keys, s.Object.Key)
		}
	}
	return keys
}
