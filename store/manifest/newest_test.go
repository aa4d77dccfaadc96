package manifest

import (
	"testing"

	"dormouse/internal/extent"
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
	snapshot := &Snapshot{UpTo: upTo.Seq, UpToID: upTo.ID, Runs: []Run{{UpTo: upTo.Seq}}}
	mustAppend(t, m, Record{Kind: TakeSnapshot, Epoch: 1, Snapshot: snapshot})
	if err := Purge(t.Context(), js, 0, snapshot); err != nil {
		t.Fatal(err)
	}
	mustBe("of a snapshot of nothing", "")
	mustAppend(t, m, commit(1, 1), commit(1, 2), Record{Kind: Floor, Epoch: 1, Floor: 2}, claim(2, "n"))
	mustBe("behind a floor and a claim", "0/2.sst")
	upTo = m.Mark()
	snapshot = &Snapshot{UpTo: upTo.Seq, UpToID: upTo.ID, Runs: []Run{
		{UpTo: 2, Parts: []extent.Segment{{Key: "0/catalog/1.rows"}, {Key: "0/catalog/2.rows"}}}, {After: 2, UpTo: upTo.Seq}}}
	mustAppend(t, m, Record{Kind: Floor, Epoch: 2, Floor: 2})
	mustAppend(t, m, Record{Kind: TakeSnapshot, Epoch: 2, Snapshot: snapshot})
	mustBe("of a snapshot", "0/catalog/2.rows")
	mustAppend(t, m, Record{Kind: Floor, Epoch: 2, Floor: 2}, claim(3, "n"))
	if err := Purge(t.Context(), js, 0, snapshot); err != nil {
		t.Fatal(err)
	}
	mustBe("of a snapshot behind others", "0/catalog/2.rows")
	mustAppend(t, m, commit(3, 3))
	mustBe("committed since", "0/3.sst")
}
