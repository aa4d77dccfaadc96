package ingest

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/entry"
	"dormouse/internal/extent"
	"dormouse/internal/wire"
	"dormouse/store/cache"
	"dormouse/store/client"
	"dormouse/store/reader"
)

func (s *system) held(req wire.HeldRequest) wire.HeldReply {
	s.t.Helper()
	var reply wire.HeldReply
	if err := s.ask(wire.OpHeld, req, &reply); err != nil || reply.Err() != nil {
		s.t.Fatal(err, reply.Err())
	}
	return reply
}

func (s *system) source() jetstream.Stream {
	s.t.Helper()
	stream, err := s.js.Stream(s.t.Context(), wire.DefaultSource)
	if err != nil {
		s.t.Fatal(err)
	}
	return stream
}

func (s *system) message(seq uint64) *jetstream.RawStreamMsg {
	s.t.Helper()
	msg, err := s.source().GetMsg(s.t.Context(), seq)
	if err != nil {
		s.t.Fatal(err)
	}
	return msg
}

// TestReadersSeeTheBuffer: what the stream has dropped is read from the owner, before its commit and after it, also an
// entry that is larger than a reply.
func TestReadersSeeTheBuffer(t *testing.T) {
	s := newSystem(t)
	n := s.start("a", t.TempDir(), func(c *Config) { c.MaxDelay = time.Hour })
	n.awaitOwned()
	large := strings.Repeat("x", int(s.nc.MaxPayload())-100)
	s.publish("logs.t.a", "1", "2", large, "4", "5", large)
	n.awaitMetric("dormouse_entries_ingested_total", 6)
	if err := s.source().Purge(t.Context(), jetstream.WithPurgeSequence(5)); err != nil {
		t.Fatal(err)
	}
	owners := client.New(s.nc, s.js)
	read := func() string {
		t.Helper()
		at, err := reader.Locate(t.Context(), owners, "t.a")
		if err != nil {
			t.Fatal(err)
		}
		r, closeReader, err := reader.Open(t.Context(), owners, at, s.bucket)
		if err != nil {
			t.Fatal(err)
		}
		defer closeReader()
		var got []string
		err = r.Read(t.Context(), reader.Query{Log: "t.a"}, func(e entry.Entry) error {
			got = append(got, fmt.Sprintf("%d:%d", e.Seq, len(e.Data)))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(got, " ")
	}
	want := fmt.Sprintf("1:1 2:1 3:%d 4:1 5:1 6:%d", len(large), len(large))
	if got := read(); got != want {
		t.Errorf("buffered: read %s", got)
	}
	if got := s.held(wire.HeldRequest{Log: "t.a"}); !got.Buffered || len(got.Entries) > 0 || got.Applied != 6 ||
		got.Archive != "mem://" {
		t.Errorf("asked for nothing: %+v", got)
	}
	if got := s.held(wire.HeldRequest{Log: "t.b", MaxBytes: 1}); got.Buffered || got.More ||
		len(got.Entries)+len(got.Extents) > 0 {
		t.Errorf("of a log that there is not: %+v", got)
	}
}

// TestHeldTellsWhetherABatchIsWhole.
func TestHeldTellsWhetherABatchIsWhole(t *testing.T) {
	s := newSystem(t)
	n := s.start("a", t.TempDir())
	n.awaitOwned()
	s.publish("logs.t.a", "1", "2")
	s.publish("logs.t.b", "3")
	s.publish("logs.t.a", "4", "5")
	n.awaitMetric("dormouse_entries_ingested_total", 5)
	check := func(after, upTo uint64, seqs ...uint64) bool {
		t.Helper()
		return s.held(wire.HeldRequest{Log: "t.a", After: after, UpTo: upTo, Seqs: seqs}).Complete
	}
	for _, tc := range []struct {
		after, upTo uint64
		seqs        []uint64
		want        bool
	}{
		{0, 5, []uint64{1, 2, 4, 5}, true}, {0, 5, []uint64{1, 2, 5}, false}, {0, 5, []uint64{1, 2, 3, 5}, false},
		{0, 5, []uint64{1, 2, 4}, false},
		{0, 4, []uint64{1, 2, 4}, true}, {2, 3, nil, true}, {2, 4, nil, false}, {2, 5, []uint64{4, 5}, true},
		{5, 6, nil, false}, {4, 9, []uint64{5}, false},
	} {
		if got := check(tc.after, tc.upTo, tc.seqs...); got != tc.want {
			t.Errorf("%v above %d up to %d: %v", tc.seqs, tc.after, tc.upTo, got)
		}
	}
	_, extents := s.drain("t.a")
	if refused := s.commit("0/a.sst", extents...); len(refused) > 0 {
		t.Fatal(refused)
	}
	if check(2, 5, 4, 5) {
		t.Error("a batch of which a part is archived is said to be whole")
	}
	for name, req := range map[string]wire.HeldRequest{
		"no log":          {Log: "t"},
		"backwards":       {Log: "t.a", After: 5, UpTo: 5},
		"negative":        {Log: "t.a", Offset: -1},
		"the end":         {Log: "t.a", After: ^uint64(0)},
		"too many":        {Log: "t.a", UpTo: 9, Seqs: make([]uint64, wire.MaxHeld+1)},
		"beyond an entry": {Log: "t.b", Offset: 100, MaxBytes: 1},
	} {
		var reply wire.HeldReply
		if err := s.ask(wire.OpHeld, req, &reply); err != nil || !errors.Is(reply.Err(), wire.ErrBadRequest) {
			t.Errorf("%s: %v, %+v", name, err, reply)
		}
	}
}

// TestHeldIsInOrder: archive and buffer lie between each other, as when a node that had a part of a log buffered gets
// the shard back after another one has archived what came later. Pages of any size bring all of it in order.
func TestHeldIsInOrder(t *testing.T) {
	db, err := cache.Open(t.TempDir(), cache.Options{})
	if err != nil {
		t.Fatal(err)
	}
	o := &owner{cfg: Config{DB: db}, ledger: newLedger(db, 0, nil), log: slog.New(slog.DiscardHandler)}
	defer db.Close()
	batch := db.NewBatch()
	var scratch []byte
	for _, seq := range []uint64{1, 2, 5, 6, 12} {
		if scratch, err = o.ledger.buffer.Put(batch, scratch, "t.a", seq,
			entry.AppendValue(nil, time.Unix(1, 0), nil, bytes.Repeat([]byte("x"), 2000))); err != nil {
			t.Fatal(err)
		}
	}
	for _, e := range []extent.Extent{{First: 3, Last: 4, Count: 2}, {First: 8, Last: 9, Count: 2},
		{First: 10, Last: 10, Count: 1}} {
		e.Log = "t.a"
		if err := o.ledger.catalog.Put(batch, e, extent.Segment{Key: "0/x.sst", Size: 1}); err != nil {
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
				v, err := o.ledger.view()
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
