package workers

import (
	"slices"
	"testing"
	"time"

	"dormouse/internal/extent"
)

// TestMergeUnderCuts: what is cut is left out, and said to be; one segment may be written anew, in one piece, and
// nothing may be left of it.
func TestMergeUnderCuts(t *testing.T) {
	for name, tc := range map[string]struct {
		cuts   extent.Cuts
		one    bool // a single input
		want   []string
		left   uint64
		pieces int
	}{
		"none that touches it": {extent.Cuts{{Logs: "b.>", UpTo: 9}}, false,
			[]string{"a.a:1", "a.a:4", "a.a:6", "a.b:2", "a.b:7"}, 0, 5},
		"a log up to a sequence": {extent.Cuts{{Logs: "a.a", UpTo: 4}}, false, []string{"a.a:6", "a.b:2", "a.b:7"}, 2, 3},
		"before a time": {extent.Cuts{{Logs: "a.>", UpTo: 9, Before: time.Unix(4, 0).UnixNano()}}, false,
			[]string{"a.a:4", "a.a:6", "a.b:7"}, 2, 3},
		"two of them": {extent.Cuts{{Logs: "a.a", UpTo: 9}, {Logs: "a.b", UpTo: 2}}, false, []string{"a.b:7"}, 4, 1},
		"all of it":   {extent.Cuts{{Logs: "a.>", UpTo: 9}}, false, nil, 5, 0},
		"of one":      {extent.Cuts{{Logs: "a.a", UpTo: 1}}, true, []string{"a.a:4", "a.b:2"}, 1, 1},
		"all of one":  {extent.Cuts{{Logs: "a.a", UpTo: 4}, {Logs: "a.b", UpTo: 4}}, true, nil, 3, 0},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMerges(t)
			m.own()
			runs := [][]extent.Summary{{m.put("7/1.sst", []string{"a.a:1", "a.a:4", "a.b:2"})},
				{m.put("7/2.sst", []string{"a.a:6", "a.b:7"})}}
			if tc.one {
				runs = runs[:1]
			}
			m.start(m.merging, func(c *Config) { c.MergeBytes = 1 })
			m.mergeUnder(12, tc.cuts, runs...)
			m.untilMerged()
			m.mu.Lock()
			defer m.mu.Unlock()
			if len(m.offered) != 1 || m.offered[0].Cut != 12 || m.offered[0].Left.Entries != tc.left ||
				(m.offered[0].Left.Bytes == 0) != (tc.left == 0) {
				t.Fatalf("offered %+v", m.offered)
			}
			outputs := m.offered[0].Outputs
			if got := m.contents(outputs); !slices.Equal(got, tc.want) || len(outputs) != tc.pieces {
				t.Errorf("merged to %q in %d outputs, want %q in %d", got, len(outputs), tc.want, tc.pieces)
			}
		})
	}
}
