package shard

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"dormouse/internal/entry"
	"dormouse/internal/extent"
	"dormouse/internal/wire"
	"dormouse/store/cache"
)

// TestHeldInPages: pages of any size bring all segments that can have a log, in the tree's order and each once, and
// behind them what is buffered.
func TestHeldInPages(t *testing.T) {
	db, err := cache.Open(t.TempDir(), cache.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l := newLedger(newDisk(db, 0), nil, nil)
	defer db.Close()
	batch := db.NewBatch()
	var scratch []byte
	for _, seq := range []uint64{31, 32, 35} {
		if scratch, err = l.disk.buffer.Put(batch, scratch, "t.a", seq,
			entry.AppendValue(nil, time.Unix(1, 0), nil, bytes.Repeat([]byte("x"), 2000))); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(batch.Commit(noSync), batch.Close()); err != nil {
		t.Fatal(err)
	}
	var want []string
	for record := range uint64(6) {
		log, next := "t.a", extent.Extent{Log: "t.b", First: 5*record + 2, Last: 5*record + 2, Count: 1}
		if record == 3 {
			log = "t.aa" // which does not sort with t.a
		}
		key := func(n int) string { return fmt.Sprintf("0/%d-%d.sst", record, n) }
		segments := []extent.Summary{
			extent.Summarize(extent.Segment{Key: key(0), Size: 1}, []extent.Extent{{Log: log, First: 5*record + 1,
				Last: 5*record + 1, Count: 1}}),
			extent.Summarize(extent.Segment{Key: key(1), Size: 1}, []extent.Extent{next}),
		}
		if record == 4 { // so wide that it can have both
			segments[1].First = "t."
			want = append(want, key(0), key(1))
		} else if record != 3 {
			want = append(want, key(0))
		}
		if l.mu.tree, err = l.mu.tree.Commit(record+1, segments); err != nil {
			t.Fatal(err)
		}
	}
	want = append(want, "31", "32", "35")
	for _, bytes := range []int{1, 5000, 1 << 20} {
		for _, room := range []int{1, 1000, 1 << 20} {
			var got []string
			req := wire.HeldRequest{Log: "t.a", MaxBytes: bytes}
			for more := true; more; {
				v, err := l.view()
				if err != nil {
					t.Fatal(err)
				}
				reply, err := v.answer(req, room)
				if err := errors.Join(err, v.close()); err != nil {
					t.Fatal(err)
				}
				for _, p := range reply.Pieces {
					req.Since = p.Newest
					got = append(got, p.Segment.Object.Key)
				}
				for _, e := range reply.Entries {
					if req.Offset += len(e.Value); e.Total > req.Offset {
						continue
					}
					req.After, req.Offset = e.Seq, 0
					got = append(got, fmt.Sprint(e.Seq))
				}
				if more = reply.More; len(got) > len(want) || !reply.Buffered && len(got) < len(want) {
					t.Fatalf("got %v, buffered %v", got, reply.Buffered)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("pages of %d bytes and %d of room: %v, want %v", bytes, room, got, want)
			}
		}
	}
}

// TestComplete: what came into the archive after the asker has read it makes a batch of the stream incomplete, and
// nothing else does but an entry that the buffer has and the batch has not, or the other way round.
func TestComplete(t *testing.T) {
	o := claimed(t)
	extents := fill(t, o, []string{"t.a", "t.b"}, 2) // t.a: 1 and 3
	has := func(req wire.HeldRequest) bool {
		t.Helper()
		req.Log = "t.a"
		reply, err := o.server.look(req)
		if err != nil || len(reply.Pieces)+len(reply.Entries) > 0 {
			t.Fatalf("%+v, %v", reply, err)
		}
		return reply.Complete
	}
	for name, tc := range map[string]struct {
		req  wire.HeldRequest
		want bool
	}{
		"all":            {wire.HeldRequest{UpTo: 4, Seqs: []uint64{1, 3}}, true},
		"one is missing": {wire.HeldRequest{UpTo: 4, Seqs: []uint64{1}}, false},
		"one too many":   {wire.HeldRequest{UpTo: 4, Seqs: []uint64{1, 2, 3}}, false},
		"not so far":     {wire.HeldRequest{UpTo: 5, Seqs: []uint64{1, 3}}, false},
		"above the rest": {wire.HeldRequest{After: 3, UpTo: 4}, true},
	} {
		if got := has(tc.req); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	o.commit(t, "0/a.sst", extents...)
	_, version := o.ledger.live()
	for name, tc := range map[string]struct {
		req  wire.HeldRequest
		want bool
	}{
		"it was archived":          {wire.HeldRequest{UpTo: 4, Seqs: []uint64{1, 3}}, false},
		"that was read":            {wire.HeldRequest{After: 3, UpTo: 4, Since: version}, true},
		"it was not":               {wire.HeldRequest{After: 2, UpTo: 4, Since: version - 1}, false},
		"nothing of it is so high": {wire.HeldRequest{After: 4, UpTo: 4 + 0}, false},
	} {
		if tc.req.UpTo <= tc.req.After {
			continue // not to be asked
		}
		if got := has(tc.req); got != tc.want {
			t.Errorf("archived, %s: %v", name, got)
		}
	}
}
