package tree

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"testing"

	"dormouse/internal/extent"
)

// TestReplaceByNothing: when all that was merged is cut the runs are gone.
func TestReplaceByNothing(t *testing.T) {
	m := newModel(1)
	for range 4 {
		if err := m.commit(); err != nil {
			t.Fatal(err)
		}
	}
	first := m.tree.Runs()[:2]
	next, replaced, err := m.tree.Replace(Replacement{Inputs: Inputs(first)})
	if err != nil || len(replaced) != 2 || len(next.Runs()) != len(m.tree.Runs())-2 || next.Validate() != nil {
		t.Errorf("%+v, %v", next, err)
	}
}

// TestOverlapping compares it with a look at each segment.
func TestOverlapping(t *testing.T) {
	for seed := range uint64(200) {
		m := newModel(seed)
		for range 30 {
			if err := m.step(); err != nil {
				t.Fatal(err)
			}
		}
		for _, from := range append([]string{"", "a.ba", "z"}, logs...) {
			for _, to := range append([]string{"", "a.ba", "z"}, logs...) {
				var want, got []string
				for _, r := range m.tree.Runs() {
					for _, s := range r.Segments {
						if s.Last >= from && (to == "" || s.First < to) {
							want = append(want, s.Object.Key)
						}
					}
				}
				for p := range m.tree.Overlapping(from, to) {
					got = append(got, p.Segment.Object.Key)
				}
				if !slices.Equal(got, want) {
					t.Fatalf("seed %d from %q to %q: %v, want %v", seed, from, to, got, want)
				}
			}
		}
	}
}

// TestCommitRefuses what cannot be.
func TestCommitRefuses(t *testing.T) {
	m := newModel(1)
	if err := m.commit(); err != nil {
		t.Fatal(err)
	}
	good := m.tree.Runs()[0].Segments[0]
	bad := good
	bad.Entries = 0
	for name, fn := range map[string]func() (Tree, error){
		"a record of the past": func() (Tree, error) { return m.tree.Commit(m.record, []extent.Summary{good}) },
		"a bad segment":        func() (Tree, error) { return m.tree.Commit(m.record+1, []extent.Summary{bad}) },
		"record 0":             func() (Tree, error) { return Tree{}.Commit(0, []extent.Summary{good}) },
	} {
		if next, err := fn(); !errors.Is(err, ErrInvalid) || !reflect.DeepEqual(next, m.tree) && len(next.Runs()) > 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestReplaceRefuses outputs that cannot be, and a place that cannot.
func TestReplaceRefuses(t *testing.T) {
	m := newModel(1)
	for range 6 {
		if err := m.commit(); err != nil {
			t.Fatal(err)
		}
	}
	runs := m.tree.Runs()
	one := func(log string, first, last uint64) extent.Summary {
		return m.segment(fmt.Sprint(log, first), map[string][]uint64{log: {first, last}})
	}
	live := runs[4].Segments[0]
	live.Refused = nil
	input := runs[0].Segments[0]
	input.Refused = nil
	refused := one("a.a", 1, 2)
	refused.Refused = []string{"a.b"}
	for name, outputs := range map[string][]extent.Summary{
		"that overlap":       {one("a.b", 1, 2), one("a.a", 3, 4)},
		"of no entries":      {{}},
		"with refused logs":  {refused},
		"that are inputs":    {input},
		"that are live":      {live},
		"and a place inside": nil,
	} {
		inputs := Inputs(runs[:2])
		if outputs == nil { // older fresh ones stay before a run of a level
			inputs, outputs = Inputs(runs[2:4]), []extent.Summary{one("a.a", 1, 2)}
		}
		if _, _, err := m.tree.Replace(Replacement{Inputs: inputs, Outputs: outputs}); !errors.Is(err, ErrInvalid) {
			t.Errorf("outputs %s: %v", name, err)
		}
	}
}

// TestLevelsEnd: what was merged as often as a level can say is merged on, and never fresh again.
func TestLevelsEnd(t *testing.T) {
	live := Tree{runs: []Run{
		{Level: math.MaxUint8, Newest: 1, Segments: []extent.Summary{segmentOf("a", 1, 1)}},
		{Level: math.MaxUint8, Newest: 2, Segments: []extent.Summary{segmentOf("b", 2, 2)}},
		{Level: math.MaxUint8, Newest: 3, Segments: []extent.Summary{segmentOf("c", 3, 3)}},
	}}
	next, _, err := live.Replace(Replacement{Inputs: []string{"b", "c"},
		Outputs: []extent.Summary{segmentOf("d", 2, 3)}})
	if err != nil || next.Validate() != nil || next.Fresh() > 0 || len(next.Runs()) != 2 {
		t.Errorf("%+v, %v, %v", next, err, next.Validate())
	}
}

// TestSinceTheEnd: there is nothing newer than the highest record that there can be.
func TestSinceTheEnd(t *testing.T) {
	for p := range sample(t).ForLog("a.a", 0, math.MaxUint64) {
		t.Errorf("got %+v", p)
	}
}
