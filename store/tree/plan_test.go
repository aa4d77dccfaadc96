package tree

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"dormouse/internal/extent"
	"dormouse/internal/wire"
)

// simulation is a shard on which a segment is committed each second, and merges take no time.
type simulation struct {
	tree    Tree
	record  uint64
	seconds uint64
	made    map[string]origin // by merges
	written uint64            // original segments that merges have written
	rewrote int               // most often that one of them was
	fresh   int               // most
	runs    int               // most
}

// origin is what a segment was made of.
type origin struct {
	seconds uint64 // original segments
	merges  int    // most that one of them went through
}

// pass commits the segments of some seconds, and then merges what is to be merged.
func (s *simulation) pass(t *testing.T, seconds int) {
	t.Helper()
	s.record++
	segments := make([]extent.Summary, seconds)
	for i := range segments {
		s.seconds++
		segments[i] = segmentOf(strconv.FormatUint(s.seconds, 10), s.seconds, s.seconds)
	}
	s.become(t)(s.tree.Commit(s.record, segments))
	s.fresh, s.runs = max(s.fresh, s.tree.Fresh()), max(s.runs, len(s.tree.Runs()))
	if s.tree.Fresh() < Defaults.Fresh { // nothing has changed but one more
		return
	}
	for plans := s.plan(); len(plans) > 0; plans = s.plan() {
		for _, runs := range plans {
			s.merge(t, runs)
		}
	}
}

func (s *simulation) plan() [][]Run {
	return s.tree.Plan(Defaults, false, func(uint8) bool { return false })
}

func (s *simulation) become(t *testing.T) func(Tree, error) {
	return func(next Tree, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		s.tree = next
	}
}

func (s *simulation) merge(t *testing.T, runs []Run) {
	t.Helper()
	var output origin
	for _, key := range Inputs(runs) {
		of, ok := s.made[key]
		if !ok {
			of.seconds = 1
		}
		output = origin{output.seconds + of.seconds, max(output.merges, of.merges+1)}
		delete(s.made, key)
	}
	last := runs[len(runs)-1].Segments[0].MaxSeq
	key := fmt.Sprintf("%d of %d", output.seconds, last)
	s.made[key] = output
	s.written, s.rewrote = s.written+output.seconds, max(s.rewrote, output.merges)
	next, _, err := s.tree.Replace(Replacement{Inputs: Inputs(runs), Outputs: []extent.Summary{
		segmentOf(key, runs[0].Segments[0].MinSeq, last)}})
	s.become(t)(next, err)
}

// segmentOf has all sequences from first to last.
func segmentOf(key string, first, last uint64) extent.Summary {
	return extent.Summarize(extent.Segment{Key: key, Size: 1},
		[]extent.Extent{{Log: "a.a", First: first, Last: last, Count: last - first + 1}})
}

// TestWriteAmplification: with a segment each second, over a month, each is written again at most four times, as the
// comment of Defaults says, and the runs stay few. After the first day as many seconds pass at once as a merge waits
// for: nothing happens in between.
func TestWriteAmplification(t *testing.T) {
	s := &simulation{made: make(map[string]origin)}
	const day = 86_400
	days := 30
	if testing.Short() {
		days = 7 // in which runs of the highest level are made
	}
	for n := range days {
		step := 1
		if n > 0 {
			step = Defaults.Fresh
		}
		for range day / step {
			s.pass(t, step)
		}
		if n == 0 || n == days-1 {
			t.Logf("after %d days: write amplification %.2f; %d runs, at most %d, and at most %d fresh segments", n+1,
				float64(s.written)/float64(s.seconds), len(s.tree.Runs()), s.runs, s.fresh)
		}
	}
	if s.seconds != uint64(days)*day || s.rewrote != 4 {
		t.Errorf("after %d segments one was written again %d times, want 4", s.seconds, s.rewrote)
	}
	if s.fresh > 32 || s.runs > 128 {
		t.Errorf("there were %d fresh segments and %d runs", s.fresh, s.runs)
	}
}

