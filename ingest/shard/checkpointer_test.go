package shard

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"testing"

	"github.com/nats-io/nats.go"

	"dormouse/ingest/ingesttest"
	"dormouse/internal/extent"
	"dormouse/internal/wire"
	"dormouse/store/manifest"
	"dormouse/store/tree"
)

// commit commits extents as a worker's segment.
func (o *trial) commit(t *testing.T, key string, extents ...extent.Extent) {
	t.Helper()
	o.on.Archive.Has(key, extents)
	data, err := wire.Encode(wire.CommitRequest{Segment: extent.Segment{Key: key, Size: 1}, Extents: extents})
	if err != nil {
		t.Fatal(err)
	}
	call := &commitCall{msg: &nats.Msg{Data: data}} // the answer goes nowhere
	if err := o.committer.commit(t.Context(), []appendRequest{{commit: call}}); err != nil || call.err != nil ||
		len(call.refused) > 0 {
		t.Fatalf("%v, %v, %v refused", err, call.err, call.refused)
	}
}

// commits gives an owner's manifest n records of one segment each.
func commits(t *testing.T, o *trial, n int) {
	t.Helper()
	for range n {
		extents := fill(t, o, []string{"t.a"}, 1)
		o.commit(t, fmt.Sprintf("0/%d.sst", extents[0].First), extents...)
	}
}

// TestRecordIsAppliedWithItsPosition: the disk says how far it is, and the buffer and the tree are as far.
func TestRecordIsAppliedWithItsPosition(t *testing.T) {
	o := claimed(t)
	commits(t, o, 3)
	if pos, err := o.site.DB.Position(0); err != nil || !samePosition(pos, o.ledger.mu.pos) {
		t.Errorf("the disk says %+v, the owner %+v, %v", pos, o.ledger.mu.pos, err)
	}
	live, version := o.ledger.live()
	if segments, _ := live.Segments(); segments != 3 || live.Highest() != 3 || version != o.ledger.mu.pos.ManifestSeq ||
		o.sched.Stats().Active > 0 {
		t.Errorf("%d segments up to %d, changed by %d; %d logs are active", segments, live.Highest(), version,
			o.sched.Stats().Active)
	}
}

// TestCheckpoint: it has the tree up to a record, which is all that the next owner needs; and nothing is counted as
// taken while its record is not in the manifest.
func TestCheckpoint(t *testing.T) {
	o := claimed(t)
	commits(t, o, 5)
	live, upTo, tail := o.ledger.checkpoint()
	for _, want := range []error{manifest.ErrFenced, nil} {
		go func() {
			call := <-o.committer.requests
			call.done <- want
		}()
		if err := o.checkpoints.take(t.Context()); !errors.Is(err, want) {
			t.Fatalf("taking it ended with %v", err)
		}
		if want != nil && (o.checkpoints.newest != nil || o.ledger.mu.tail != tail) {
			t.Errorf("it counts as taken: %+v, of a tail of %d", o.checkpoints.newest, o.ledger.mu.tail)
		}
	}
	got := o.checkpoints.newest
	if got.Mark() != upTo || o.ledger.mu.tail != 0 {
		t.Errorf("it is up to %+v, want %+v, and leaves %d records", got.Mark(), upTo, o.ledger.mu.tail)
	}
	if read, err := o.claim.checkpointed(t.Context(), got); err != nil || !reflect.DeepEqual(read, live) {
		t.Errorf("read again: %+v, %v, want %+v", read, err, live)
	}
	for _, again := range []error{nil, errors.New("from the bucket")} { // first from the disk, where it was kept
		if read, err := o.claim.checkpointed(t.Context(), got); err != nil || !reflect.DeepEqual(read, live) {
			t.Errorf("read again, %v: %+v, %v, want %+v", again, read, err, live)
		}
		if err := o.ledger.disk.keepCheckpoint("0/checkpoint/another.tree", nil); err != nil {
			t.Fatal(err)
		}
	}
	lost := *got
	lost.Object.Key = "0/checkpoint/lost.tree"
	if _, err := o.claim.checkpointed(t.Context(), &lost); !errors.Is(err, ErrArchiveUnread) {
		t.Errorf("one that is lost: %v", err)
	}
	if err := o.site.Bucket.Put(t.Context(), lost.Object.Key, []byte("no tree")); err != nil {
		t.Fatal(err)
	}
	lost.Object.Size = 7
	if _, err := o.claim.checkpointed(t.Context(), &lost); !errors.Is(err, ErrArchiveUnread) ||
		!errors.Is(err, tree.ErrInvalid) {
		t.Errorf("one that is damaged: %v", err)
	}
}

// TestTreeOfCheckpointAndRecords: a claim finds the same tree from records alone, from a checkpoint with records behind
// it, and when the checkpoint's records are gone.
func TestTreeOfCheckpointAndRecords(t *testing.T) {
	o := claimed(t)
	commits(t, o, 3)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- o.committer.run(ctx) }()
	if err := o.checkpoints.take(t.Context()); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	commits(t, o, 2)
	live, version := o.ledger.live()
	look := func(at *manifest.Checkpoint, tail uint64) {
		t.Helper()
		pos := o.ledger.position()
		found, err := o.claim.readTree(t.Context(), at, &pos)
		if err != nil || !reflect.DeepEqual(found.tree, live) || found.version != version || found.tail != tail ||
			!samePosition(pos, o.ledger.position()) {
			t.Errorf("found %+v at %+v, %v, want %+v", found, pos, err, live)
		}
	}
	look(nil, 7)
	look(o.checkpoints.newest, 3)
	if err := manifest.Purge(t.Context(), o.site.JS, 0, o.checkpoints.newest); err != nil {
		t.Fatal(err)
	}
	look(o.checkpoints.newest, 3)
	pos := o.ledger.position()
	if _, err := o.claim.readTree(t.Context(), nil, &pos); !errors.Is(err, manifest.ErrGap) {
		t.Errorf("without the records and the checkpoint: %v", err)
	}
}

// TestTailOfAnotherOwner is not dropped by one that is fenced.
func TestTailOfAnotherOwner(t *testing.T) {
	o := claimed(t)
	o.checkpoints.newest = &manifest.Checkpoint{UpTo: 1}
	o.checkpoints.delay = 0
	o.system(t).shortenedTo(o)
	o.ledger.mu.pos.ManifestID = "another"
	if err := ingesttest.Ended(t, "the owner to end", func() error {
		return o.checkpoints.dropTail(t.Context())
	}); !errors.Is(err, manifest.ErrFenced) {
		t.Errorf("it ended with %v", err)
	}
}
