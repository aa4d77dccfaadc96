package tree

import (
	"fmt"
	"testing"

	"dormouse/internal/extent"
)

// simulation is a shard on which a segment is committed each second, and merges take no time. A run is as many original
// segments as it was made of.
type simulation struct {
	tree    Tree
	record  uint64
	sizes   map[string]uint64
	written uint64 // original segments that merges have written
	fresh   int    // most
	runs    int    // most
}

func (s *simulation) second(t *testing.T) {
	t.Helper()
	s.record++
	key := fmt.Sprint(s.record)
	s.sizes[key] = 1
	s.become(t)(s.tree.Commit(s.record, []extent.Summary{segmentOf(key, s.record, s.record)}))
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
	var sum, last uint64
	for _, key := range Inputs(runs) {
		sum += s.sizes[key]
		delete(s.sizes, key)
	}
	last = runs[len(runs)-1].Segments[0].MaxSeq
	key := fmt.Sprintf("%d of %d", sum, last)
	s.sizes[key] = sum
	s.written += sum
	next, _, err := s.tree.Replace(Replacement{Inputs: Inputs(runs), Outputs: []extent.Summary{
		segmentOf(key, runs[0].Segments[0].MinSeq, last)}})
	s.become(t)(next, err)
}

func segmentOf(key string, first, last uint64) extent.Summary {
	return extent.Summarize(extent.Segment{Key: key, Size: 1},
		[]extent.Extent{{Log: "a.a", First: first, Last: last, Count: last - first + 1}})
}

// TestWriteAmplification: with a segment each second, over a day and a month, each is written again at most four times,
// and the runs stay few.
func TestWriteAmplification(t *testing.T) {
	s := &simulation{sizes: make(map[string]uint64)}
	days := uint64(30)
	if testing.Short() {
		days = 3
	}
	for day := range days {
		for range 86_400 {
			s.second(t)
		}
		amplification := float64(s.written) / float64(s.record)
		if day == 0 || day == days-1 {
			t.Logf("after %d days: write amplification %.2f; at most %d fresh segments and %d runs", day+1, amplification,
				s.fresh, s.runs)
		}
		if amplification > 4 {
			t.Fatalf("after %d days each segment was written again %.2f times", day+1, amplification)
		}
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
	if plans := live.Plan(limits, false, func(uint8) bool { return true }); len(plans) > 0 {
		t.Errorf("one is under way, and planned %+v", plans)
	}
	few := Tree{live.Runs()[:2]}
	if plans := few.Plan(limits, false, none); len(plans) > 0 {
		t.Errorf("two are planned %+v", plans)
	}
	if plans := few.Plan(limits, true, none); len(plans) != 1 || len(plans[0]) != 2 {
		t.Errorf("at rest are planned %+v", plans)
	}
	if plans := (Tree{live.Runs()[:1]}).Plan(limits, true, none); len(plans) > 0 {
		t.Errorf("one alone is planned %+v", plans)
	}
}