// TestPlanBounds: a merge reads no more than its bounds say, but two runs at least; levels that are under way are left
// alone; and at rest two fresh segments are merged.
func TestPlanBounds(t *testing.T) {
	var live Tree
	for i := range uint64(40) {
		s := segmentOf(fmt.Sprint(i+1), i+1, i+1)
		s.Object.Size = 10
		var err error
		if live, err = live.Commit(i+1, []extent.Summary{s}); err != nil {
			t.Fatal(err)
		}
	}
	none := func(uint8) bool { return false }
	limits := Limits{Fresh: 16, Runs: []int{8}, Inputs: 20, Bytes: 1 << 20}
	for name, tc := range map[string]struct {
		change func(*Limits)
		want   int // runs of the one plan; 0: no plan
	}{
		"as it is":                {func(*Limits) {}, 20},
		"all of them":             {func(l *Limits) { l.Inputs = 100 }, 40},
		"few bytes":               {func(l *Limits) { l.Bytes = 35 }, 3},
		"fewer than one has":      {func(l *Limits) { l.Bytes = 5 }, 2},
		"fewer inputs than there": {func(l *Limits) { l.Inputs = 1 }, 2},
		"too few":                 {func(l *Limits) { l.Fresh = 41 }, 0},
	} {
		l := limits
		tc.change(&l)
		plans := live.Plan(l, false, none)
		if got := len(plans); (got > 0) != (tc.want > 0) || got > 0 && len(plans[0]) != tc.want {
			t.Errorf("%s: %d plans, %+v", name, got, plans)
		}
	}
	if runs := live.Plan(limits, false, none)[0]; !slices.Equal(Inputs(runs), Inputs(live.Runs()[:20])) {
		t.Errorf("planned are %v, want the oldest", Inputs(runs))
	}
	few := Tree{runs: live.Runs()[:2]}
	if plans := few.Plan(limits, false, none); len(plans) > 0 {
		t.Errorf("two are planned %+v", plans)
	}
	if plans := few.Plan(limits, true, none); len(plans) != 1 || len(plans[0]) != 2 {
		t.Errorf("at rest are planned %+v", plans)
	}
	if plans := (Tree{runs: live.Runs()[:1]}).Plan(limits, true, none); len(plans) > 0 {
		t.Errorf("one alone is planned %+v", plans)
	}
}

// TestPlanOfLevels: there is a merge for each level that has enough runs, and is not under way, the lowest level first.
func TestPlanOfLevels(t *testing.T) {
	limits := Limits{Fresh: 2, Runs: []int{3, 4}, Inputs: 64, Bytes: 1 << 20}
	var live Tree
	for level, runs := range []int{2, 3, 4, 4} { // from the newest
		for range runs {
			n := uint64(100 - len(live.runs))
			live.runs = append(live.runs, Run{uint8(level), n, []extent.Summary{segmentOf(fmt.Sprint(n), n, n)}})
		}
	}
	slices.Reverse(live.runs)
	if err := live.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		change func()
		skip   []uint8
		want   []uint8
	}{
		"all":                    {func() {}, nil, []uint8{0, 1, 2, 3}},
		"but one under way":      {func() {}, []uint8{1}, []uint8{0, 2, 3}},
		"but all under way":      {func() {}, []uint8{0, 1, 2, 3}, nil},
		"more of the first":      {func() { limits.Runs = []int{4, 4} }, nil, []uint8{0, 2, 3}},
		"more of the others":     {func() { limits.Runs = []int{3, 5} }, nil, []uint8{0, 1}},
		"more fresh, and others": {func() { limits.Fresh, limits.Runs = 3, []int{5} }, nil, nil},
	} {
		was := limits
		tc.change()
		var got []uint8
		for _, runs := range live.Plan(limits, false, func(level uint8) bool { return slices.Contains(tc.skip, level) }) {
			got = append(got, runs[0].Level)
			if one := runs[len(runs)-1].Level; one != runs[0].Level || !strings.Contains(flat(live.runs), flat(runs)) {
				t.Errorf("%s: planned are %+v", name, runs)
			}
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s: planned are levels %v, want %v", name, got, tc.want)
		}
		limits = was
	}
}

// TestPlanOfLargeRuns: two runs are merged however large they are, as long as a worker takes them.
func TestPlanOfLargeRuns(t *testing.T) {
	large := func(name string, record uint64, segments int) Run {
		r := Run{Level: 1, Newest: record}
		for i := range segments {
			s := segmentOf(fmt.Sprintf("%s%d", name, i), record, record)
			s.Object.Size = 1 << 30
			r.Segments = append(r.Segments, s)
		}
		return r
	}
	for segments, want := range map[int]int{wire.MaxMergeInputs / 2: 1, wire.MaxMergeInputs/2 + 1: 0} {
		live := Tree{runs: []Run{large("a", 1, segments), large("b", 2, segments), large("c", 3, segments)}}
		plans := live.Plan(Limits{Fresh: 2, Runs: []int{3}, Inputs: 64, Bytes: 1 << 30}, false,
			func(uint8) bool { return false })
		if len(plans) != want || want > 0 && len(plans[0]) != 2 {
			t.Errorf("of runs of %d segments are planned %d merges, want %d of two", segments, len(plans), want)
		}
	}
}
