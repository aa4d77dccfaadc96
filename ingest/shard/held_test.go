package shard

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"time"

	"dormouse/internal/entry"
	"dormouse/internal/extent"
	"dormouse/internal/wire"
	"dormouse/store/cache"
)

// TestHeldIsInOrder: archive and buffer lie between each other, as when a node that had a part of a log buffered gets
// the shard back after another one has archived what came later. Pages of any size bring all of it in order.
func TestHeldIsInOrder(t *testing.T) {
	db, err := cache.Open(t.TempDir(), cache.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l := newLedger(newDisk(db, 0), nil, nil)
	defer db.Close()
	batch := db.NewBatch()
	var scratch []byte
	for _, seq := range []uint64{1, 2, 5, 6, 12} {
		if scratch, err = l.disk.buffer.Put(batch, scratch, "t.a", seq,
			entry.AppendValue(nil, time.Unix(1, 0), nil, bytes.Repeat([]byte("x"), 2000))); err != nil {
			t.Fatal(err)
		}
	}
	for _, e := range []extent.Extent{{First: 3, Last: 4, Count: 2}, {First: 8, Last: 9, Count: 2},
		{First: 10, Last: 10, Count: 1}} {
		e.Log = "t.a"
		if err := l.disk.catalog.Put(batch, e, extent.Segment{Key: "0/x.sst", Size: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(batch.Commit(noSync), batch.Close()); err != nil {
		t.Fatal(err)
	}
	want := []uint64{1, 2, 3, 4, 5, 6, 8, 9, 10, 12}
	for _, bytes := range []int{1, 5000, 1 << 20} {
		for _, limit := range []int{1, 2, 100} {
			var got []uint64
			req := wire.HeldRequest{Log: "t.a", MaxBytes: bytes}
			for more := true; more; {
				v, err := l.view()
				if err != nil {
					t.Fatal(err)
				}
				reply, err := v.answer(req, limit)
				if err := errors.Join(err, v.close()); err != nil {
					t.Fatal(err)
				}
				for _, l := range reply.Extents {
					req.After = l.Extent.Last
					got = append(got, slices.Compact([]uint64{l.Extent.First, l.Extent.Last})...)
				}
				for _, e := range reply.Entries {
					if req.Offset += len(e.Value); e.Total > req.Offset {
						continue
					}
					req.After, req.Offset = e.Seq, 0
					got = append(got, e.Seq)
				}
				if more = reply.More; len(got) > len(want) {
					t.Fatalf("got %v", got)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("pages of %d bytes and %d extents: %v", bytes, limit, got)
			}
		}
	}
}
