package manifest

import (
	"errors"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/extent"
	"dormouse/internal/natstest"
	"dormouse/internal/wire"
)

// TestRecordsThatCannotBe are well encoded, and no owner appends one.
func TestRecordsThatCannotBe(t *testing.T) {
	snapshot := func(s Snapshot) Record { return Record{Kind: TakeSnapshot, Epoch: 1, Snapshot: &s} }
	commitOf := func(e extent.Extent) Record {
		return Record{Kind: Commit, Epoch: 1, Segments: []Committed{{Segment: extent.Segment{Key: "0/a.sst"},
			Extents: []extent.Extent{e}}}}
	}
	for name, r := range map[string]Record{
		"no kind":                         {Epoch: 1},
		"an unknown kind":                 {Kind: TakeSnapshot + 1, Epoch: 1},
		"no epoch":                        {Kind: Claim},
		"a snapshot without one":          {Kind: TakeSnapshot, Epoch: 1},
		"a floor with a snapshot":         {Kind: Floor, Epoch: 1, Snapshot: &Snapshot{}},
		"an extent without entries":       commitOf(extent.Extent{Log: "a.b", First: 1, Last: 1}),
		"an extent that ends before":      commitOf(extent.Extent{Log: "a.b", First: 2, Last: 1, Count: 1}),
		"runs with a gap":                 snapshot(Snapshot{UpTo: 9, Runs: []Run{{UpTo: 4}, {After: 5, UpTo: 9}}}),
		"a run of nothing":                snapshot(Snapshot{UpTo: 4, Runs: []Run{{UpTo: 4}, {After: 4, UpTo: 4}}}),
		"runs that end too early":         snapshot(Snapshot{UpTo: 9, Runs: []Run{{UpTo: 4}}}),
		"no runs":                         snapshot(Snapshot{UpTo: 9}),
		"far more than a record can hold": {Kind: Claim, Epoch: 1, Owner: string(make([]byte, maxDecoded+1))},
	} {
		data, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Decode(data); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestFollows: a record counts if both the record and the message that it names are those before it.
func TestFollows(t *testing.T) {
	for name, tc := range map[string]struct {
		r      Record
		counts bool
		gap    bool
	}{
		"after both":              {Record{Prev: 3, PrevID: "three", End: 5, EndID: "five"}, true, false},
		"after another record":    {Record{Prev: 4, PrevID: "four", End: 5, EndID: "five"}, false, false},
		"after a record replaced": {Record{Prev: 3, PrevID: "another", End: 5, EndID: "five"}, false, false},
		"after an earlier end":    {Record{Prev: 3, PrevID: "three", End: 4, EndID: "four"}, false, false},
		"after an end replaced":   {Record{Prev: 3, PrevID: "three", End: 5, EndID: "another"}, false, false},
		"after one that is gone":  {Record{Prev: 3, PrevID: "three", End: 6, EndID: "six"}, false, true},
	} {
		c := chain{last: Mark{3, "three"}, before: Mark{5, "five"}}
		tc.r.ID = "new"
		counts, err := c.follows(7, tc.r)
		if counts != tc.counts || errors.Is(err, ErrGap) != tc.gap {
			t.Errorf("%s: counts %v, %v", name, counts, err)
		}
		want := chain{last: Mark{3, "three"}, before: Mark{7, "new"}}
		if tc.counts {
			want.last = want.before
		}
		if !tc.gap && c != want {
			t.Errorf("%s: the chain is at %+v, want %+v", name, c, want)
		}
	}
}

// TestPurgeKeepsShardsApart: what a snapshot of one shard has is dropped, and nothing of another.
func TestPurgeKeepsShardsApart(t *testing.T) {
	js := newStream(t)
	a, b := open(t, js, 0), open(t, js, 1)
	for n := range uint64(6) {
		for _, m := range []*Manifest{a, b} {
			if _, err := m.Append(t.Context(), commit(1, n+1)); err != nil {
				t.Fatal(err)
			}
		}
	}
	_, last := a.Last()
	if err := Purge(t.Context(), js, 0, &Snapshot{UpTo: last - 4}); err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), wire.ManifestStream)
	if err != nil {
		t.Fatal(err)
	}
	info, err := stream.Info(t.Context(), jetstream.WithSubjectFilter(wire.ManifestSubjects))
	if err != nil {
		t.Fatal(err)
	}
	left := info.State.Subjects
	if left[wire.ManifestSubject(0)] != 2 || left[wire.ManifestSubject(1)] != 6 {
		t.Errorf("left are %v, want 2 and 6", left)
	}
}

// TestSnapshotThatIsNone: a record that names another one as its snapshot is not believed, or an owner would begin with
// nothing.
func TestSnapshotThatIsNone(t *testing.T) {
	js := newStream(t)
	if _, err := open(t, js, 0).Append(t.Context(), Record{Kind: Claim, Epoch: 1, Owner: "n"}); err != nil {
		t.Fatal(err)
	}
	data, err := Record{Kind: Floor, Epoch: 1, ID: "forged", SnapshotSeq: 1}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	forged := nats.NewMsg(wire.ManifestSubject(0))
	forged.Data = data
	forged.Header.Set(HeaderEpoch, "1")
	if _, err := js.PublishMsg(t.Context(), forged); err != nil {
		t.Fatal(err)
	}
	m, err := Open(t.Context(), js, 0)
	if err != nil {
		t.Fatal(err)
	}
	if snapshot, err := m.Snapshot(t.Context()); !errors.Is(err, ErrCorrupt) {
		t.Errorf("the snapshot is %+v, %v", snapshot, err)
	}
}

// TestMessagesThatAreNoRecords: whoever has the rights can publish to the manifest, which deletes nothing. What no
// owner has appended fences the owner that it meets, which has to look again, and counts for nothing for all who come
// later.
func TestMessagesThatAreNoRecords(t *testing.T) {
	js := newStream(t)
	garbage := func(subject string) {
		t.Helper()
		for _, data := range []string{"", "garbage", "\x01garbage"} {
			if _, err := js.Publish(t.Context(), subject, []byte(data)); err != nil {
				t.Fatal(err)
			}
		}
	}
	subject := wire.ManifestSubject(0)
	head := func(want uint64) {
		t.Helper()
		if _, epoch, err := Head(t.Context(), js, 0); err != nil || epoch != want {
			t.Errorf("the epoch is %d, %v, want %d", epoch, err, want)
		}
	}
	garbage(subject)
	head(0)
	m := open(t, js, 0)
	mustAppend(t, m, claim(1, "a"), claim(2, "b"))
	garbage(wire.ManifestSubject(1))
	garbage(subject)
	head(2)
	mustBeFenced(t, m, claim(3, "fenced"))
	m = open(t, js, 0)
	mustAppend(t, m, claim(3, "c"), claim(4, "d"))
	garbage(subject)
	head(4)
	mustHold(t, js, "a", "b", "c", "d")

	// A power failure took a record, and garbage has its place.
	m = open(t, js, 0)
	natstest.LoseEnd(t, js, wire.ManifestStream, m.end-1)
	if _, err := js.Publish(t.Context(), subject, []byte("garbage")); err != nil {
		t.Fatal(err)
	}
	mustBeFenced(t, m, claim(6, "lived through it"))
	mustHold(t, js, "a", "b", "c", "d")

	// What says that it is an owner's and cannot be read may be a newer version's, and is not passed over.
	newer := nats.NewMsg(subject)
	newer.Data = []byte("\x02")
	newer.Header.Set(HeaderEpoch, "9")
	if _, err := js.PublishMsg(t.Context(), newer); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), js, 0); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a record that cannot be read: %v", err)
	}
}
