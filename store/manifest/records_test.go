package manifest

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/extent"
	"dormouse/internal/golden"
	"dormouse/internal/natstest"
	"dormouse/internal/wire"
	"dormouse/store/tree"
)

// TestRecordsThatCannotBe are well encoded, and no owner appends one.
func TestRecordsThatCannotBe(t *testing.T) {
	commitOf := func(change func(*extent.Summary)) Record {
		s := segmentOf(1)
		change(&s)
		return Record{Kind: Commit, Epoch: 1, Segments: []extent.Summary{s}}
	}
	merge := &tree.Replacement{Inputs: []string{"0/a.sst", "0/b.sst"}}
	segments := []extent.Summary{segmentOf(1)}
	for name, r := range map[string]Record{
		"no kind":                         {Epoch: 1},
		"an unknown kind":                 {Kind: Merge + 1, Epoch: 1},
		"no epoch":                        {Kind: Claim},
		"a checkpoint without one":        {Kind: TakeCheckpoint, Epoch: 1},
		"a floor with a checkpoint":       {Kind: Floor, Epoch: 1, Checkpoint: &Checkpoint{}},
		"a merge without one":             {Kind: Merge, Epoch: 1},
		"a commit with a merge":           {Kind: Commit, Epoch: 1, Merge: merge},
		"a merge with segments":           {Kind: Merge, Epoch: 1, Merge: merge, Segments: segments},
		"a merge with a checkpoint":       {Kind: Merge, Epoch: 1, Merge: merge, Checkpoint: &Checkpoint{}},
		"a commit with a checkpoint":      {Kind: Commit, Epoch: 1, Segments: segments, Checkpoint: &Checkpoint{}},
		"a checkpoint with segments":      {Kind: TakeCheckpoint, Epoch: 1, Checkpoint: &Checkpoint{}, Segments: segments},
		"a claim with a merge":            {Kind: Claim, Epoch: 1, Merge: merge},
		"a second segment that cannot be": {Kind: Commit, Epoch: 1, Segments: []extent.Summary{segmentOf(1), {}}},
		"a floor with segments":           {Kind: Floor, Epoch: 1, Segments: segments},
		"a segment without a key":         commitOf(func(s *extent.Summary) { s.Object.Key = "" }),
		"a segment without bytes":         commitOf(func(s *extent.Summary) { s.Object.Size = 0 }),
		"a segment without logs":          commitOf(func(s *extent.Summary) { s.Logs = 0 }),
		"more logs than entries":          commitOf(func(s *extent.Summary) { s.Logs = 2 }),
		"a segment of no log":             commitOf(func(s *extent.Summary) { s.First, s.Last = "", "" }),
		"logs that end before":            commitOf(func(s *extent.Summary) { s.Last = "a.a" }),
		"a segment from no sequence":      commitOf(func(s *extent.Summary) { s.MinSeq = 0 }),
		"a segment that ends before":      commitOf(func(s *extent.Summary) { s.MinSeq = 2 }),
		"a segment of times that do":      commitOf(func(s *extent.Summary) { s.MinTime = 1 }),
		"refused logs in no order":        commitOf(func(s *extent.Summary) { s.Refused = []string{"b", "a"} }),
		"a merge's output that cannot be": {Kind: Merge, Epoch: 1, Merge: &tree.Replacement{Inputs: merge.Inputs,
			Outputs: []extent.Summary{{}}}},
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

// TestPurgeKeepsShardsApart: what a checkpoint of one shard has is dropped, and nothing of another.
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
	if err := Purge(t.Context(), js, 0, &Checkpoint{UpTo: last - 4}); err != nil {
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

// TestCheckpointThatIsNone: a record that names another one as its checkpoint is not believed, or an owner would begin
// with nothing.
func TestCheckpointThatIsNone(t *testing.T) {
	js := newStream(t)
	if _, err := open(t, js, 0).Append(t.Context(), Record{Kind: Claim, Epoch: 1, Owner: "n"}); err != nil {
		t.Fatal(err)
	}
	data, err := Record{Kind: Floor, Epoch: 1, ID: "forged", CheckpointSeq: 1}.Encode()
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
	if checkpoint, err := m.Checkpoint(t.Context()); !errors.Is(err, ErrCorrupt) {
		t.Errorf("the checkpoint is %+v, %v", checkpoint, err)
	}
}

// TestMessagesThatAreNoRecords: whoever has the rights can publish to the manifest, which deletes nothing. What no
// owner has appended fences the owner that it meets, which has to look again, and counts for nothing for all who come
// later.
func TestMessagesThatAreNoRecords(t *testing.T) {
	js := newStream(t)
	garbage := func(subject string) {
		t.Helper()
		for _, data := range []string{"", "garbage", "\x02garbage"} {
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
	newer.Data = []byte("\x03")
	newer.Header.Set(HeaderEpoch, "9")
	if _, err := js.PublishMsg(t.Context(), newer); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), js, 0); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a record that cannot be read: %v", err)
	}
}

// TestApply: a commit and a merge change the tree, the others do not, and what cannot be is damage that is told with
// the record's sequence.
func TestApply(t *testing.T) {
	var live tree.Tree
	var replaced []extent.Summary
	var err error
	for seq, r := range map[uint64]Record{1: claim(1, "n"), 2: {Kind: Floor, Epoch: 1},
		3: {Kind: TakeCheckpoint, Epoch: 1, Checkpoint: &Checkpoint{}}} {
		if live, replaced, err = r.Apply(live, seq); err != nil || len(live.Runs())+len(replaced) > 0 {
			t.Fatalf("kind %d: %+v, %v, %v", r.Kind, live, replaced, err)
		}
	}
	for seq := uint64(4); seq < 7; seq++ {
		if live, replaced, err = commit(1, seq).Apply(live, seq); err != nil || len(replaced) > 0 {
			t.Fatal(err)
		}
	}
	merge := Record{Kind: Merge, Epoch: 1, Merge: &tree.Replacement{Inputs: []string{"0/4.sst", "0/5.sst"},
		Outputs: []extent.Summary{segmentOf(9)}}}
	if live, replaced, err = merge.Apply(live, 7); err != nil || len(replaced) != 2 ||
		!slices.Equal(tree.Inputs(live.Runs()), []string{"0/9.sst", "0/6.sst"}) {
		t.Errorf("after a merge: %+v, %+v, %v", live, replaced, err)
	}
	was, inputs := live, []string{"0/9.sst", "0/6.sst"}
	for name, tc := range map[string]struct {
		r    Record
		seq  uint64
		want error // of what the tree says
	}{
		"a merge twice":         {merge, 8, tree.ErrNotLive},
		"a merge with a gap":    {mergeOf([]string{"0/6.sst", "0/9.sst"}, segmentOf(10)), 8, tree.ErrNotLive},
		"a merge of nothing":    {mergeOf(nil), 8, tree.ErrNotLive},
		"outputs that overlap":  {mergeOf(inputs, summaryOf("b.a"), summaryOf("a.b")), 8, tree.ErrInvalid},
		"an output live before": {mergeOf(inputs, segmentOf(6)), 8, tree.ErrInvalid},
		"a commit of the past":  {commit(1, 2), 6, tree.ErrInvalid},
	} {
		next, replaced, err := tc.r.Apply(live, tc.seq)
		if !errors.Is(err, ErrCorrupt) || !errors.Is(err, tc.want) ||
			!strings.Contains(err.Error(), fmt.Sprintf("at %d:", tc.seq)) {
			t.Errorf("%s: %v", name, err)
		}
		if !reflect.DeepEqual(next, was) || len(replaced) > 0 {
			t.Errorf("%s: the tree is %+v, and %+v are live no more", name, next, replaced)
		}
	}
}

func mergeOf(inputs []string, outputs ...extent.Summary) Record {
	return Record{Kind: Merge, Epoch: 1, Merge: &tree.Replacement{Inputs: inputs, Outputs: outputs}}
}

// summaryOf has one entry of a log, in an object that is named by it.
func summaryOf(log string) extent.Summary {
	return extent.Summarize(extent.Segment{Key: "0/" + log + ".sst", Size: 1},
		[]extent.Extent{{Log: log, First: 5, Last: 5, Count: 1}})
}

// TestScanMakesTheTree: the records of a manifest, and those behind a checkpoint of it, make the same tree.
func TestScanMakesTheTree(t *testing.T) {
	js := newStream(t)
	m := open(t, js, 0)
	mustAppend(t, m, claim(1, "n"), commit(1, 1), commit(1, 2), commit(1, 3))
	treeAfter := func(from tree.Tree, after Mark) tree.Tree {
		t.Helper()
		if err := Scan(t.Context(), js, 0, after, m.Mark(), func(seq, _ uint64, r Record) (err error) {
			from, _, err = r.Apply(from, seq)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return from
	}
	first, at := treeAfter(tree.Tree{}, Mark{}), m.Mark()
	checkpoint := &Checkpoint{UpTo: at.Seq, UpToID: at.ID, Object: extent.Segment{Key: "0/checkpoint/1.tree", Size: 1}}
	mustAppend(t, m, Record{Kind: TakeCheckpoint, Epoch: 1, Checkpoint: checkpoint}, commit(1, 4),
		mergeOf([]string{"0/1.sst", "0/2.sst"}, segmentOf(9)), Record{Kind: Floor, Epoch: 1, Floor: 4})
	all := treeAfter(tree.Tree{}, Mark{})
	if got := tree.Inputs(all.Runs()); !slices.Equal(got, []string{"0/9.sst", "0/3.sst", "0/4.sst"}) {
		t.Errorf("live are %v", got)
	}
	if err := Purge(t.Context(), js, 0, checkpoint); err != nil {
		t.Fatal(err)
	}
	found, err := open(t, js, 0).Checkpoint(t.Context())
	if err != nil || !reflect.DeepEqual(found, checkpoint) || found.Mark() != at {
		t.Fatalf("the checkpoint is %+v, %v", found, err)
	}
	if behind := treeAfter(first, found.Mark()); !reflect.DeepEqual(behind, all) {
		t.Errorf("behind the checkpoint the tree is %+v, want %+v", behind, all)
	}
	if (*Checkpoint)(nil).Mark() != (Mark{}) {
		t.Error("no checkpoint has records")
	}
}

// TestArchiveOfTheVersionBefore is refused by what it is, by an owner to come as by one who reads its records.
func TestArchiveOfTheVersionBefore(t *testing.T) {
	js := newStream(t)
	old := nats.NewMsg(wire.ManifestSubject(0))
	old.Data = golden.Kept(t, "version1")
	old.Header.Set(HeaderEpoch, "1")
	if _, err := js.PublishMsg(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), js, 0); !errors.Is(err, ErrOldFormat) {
		t.Errorf("opened with %v", err)
	}
	if err := Scan(t.Context(), js, 0, Mark{}, Mark{Seq: 1}, func(uint64, uint64, Record) error {
		return nil
	}); !errors.Is(err, ErrOldFormat) {
		t.Errorf("read with %v", err)
	}
}
