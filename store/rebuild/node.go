package rebuild

import (
	"cmp"
	"slices"

	"dormouse/internal/extent"
)

// node is what comes into the new tree together: an object that the checkpoint has not, or a run of the checkpoint's
// tree that must be placed anew. Its segments ascend and do not overlap.
type node struct {
	segments []extent.Summary
	ofTree   bool           // the checkpoint has it: where entries differ, its ones are right
	adds     bool           // it has entries that what is kept has not
	anew     bool           // it has to be written anew: some of its entries are elsewhere too, or do not belong there
	older    map[*node]bool // nodes whose entries of some log come before this one's
}

// name tells nodes apart, and orders those that nothing else does: names ascend with time.
func (n *node) name() string { return n.segments[0].Object.Key }

// step is one of those in which nodes come on top of a tree: one as it is, or some that are written anew as one.
type step struct {
	nodes []*node
	anew  bool
}

// inOrder arranges nodes so that of every log the earlier entries come first. Those that are to be written anew are one
// step. So is, with them, what cannot be put in order otherwise.
func inOrder(nodes []*node) []step {
	for {
		anew := step{anew: true}
		steps := make(map[*node]*step) // of each node
		for _, n := range nodes {
			if n.anew {
				anew.nodes = append(anew.nodes, n)
				steps[n] = &anew
			} else {
				steps[n] = &step{nodes: []*node{n}}
			}
		}
		after := edges(nodes, steps)
		sorted, core := sortSteps(after)
		if len(core) == 0 {
			ordered := make([]step, len(sorted))
			for i, s := range sorted {
				ordered[i] = *s
			}
			return ordered
		}
		for _, s := range core {
			for _, n := range s.nodes {
				n.anew = true
			}
		}
	}
}

// edges returns the steps, each with those that must come before it.
func edges(nodes []*node, steps map[*node]*step) map[*step]map[*step]bool {
	after := make(map[*step]map[*step]bool)
	for _, n := range nodes {
		s := steps[n]
		if after[s] == nil {
			after[s] = make(map[*step]bool)
		}
		for o := range n.older {
			if steps[o] != s {
				after[s][steps[o]] = true
			}
		}
	}
	return after
}

// sortSteps sorts steps, the least name first where there is a choice. core is not empty when that is not possible: the
// steps that are on circles, or between two of them.
func sortSteps(after map[*step]map[*step]bool) (sorted, core []*step) {
	before := make(map[*step]map[*step]bool) // the other way round
	for s, older := range after {
		for o := range older {
			if before[o] == nil {
				before[o] = make(map[*step]bool)
			}
			before[o][s] = true
		}
	}
	sorted = peel(after, before)
	if len(sorted) == len(after) {
		return sorted, nil
	}
	ends := append(sorted, peel(before, after)...)
	for s := range after {
		if !slices.Contains(ends, s) {
			core = append(core, s)
		}
	}
	return nil, core
}

// peel takes steps away, one after the other, that wait for none that is left.
func peel(waits, holds map[*step]map[*step]bool) (peeled []*step) {
	left := make(map[*step]int)
	var free []*step
	for s := range waits {
		add(s, len(waits[s]), left, &free)
	}
	for s := range holds {
		if _, known := waits[s]; !known {
			add(s, 0, left, &free)
		}
	}
	for len(free) > 0 {
		next := slices.MinFunc(free, byName)
		free = slices.DeleteFunc(free, func(s *step) bool { return s == next })
		peeled = append(peeled, next)
		for s := range holds[next] {
			if left[s]--; left[s] == 0 {
				free = append(free, s)
			}
		}
	}
	return peeled
}

// add notes for how many others a step waits.
func add(s *step, n int, left map[*step]int, free *[]*step) {
	if left[s] = n; n == 0 {
		*free = append(*free, s)
	}
}

func byName(a, b *step) int { return cmp.Compare(a.name(), b.name()) }

// name is the least of the nodes'.
func (s *step) name() string {
	return slices.MinFunc(s.nodes, func(a, b *node) int { return cmp.Compare(a.name(), b.name()) }).name()
}
