package tree_test

import (
	"fmt"

	"dormouse/internal/extent"
	"dormouse/store/tree"
)

// Segments of a log are read in the order of the runs. A merge puts one run in the place of neighbours, and a log has
// what it had.
func Example() {
	segment := func(key string, extents ...extent.Extent) extent.Summary {
		return extent.Summarize(extent.Segment{Key: key, Size: 1 << 20}, extents)
	}
	var live tree.Tree
	for i, s := range []extent.Summary{
		segment("0/a.sst", extent.Extent{Log: "acme.db", First: 1, Last: 4, Count: 3}),
		segment("0/b.sst", extent.Extent{Log: "acme.db", First: 6, Last: 9, Count: 2},
			extent.Extent{Log: "acme.web", First: 5, Last: 8, Count: 2}),
		segment("0/c.sst", extent.Extent{Log: "acme.web", First: 10, Last: 12, Count: 3}),
	} {
		var err error
		if live, err = live.Commit(uint64(i+1), []extent.Summary{s}); err != nil { // by manifest record i+1
			panic(err)
		}
	}
	show := func(log string) {
		fmt.Print(log, ":")
		for p := range live.ForLog(log, 0, 0) {
			fmt.Printf(" %s of level %d", p.Segment.Object.Key, p.Level)
		}
		fmt.Println()
	}
	show("acme.db")
	show("acme.web")

	limits := tree.Limits{Fresh: 2, Runs: []int{2}, Inputs: 2, Bytes: 1 << 30}
	for _, runs := range live.Plan(limits, false, func(uint8) bool { return false }) {
		next, replaced, err := live.Replace(tree.Replacement{Inputs: tree.Inputs(runs), Outputs: []extent.Summary{
			segment("0/d.sst", extent.Extent{Log: "acme.db", First: 1, Last: 9, Count: 5},
				extent.Extent{Log: "acme.web", First: 5, Last: 8, Count: 2}),
		}})
		if err != nil {
			panic(err)
		}
		fmt.Println(len(replaced), "segments are replaced")
		live = next
	}
	show("acme.db")
	show("acme.web")
	// Output:
	// acme.db: 0/a.sst of level 0 0/b.sst of level 0
	// acme.web: 0/b.sst of level 0 0/c.sst of level 0
	// 2 segments are replaced
	// acme.db: 0/d.sst of level 1
	// acme.web: 0/d.sst of level 1 0/c.sst of level 0
}
