package rebuild

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"dormouse/internal/extent"
)

// TestInOrder: each line has nodes, those with a ! to be written anew, and what comes before what; then the steps.
func TestInOrder(t *testing.T) {
	for _, line := range []string{
		"a b c; ; a, b, c",
		"a b c; c<a; b, c, a",
		"a b! c d!; a<b b<c d<c; a, b+d, c",
		"a b c d; a<b b<c c<b c<d; a, b+c, d",         // a circle
		"a b! c d! e; b<c c<d a<b d<e; a, b+c+d, e",   // c is between two that become one
		"a b c d e f; b<c c<b d<e e<d; a, b+c+d+e, f", // two circles
	} {
		part := strings.Split(line, "; ")
		byName := make(map[string]*node)
		var nodes []*node
		for _, name := range strings.Fields(part[0]) {
			key, anew := strings.CutSuffix(name, "!")
			n := &node{segments: []extent.Summary{{Object: extent.Segment{Key: key}}}, anew: anew, older: make(map[*node]bool)}
			byName[key], nodes = n, append(nodes, n)
		}
		for _, pair := range strings.Fields(part[1]) {
			before, after, _ := strings.Cut(pair, "<")
			byName[after].older[byName[before]] = true
		}
		var got []string
		for _, s := range inOrder(nodes) {
			var names []string
			for _, n := range s.nodes {
				names = append(names, n.name())
			}
			slices.Sort(names)
			got = append(got, strings.Join(names, "+"))
			if s.anew != (len(names) > 1) {
				t.Errorf("%s: %v is written anew: %v", line, names, s.anew)
			}
		}
		if s := strings.Join(got, ", "); s != part[2] {
			t.Errorf("%s: got %s", line, s)
		}
	}
}

// TestHighest: a cut reaches above all that is archived; what is published later must not be cut by it.
func TestHighest(t *testing.T) {
	w := newWorld(t, 1)
	w.publish("t.a")
	w.drain(true, false)
	for range 5 {
		w.publish("t.b")
	}
	for len(w.committed) == 0 {
		w.drain(true, false)
	}
	w.publish("t.c")
	w.cut("t.c")
	if _, b := w.rebuilt(); b.Highest < w.seq {
		t.Errorf("the highest sequence is %d, and %d was cut", b.Highest, w.seq)
	}
}

// TestTreesEntryIsRight: where another object has another entry of the same sequence, it is the checkpoint's that
// stays.
func TestTreesEntryIsRight(t *testing.T) {
	w := newWorld(t, 1)
	w.publish("t.a")
	inTree := w.segments(w.buffered["t.a"], 1)
	w.publish("t.a")
	w.buffered["t.a"][1].Seq = w.buffered["t.a"][0].Seq
	other := w.segments(w.buffered["t.a"][1:], 1)
	s := &shard{bucket: w.bucket}
	for i, nodes := range [][]*node{
		{{segments: inTree, ofTree: true}, {segments: other}}, {{segments: other}, {segments: inTree, ofTree: true}},
	} {
		out, err := s.write(t.Context(), nodes, 0)
		w.must(err)
		got := w.read(out.outputs[0], nil)
		if want := w.buffered["t.a"][0]; len(got) != 1 || !got[0].Time.Equal(want.Time) || out.other != 1 {
			t.Errorf("order %d: it has %s, want %s", i, fmt.Sprint(got), want.Time)
		}
	}
}
