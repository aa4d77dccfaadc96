package manifest

import (
	"testing"

	"dormouse/internal/extent"
	"dormouse/store/tree"
)

// TestNewest: by the newest object that the manifest names an archive is known, whatever has been appended or dropped
// since.
func TestNewest(t *testing.T) {
	js := newStream(t)
	mustBe := func(when, want string) {
		t.Helper()
		got, ok, err := open(t, js, 0).Newest(t.Context())
		if err != nil || got.Key != want || ok != (want != "") {
			t.Errorf("%s: %q, %v, %v, want %q", when, got.Key, ok, err, want)
		}
	}
	mustBe("of a new manifest", "")
	m := open(t, js, 0)
	mustAppend(t, m, claim(1, "n"), Record{Kind: Floor, Epoch: 1})
	mustBe("without a commit", "")
	upTo := m.Mark()
	checkpoint := &Checkpoint{UpTo: upTo.Seq, UpToID: upTo.ID, Object: extent.Segment{Key: "0/checkpoint/1.tree"}}
	mustAppend(t, m, Record{Kind: TakeCheckpoint, Epoch: 1, Checkpoint: checkpoint})
	if err := Purge(t.Context(), js, 0, checkpoint); err != nil {
		t.Fatal(err)
	}
	mustBe("of a checkpoint", "0/checkpoint/1.tree")
	mustAppend(t, m, commit(1, 1), commit(1, 2), Record{Kind: Floor, Epoch: 1, Floor: 2}, claim(2, "n"))
	mustBe("behind a floor and a claim", "0/2.sst")
	mustAppend(t, m, Record{Kind: Merge, Epoch: 2, Merge: &tree.Replacement{Inputs: []string{"0/1.sst", "0/2.sst"},
		Outputs: []extent.Summary{segmentOf(3), segmentOf(4)}}})
	mustBe("of a merge", "0/4.sst")
	mustAppend(t, m, Record{Kind: Merge, Epoch: 2, Merge: &tree.Replacement{Inputs: []string{"0/3.sst", "0/4.sst"}}})
	mustBe("behind a merge of what is cut", "0/4.sst")
	upTo = m.Mark()
	checkpoint = &Checkpoint{UpTo: upTo.Seq, UpToID: upTo.ID, Object: extent.Segment{Key: "0/checkpoint/2.tree"}}
	mustAppend(t, m, Record{Kind: Floor, Epoch: 2, Floor: 2})
	mustAppend(t, m, Record{Kind: TakeCheckpoint, Epoch: 2, Checkpoint: checkpoint})
	mustAppend(t, m, Record{Kind: Floor, Epoch: 2, Floor: 2}, claim(3, "n"))
	if err := Purge(t.Context(), js, 0, checkpoint); err != nil {
		t.Fatal(err)
	}
	mustBe("of a checkpoint behind others", "0/checkpoint/2.tree")
	mustAppend(t, m, commit(3, 3))
	mustBe("committed since", "0/3.sst")
}
