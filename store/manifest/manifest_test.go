package manifest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"dormouse/internal/extent"
	"dormouse/internal/natstest"
	"dormouse/internal/shardid"
	"dormouse/internal/wire"
	"dormouse/store/tree"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newStream starts a server with an empty manifest stream.
func newStream(t *testing.T) jetstream.JetStream {
	t.Helper()
	_, js := natstest.Dial(t, natstest.Start(t))
	_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: wire.ManifestStream,
		Subjects: []string{wire.ManifestSubjects}})
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func open(t *testing.T, js jetstream.JetStream, shard shardid.Shard) *Manifest {
	t.Helper()
	m, err := Open(t.Context(), js, shard)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func commit(epoch, first uint64) Record {
	return Record{Kind: Commit, Epoch: epoch, Owner: "n", Floor: first - 1, Segments: []extent.Summary{segmentOf(first)}}
}

// segmentOf has one entry.
func segmentOf(seq uint64) extent.Summary {
	return extent.Summarize(extent.Segment{Key: fmt.Sprintf("0/%d.sst", seq), Size: 1},
		[]extent.Extent{{Log: "a.b", First: seq, Last: seq, Count: 1, Bytes: 3}})
}

// TestOnlyTheLastClaimCanAppend holds invariant 4: whatever an old owner does, its append after another's is refused,
// also when it looks at the manifest anew in between.
func TestOnlyTheLastClaimCanAppend(t *testing.T) {
	js := newStream(t)
	old := open(t, js, 0)
	if _, err := old.Append(t.Context(), Record{Kind: Claim, Epoch: 1, Owner: "old"}); err != nil {
		t.Fatal(err)
	}
	if _, err := old.Append(t.Context(), commit(1, 1)); err != nil {
		t.Fatal(err)
	}
	successor, other := open(t, js, 0), open(t, js, 1)
	if _, err := other.Append(t.Context(), Record{Kind: Claim, Epoch: 1, Owner: "other"}); err != nil {
		t.Fatalf("another shard's manifest is its own: %v", err)
	}
	if _, err := old.Append(t.Context(), commit(1, 2)); err != nil {
		t.Fatalf("before the claim the owner commits: %v", err)
	}
	if _, err := successor.Append(t.Context(), Record{Kind: Claim, Epoch: 2, Owner: "new"}); !errors.Is(err, ErrFenced) {
		t.Fatalf("a claim that did not see the last commit went through: %v", err)
	}
	successor = open(t, js, 0)
	if _, err := successor.Append(t.Context(), Record{Kind: Claim, Epoch: 2, Owner: "new"}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := old.Append(t.Context(), commit(1, 3)); !errors.Is(err, ErrFenced) {
			t.Fatalf("a stale owner's commit: %v, want ErrFenced", err)
		}
	}
	if last, _ := open(t, js, 0).Last(); last.Epoch != 2 || last.Owner != "new" {
		t.Fatalf("last record is %+v", last)
	}
}

// lossy is a JetStream whose publishes happen while their answers get lost, or do not happen at all.
type lossy struct {
	jetstream.JetStream
	loseAnswers, loseRequests int
	ids                       map[string]bool // of all tries, if set
}

func (l *lossy) PublishMsg(ctx context.Context, msg *nats.Msg, opts ...jetstream.PublishOpt) (*jetstream.PubAck,
	error) {
	if r, err := Decode(msg.Data); l.ids != nil && err == nil {
		l.ids[r.ID] = true
	}
	if l.loseRequests > 0 {
		l.loseRequests--
		return nil, context.DeadlineExceeded
	}
	ack, err := l.JetStream.PublishMsg(ctx, msg, opts...)
	if l.loseAnswers > 0 {
		l.loseAnswers--
		return nil, context.DeadlineExceeded
	}
	return ack, err
}

func TestAppendWhoseAnswerIsLostHappensOnce(t *testing.T) {
	for name, js := range map[string]*lossy{
		"answer lost":               {loseAnswers: 1},
		"request lost":              {loseRequests: 2},
		"request, then answer lost": {loseRequests: 1, loseAnswers: 1},
	} {
		t.Run(name, func(t *testing.T) {
			js.JetStream, js.ids = newStream(t), make(map[string]bool)
			wantIDs := 3 + js.loseRequests // what was lost and is taken by others must not be taken for the next try
			m := open(t, js, 0)
			for first := uint64(1); first <= 3; first++ {
				seq, err := m.Append(t.Context(), commit(1, first))
				if err != nil || seq != first {
					t.Fatalf("append %d: sequence %d, %v", first, seq, err)
				}
			}
			var got []uint64
			err := Scan(t.Context(), js, 0, Mark{}, m.Mark(), func(_, _ uint64, r Record) error {
				got = append(got, r.Segments[0].MinSeq)
				return nil
			})
			if err != nil || fmt.Sprint(got) != "[1 2 3]" {
				t.Fatalf("manifest holds %v, %v", got, err)
			}
			if len(js.ids) != wantIDs {
				t.Errorf("the tries had %d different IDs, want %d", len(js.ids), wantIDs)
			}
		})
	}
}

// TestOwnerThatLivedThroughAPowerFailure: its last record is gone and another owner has used the sequence, so that its
// next append is of the sequence that it expects. It must count for nothing, and the owner must learn that.
func TestOwnerThatLivedThroughAPowerFailure(t *testing.T) {
	js := newStream(t)
	old := open(t, js, 0)
	for _, r := range []Record{{Kind: Claim, Epoch: 1, Owner: "old"}, commit(1, 1), commit(1, 2)} {
		if _, err := old.Append(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	natstest.LoseEnd(t, js, wire.ManifestStream, 2)
	successor := open(t, js, 0)
	if seq, err := successor.Append(t.Context(), Record{Kind: Claim, Epoch: 2, Owner: "new"}); err != nil || seq != 3 {
		t.Fatal(seq, err)
	}
	if presence, err := old.Has(t.Context(), 3, old.record.ID); err != nil || presence != Other {
		t.Errorf("the lost record is %v, %v", presence, err)
	}
	if _, err := old.Append(t.Context(), commit(1, 3)); !errors.Is(err, ErrFenced) {
		t.Fatalf("the old owner's append: %v, want ErrFenced", err)
	}
	if _, err := successor.Append(t.Context(), commit(2, 2)); !errors.Is(err, ErrFenced) {
		t.Fatalf("the manifest's end is not what the successor knows: %v", err)
	}
	next := open(t, js, 0)
	if last, seq := next.Last(); last.Epoch != 2 || last.Owner != "new" || seq != 3 {
		t.Fatalf("the last record that counts is %d, %+v", seq, last)
	}
	for _, r := range []Record{{Kind: Claim, Epoch: 3, Owner: "next"}, commit(3, 2)} {
		if _, err := next.Append(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	upTo := open(t, js, 0).Mark()
	var epochs []uint64
	collect := func(_, _ uint64, r Record) error { epochs = append(epochs, r.Epoch); return nil }
	if err := Scan(t.Context(), js, 0, Mark{}, upTo, collect); err != nil || fmt.Sprint(epochs) != "[1 1 2 3 3]" {
		t.Fatalf("records of epochs %v, %v", epochs, err)
	}
	// A scan from the record whose sequence was used twice tells which of the two it is from.
	epochs = nil
	if err := Scan(t.Context(), js, 0, Mark{3, successor.record.ID}, upTo, collect); err != nil ||
		fmt.Sprint(epochs) != "[3 3]" {
		t.Errorf("above the successor's claim: records of epochs %v, %v", epochs, err)
	}
	if err := Scan(t.Context(), js, 0, Mark{3, old.record.ID}, upTo, func(uint64, uint64, Record) error {
		return nil
	}); !errors.Is(err, ErrGap) {
		t.Errorf("above the lost record: %v, want ErrGap", err)
	}
}

// mustAppend appends records, and mustBeFenced one that counts for nothing.
func mustAppend(t *testing.T, m *Manifest, records ...Record) {
	t.Helper()
	for _, r := range records {
		if _, err := m.Append(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
}

func mustBeFenced(t *testing.T, m *Manifest, r Record) {
	t.Helper()
	if _, err := m.Append(t.Context(), r); !errors.Is(err, ErrFenced) {
		t.Fatalf("%s appended: %v, want ErrFenced", r.Owner, err)
	}
}

// mustHold holds that a new owner can be found by scans after its claim, and finds records by these owners before it.
func mustHold(t *testing.T, js jetstream.JetStream, owners ...string) {
	t.Helper()
	next := open(t, js, 0)
	last, _ := next.Last()
	mustAppend(t, next, Record{Kind: Claim, Epoch: last.Epoch + 1, Owner: "next"})
	var got []string
	err := Scan(t.Context(), js, 0, Mark{}, next.Mark(), func(_, _ uint64, r Record) error {
		got = append(got, r.Owner)
		return nil
	})
	if err != nil || !slices.Equal(got, append(owners, "next")) {
		t.Errorf("records by %q, %v, want %q and next", got, err, owners)
	}
}

func claim(epoch uint64, owner string) Record { return Record{Kind: Claim, Epoch: epoch, Owner: owner} }

// TestClaimerThatLivedThroughAPowerFailure: it has read the last record before the failure, and goes back over what
// counts for nothing after it. What it has read is not what it appends its claim after.
func TestClaimerThatLivedThroughAPowerFailure(t *testing.T) {
	js := newStream(t)
	mustAppend(t, open(t, js, 0), claim(1, "old"), claim(2, "old"), claim(3, "old"))
	claimer := open(t, js, 0)
	natstest.LoseEnd(t, js, wire.ManifestStream, 1)
	mustAppend(t, open(t, js, 0), claim(2, "new"), claim(3, "new"))
	if err := claimer.walkBack(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustBeFenced(t, claimer, claim(3, "claimer"))
	mustHold(t, js, "old", "new", "new")
}

// TestTwoThatLivedThroughAPowerFailure: each appends after a record that is lost, one after the other.
func TestTwoThatLivedThroughAPowerFailure(t *testing.T) {
	js := newStream(t)
	mustAppend(t, open(t, js, 0), claim(1, "old"), claim(2, "old"))
	first := open(t, js, 0)
	mustAppend(t, first, claim(3, "first"))
	second := open(t, js, 0)
	mustAppend(t, second, claim(4, "second"))
	natstest.LoseEnd(t, js, wire.ManifestStream, 2)
	mustAppend(t, open(t, js, 0), claim(3, "new"))
	mustBeFenced(t, first, claim(4, "first"))   // as the fourth message, after the third, which is another one now
	mustBeFenced(t, second, claim(5, "second")) // as the fifth, after the fourth
	mustHold(t, js, "old", "old", "new")
}

// TestScanEndsWithWhatItIsToldTo: another record has the sequence of the claim that it is to end with.
func TestScanEndsWithWhatItIsToldTo(t *testing.T) {
	js := newStream(t)
	m := open(t, js, 0)
	mustAppend(t, m, claim(1, "old"), claim(2, "old"))
	lost := m.Mark()
	natstest.LoseEnd(t, js, wire.ManifestStream, 1)
	mustAppend(t, open(t, js, 0), claim(2, "new"))
	n := 0
	if err := Scan(t.Context(), js, 0, Mark{}, lost, func(uint64, uint64, Record) error {
		n++
		return nil
	}); !errors.Is(err, ErrGap) || n != 1 {
		t.Errorf("a scan up to a record that is lost: %d records, %v, want the first and ErrGap", n, err)
	}
}

// TestScanNoticesWhatIsGone: a reader that stood still while a checkpoint was taken and records were dropped must not
// pass over them.
func TestScanNoticesWhatIsGone(t *testing.T) {
	js := newStream(t)
	m := open(t, js, 0)
	ids := []string{""}
	for first := uint64(1); first <= 5; first++ {
		if _, err := m.Append(t.Context(), commit(1, first)); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, m.record.ID)
	}
	checkpoint := &Checkpoint{UpTo: 4}
	if _, err := m.Append(t.Context(), Record{Kind: TakeCheckpoint, Epoch: 1, Checkpoint: checkpoint}); err != nil {
		t.Fatal(err)
	}
	if err := Purge(t.Context(), js, 0, checkpoint); err != nil {
		t.Fatal(err)
	}
	upTo := m.Mark()
	for _, after := range []uint64{0, 2, 3} {
		err := Scan(t.Context(), js, 0, Mark{after, ids[after]}, upTo, func(_, _ uint64, _ Record) error { return nil })
		if !errors.Is(err, ErrGap) {
			t.Errorf("scanning above %d: %v, want ErrGap", after, err)
		}
	}
	n := 0
	if err := Scan(t.Context(), js, 0, Mark{4, ids[4]}, upTo, func(_, _ uint64, _ Record) error {
		n++
		return nil
	}); err != nil || n != 2 {
		t.Errorf("scanning the tail: %d records, %v", n, err)
	}
	for seq, want := range map[uint64]Presence{0: Same, 2: Gone, 5: Other} {
		if presence, err := m.Has(t.Context(), seq, ""); err != nil || presence != want {
			t.Errorf("record %d: %v, %v, want %v", seq, presence, err, want)
		}
	}
}

// TestCheckpointIsFoundFromLaterRecords: also from one that does not follow it directly, and the newest one counts.
func TestCheckpointIsFoundFromLaterRecords(t *testing.T) {
	js := newStream(t)
	m := open(t, js, 0)
	if _, err := m.Append(t.Context(), Record{Kind: Claim, Epoch: 1, Owner: "n"}); err != nil {
		t.Fatal(err)
	}
	for round := range uint64(2) {
		_, last := m.Last()
		checkpoint := &Checkpoint{UpTo: last}
		if _, err := m.Append(t.Context(), Record{Kind: TakeCheckpoint, Epoch: 1, Checkpoint: checkpoint}); err != nil {
			t.Fatal(err)
		}
		for n := range uint64(3) {
			found, err := open(t, js, 0).Checkpoint(t.Context())
			if err != nil || found == nil || found.UpTo != last {
				t.Fatalf("%d records after checkpoint %d it is %+v, %v", n, round, found, err)
			}
			if _, err := m.Append(t.Context(), commit(1, 10*round+n+1)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestAppendGivesUpWithItsContext(t *testing.T) {
	js := &lossy{JetStream: newStream(t), loseRequests: 1 << 30}
	m := open(t, js, 0)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := m.Append(ctx, commit(1, 1)); err == nil || errors.Is(err, ErrFenced) {
		t.Fatalf("got %v", err)
	}
}

func TestScanKeepsShardsApart(t *testing.T) {
	js := newStream(t)
	a, b := open(t, js, 1), open(t, js, 10)
	var id string // of shard 1's tenth record
	for first := uint64(1); first <= 40; first++ {
		if first == 11 {
			id = a.record.ID
		}
		for _, m := range []*Manifest{a, b} {
			if _, err := m.Append(t.Context(), commit(uint64(m.shard), first)); err != nil {
				t.Fatal(err)
			}
		}
	}
	upTo := a.Mark()
	n := 0
	err := Scan(t.Context(), js, 1, Mark{19, id}, upTo, func(seq, _ uint64, r Record) error {
		n++
		if r.Epoch != 1 || seq <= 20 {
			return fmt.Errorf("record %d of epoch %d", seq, r.Epoch)
		}
		return nil
	})
	if err != nil || n != 30 {
		t.Fatalf("scanned %d records, %v, want 30", n, err)
	}
	if err := Scan(t.Context(), js, 1, upTo, upTo, nil); err != nil {
		t.Fatalf("scanning nothing: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	data, err := commit(3, 7).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte{recordVersion})
	for _, r := range []Record{{Kind: TakeCheckpoint, Epoch: 2, Checkpoint: &Checkpoint{UpTo: 9}},
		{Kind: Merge, Epoch: 2, Merge: &tree.Replacement{Inputs: []string{"a"}, Outputs: []extent.Summary{segmentOf(1)}}}} {
		if data, err = r.Encode(); err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Decode(data)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrOldFormat) {
				t.Fatalf("error %v does not wrap ErrCorrupt", err)
			}
			return
		}
		again, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Decode(again); err != nil {
			t.Fatalf("%+v does not decode again: %v", r, err)
		}
	})
}
