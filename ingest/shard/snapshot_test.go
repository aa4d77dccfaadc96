package shard

import (
	"errors"
	"fmt"
	"testing"

	"dormouse/ingest/ingesttest"
	"dormouse/internal/extent"
	"dormouse/store/manifest"
)

// TestTailThatIsCountedTooHigh, as after a crash between a snapshot and the next record, makes no snapshot of nothing.
func TestTailThatIsCountedTooHigh(t *testing.T) {
	o := claimed(t)
	o.snapshots.newest = &manifest.Snapshot{UpTo: o.ledger.mu.pos.ManifestSeq, UpToID: o.ledger.mu.pos.ManifestID}
	o.ledger.mu.pos.TailRecords, o.ledger.mu.pos.TailExtents = 2*o.snapshots.most.Records, 7
	before := o.ledger.mu.pos.ManifestSeq
	shorten := func() error { return o.snapshots.shorten(t.Context()) }
	if err := ingesttest.Ended(t, "the look at the tail", shorten); err != nil {
		t.Fatal(err)
	}
	if long, _ := o.snapshots.longTail(); long || o.ledger.mu.pos.TailExtents > 0 ||
		o.ledger.mu.pos.ManifestSeq != before || len(o.snapshots.newest.Runs) > 0 {
		t.Errorf("the tail is %+v, the snapshot %+v", o.ledger.mu.pos, o.snapshots.newest)
	}
}

// commits gives an owner's manifest n records of one extent each.
func commits(t *testing.T, o *trial, n uint64) {
	t.Helper()
	for i := range n {
		e := extent.Extent{Log: "t.a", First: i + 1, Last: i + 1, Count: 1}
		record := manifest.Record{Kind: manifest.Commit, Epoch: o.epoch, Owner: "a", Segments: []manifest.Committed{
			{Segment: extent.Segment{Key: fmt.Sprintf("0/%d.sst", i), Size: 1}, Extents: []extent.Extent{e}}}}
		if err := o.claim.chain.append(t.Context(), record); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRecordIsAppliedWithItsPosition: the disk says how far it is, and has what goes with that.
func TestRecordIsAppliedWithItsPosition(t *testing.T) {
	o := claimed(t)
	commits(t, o, 3)
	if pos, err := o.site.DB.Position(0); err != nil || !samePosition(pos, o.ledger.mu.pos) || pos.Highest != 3 ||
		pos.TailExtents != 3 {
		t.Errorf("the disk says %+v, the owner %+v, %v", pos, o.ledger.mu.pos, err)
	}
	if last, ok, err := o.ledger.disk.catalog.Last("t.a"); err != nil || !ok || last.Extent.Last != 3 {
		t.Errorf("the catalog ends with %+v, %v", last, err)
	}
}

// TestSnapshotTakesSoManyAtOnce: of a tail that is too long to be sorted, its beginning; and nothing if the record
// does not come to be in the manifest.
func TestSnapshotTakesSoManyAtOnce(t *testing.T) {
	o := claimed(t)
	o.snapshots.most.Extents = 2
	commits(t, o, 5)
	upTo := manifest.Mark{Seq: o.ledger.mu.pos.ManifestSeq, ID: o.ledger.mu.pos.ManifestID}
	for _, want := range []error{manifest.ErrFenced, nil} {
		go func() {
			call := <-o.committer.requests
			call.done <- want
		}()
		if err := o.snapshots.take(t.Context(), upTo); !errors.Is(err, want) {
			t.Fatalf("taking it ended with %v", err)
		}
		if want != nil && (o.snapshots.newest != nil || o.ledger.mu.pos.TailRecords != 6) {
			t.Errorf("it counts as taken: %+v of a tail of %d", o.snapshots.newest, o.ledger.mu.pos.TailRecords)
		}
	}
	if got := o.snapshots.newest; got.UpTo != 3 || got.Highest != 2 || len(got.Runs) != 1 || got.Runs[0].Extents != 2 ||
		o.ledger.mu.pos.TailRecords != 3 || o.ledger.mu.pos.TailExtents != 3 {
		t.Errorf("it has %+v, and leaves %d records with %d extents", got, o.ledger.mu.pos.TailRecords,
			o.ledger.mu.pos.TailExtents)
	}
}

// TestTailThatIsGone: another owner has taken a snapshot of it, and this one ends instead of trying again.
func TestTailThatIsGone(t *testing.T) {
	o := claimed(t)
	o.system(t).shortenedTo(o)
	o.ledger.mu.pos.TailRecords = o.snapshots.most.Records
	if err := ingesttest.Ended(t, "the owner to end", func() error {
		return o.snapshots.shorten(t.Context())
	}); !errors.Is(err, manifest.ErrGap) {
		t.Errorf("it ended with %v", err)
	}
}
