package ingest

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/entry"
	"dormouse/internal/wire"
	"dormouse/store/client"
	"dormouse/store/reader"
)

func (s *system) held(req wire.HeldRequest) wire.HeldReply {
	s.T.Helper()
	var reply wire.HeldReply
	if err := s.Ask(wire.OpHeld, req, &reply); err != nil || reply.Err() != nil {
		s.T.Fatal(err, reply.Err())
	}
	return reply
}

// TestReadersSeeTheBuffer: what the stream has dropped is read from the owner, before its commit and after it, also an
// entry that is larger than a reply.
func TestReadersSeeTheBuffer(t *testing.T) {
	s := newSystem(t)
	n := s.start("a", t.TempDir(), func(c *Config) { c.MaxDelay = time.Hour })
	n.awaitOwned()
	large := strings.Repeat("x", int(s.NC.MaxPayload())-100)
	s.Publish("logs.t.a", "1", "2", large, "4", "5", large)
	n.awaitMetric("dormouse_entries_ingested_total", 6)
	if err := s.Source().Purge(t.Context(), jetstream.WithPurgeSequence(5)); err != nil {
		t.Fatal(err)
	}
	owners := client.New(s.NC, s.JS)
	read := func() string {
		t.Helper()
		at, err := reader.Locate(t.Context(), owners, nil, "t.a") // without a look at the archive
		if err != nil {
			t.Fatal(err)
		}
		r, closeReader, err := reader.Open(t.Context(), owners, at, reader.NewBucket(s.JS, s.Bucket))
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
		len(got.Entries)+len(got.Pieces) > 0 {
		t.Errorf("of a log that there is not: %+v", got)
	}
}

// TestHeldTellsWhetherABatchIsWhole.
func TestHeldTellsWhetherABatchIsWhole(t *testing.T) {
	s := newSystem(t)
	n := s.start("a", t.TempDir())
	n.awaitOwned()
	s.Publish("logs.t.a", "1", "2")
	s.Publish("logs.t.b", "3")
	s.Publish("logs.t.a", "4", "5")
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
	_, extents := s.Drain("t.a")
	if refused := s.Commit("0/a.sst", extents...); len(refused) > 0 {
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
		if err := s.Ask(wire.OpHeld, req, &reply); err != nil || !errors.Is(reply.Err(), wire.ErrBadRequest) {
			t.Errorf("%s: %v, %+v", name, err, reply)
		}
	}
}
