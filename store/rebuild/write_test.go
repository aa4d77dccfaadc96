package rebuild

import (
	"testing"
	"time"

	"dormouse/internal/entry"
	"dormouse/internal/extent"
	"dormouse/store/alone"
	"dormouse/store/tree"
)

// TestSequencesUsedTwice: a power failure took the source stream's end, and its sequences came again. What a worker had
// put of before gives way to what was committed since, and to what the checkpoint has.
func TestSequencesUsedTwice(t *testing.T) {
	early, late := time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	for what, place := range map[string]func(w *world, old, again extent.Summary){
		"committed since": func(*world, extent.Summary, extent.Summary) {},
		"in the checkpoint": func(w *world, _, again extent.Summary) {
			var err error
			w.tree, err = w.tree.Commit(200, []extent.Summary{again})
			w.must(err)
			w.checkpoint()
		},
	} {
		w := newWorld(t, 1)
		put := func(at time.Time, seqs ...uint64) extent.Summary {
			var entries []entry.Entry
			for _, seq := range seqs {
				entries = append(entries, entry.Entry{Log: "t.a", Seq: seq, Time: at, Data: []byte(at.String())})
			}
			return w.segments(entries, 10)[0]
		}
		old := put(early, 5, 6, 7)
		again := put(late, 6, 8)
		place(w, old, again)
		_, b := w.rebuilt()
		var got []entry.Entry
		for _, run := range b.Tree.Runs() {
			for _, s := range run.Segments {
				got = append(got, w.read(s, nil)...)
			}
		}
		for i, e := range got {
			if i > 0 && got[i-1].Seq >= e.Seq {
				t.Errorf("%s: entry %d after %d", what, e.Seq, got[i-1].Seq)
			}
			if (e.Seq == 6 || e.Seq == 8) != e.Time.Equal(late) {
				t.Errorf("%s: entry %d is of %s", what, e.Seq, e.Time)
			}
		}
		if n := len(got); n != 4 && what == "committed since" || n != 2 && what == "in the checkpoint" {
			t.Errorf("%s: %d entries", what, n)
		}
		if what == "committed since" && b.Other != 1 {
			t.Errorf("%s: %d entries gave way, want 1", what, b.Other)
		}
	}
}

// TestNothingLost: what merges have replaced is not missing, and what is in nothing else is.
func TestNothingLost(t *testing.T) {
	w := newWorld(t, 1)
	for range 4 {
		for _, log := range []string{"t.a", "t.b", "t.c"} {
			w.publish(log)
		}
		w.record++
		var all []entry.Entry
		for _, log := range []string{"t.a", "t.b", "t.c"} {
			all = append(all, w.buffered[log]...)
			delete(w.buffered, log)
		}
		var err error
		w.tree, err = w.tree.Commit(w.record, w.segments(all, 10))
		w.must(err)
	}
	w.checkpoint()
	runs := w.tree.Runs()
	merged, lost := runs[1:3], runs[3].Segments[0].Object.Key
	var entries []entry.Entry
	for _, log := range []string{"t.a", "t.b", "t.c"} {
		for _, run := range merged {
			for _, e := range w.read(run.Segments[0], nil) {
				if e.Log == log {
					entries = append(entries, e)
				}
			}
		}
	}
	w.segments(entries, 4)
	for _, key := range append(tree.Inputs(merged), lost) {
		w.must(w.bucket.Delete(t.Context(), key))
	}
	found, err := alone.Survey(t.Context(), w.bucket)
	w.must(err)
	s := &shard{Shard: found[0], bucket: w.bucket, damaged: make(map[string]error)}
	w.must(s.look(t.Context()))
	if problems := s.problems(); len(problems) != 1 || len(s.gone) != 3 {
		t.Errorf("%d segments are gone, of which %v, want %s", len(s.gone), problems, lost)
	}
}
