package ingest

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"dormouse/internal/header"
	"dormouse/internal/jsapi"
	"dormouse/internal/natstest"
	"dormouse/internal/ordered"
	"dormouse/internal/rejected"
	"dormouse/internal/wire"
)

// raw publishes header blocks as they are.
func (s *system) raw() *natstest.Raw {
	s.t.Helper()
	conn, err := s.srv.InProcessConn()
	if err != nil {
		s.t.Fatal(err)
	}
	return natstest.NewRaw(s.t, conn)
}

// TestHeaderBlocks: whatever a publisher sends as a header block, its names and values are archived, or the whole block
// is put aside; in the order of their sequences, with usual entries between them.
func TestHeaderBlocks(t *testing.T) {
	s := newSystem(t)
	raw := s.raw()
	want := make(map[uint64]map[string][]string) // by sequence; nil for what is rejected
	blocks := make(map[uint64]string)
	for _, block := range []string{
		"NATS/1.0\r\nno colon\r\nA: 1\r\n\r\n", "NATS/1.0\r\nA: 1\r\n", "NATS/1.0\r\nA: 1\r\n\r\ntrailing",
		"NATS/1.0\r\n: 1\r\n\r\n", "garbage", "NATS/1.0 404\r\nStatus: 1\r\n\r\n",
		"NATS/1.0\r\nA: J\xf6rg\r\n\xff:\tx\r\nB:   1 \r\n\r\n", "NATS/1.0 404 Not Found\r\nA: 1\r\n\r\n",
		"NATS/1.0\nA: 1\n\n", "NATS/1.0\r\nA:1\r\nA: 2\r\n\r\n",
		"NATS/1.0\r\nA: " + strings.Repeat("x", 60_000) + "\r\nno colon\r\n\r\n", "NATS/1.0\r\nusual: 1\r\n\r\n",
	} {
		seq := raw.Publish("logs.t.a", block, []byte("data"))
		stored, err := jsapi.Get(t.Context(), s.js, wire.DefaultSource, seq) // the server mends some
		if err != nil {
			t.Fatal(err)
		}
		want[seq], _ = header.Parse(stored.Header)
		blocks[seq] = string(stored.Header)
	}
	n := s.start("a", t.TempDir())
	s.takeReady("t.a")
	entries, _ := s.drain("t.a")
	last := uint64(0)
	for _, e := range entries {
		if headers, ok := want[e.Seq]; !ok || headers == nil || !reflect.DeepEqual(e.Headers, headers) ||
			string(e.Data) != "data" || e.Seq <= last {
			t.Errorf("%q is entry %d after %d, with headers %q", blocks[e.Seq], e.Seq, last, e.Headers)
		}
		last = e.Seq
		delete(want, e.Seq)
	}
	n.awaitMetric("dormouse_entries_rejected_total", float64(len(want)))
	for kept := uint64(1); kept <= uint64(len(want)); kept++ {
		msg := s.stored(wire.RejectedStream, kept)
		seq, err := strconv.ParseUint(msg.Header.Get(rejected.Sequence), 10, 64)
		if err != nil || string(msg.Data) != blocks[seq]+"data" ||
			msg.Header.Get(rejected.Block) != fmt.Sprint(len(blocks[seq])) ||
			!strings.Contains(msg.Header.Get(rejected.Reason), "header block") ||
			msg.Header.Get(rejected.Subject) != "logs.t.a" {
			t.Errorf("%q is kept as %.100q with %.200q, %v", blocks[seq], msg.Data, msg.Header, err)
		}
		if headers, missing := want[seq]; !missing || headers != nil {
			t.Errorf("%q was rejected", blocks[seq])
		}
		delete(want, seq)
	}
}

// TestRejectedWithHeadersThatCannotBeSent: the client library refuses some names that the server takes. The shard goes
// on.
func TestRejectedWithHeadersThatCannotBeSent(t *testing.T) {
	s := newSystem(t)
	s.raw().Publish("logs.x", "NATS/1.0\r\na b: 1\r\nDormouse-Reason: mine\r\n\r\n", nil)
	s.publish("logs.t.good", "1")
	n := s.start("a", t.TempDir())
	n.awaitMetric("dormouse_entries_rejected_total", 1)
	n.awaitMetric("dormouse_entries_ingested_total", 1)
}

// TestRepublishedWithHeadersForTheServer: it has done what they say, and must not do it again.
func TestRepublishedWithHeadersForTheServer(t *testing.T) {
	s := reusing(t, 3)
	raw := s.raw()
	raw.Publish("logs.t.a", "NATS/1.0\r\nNats-Expected-Last-Sequence: 0\r\nA: 1\r\n\r\n", []byte("1"))
	raw.Publish("logs.t.a", "NATS/1.0\r\na b: 1\r\n\r\n", []byte("2"))
	raw.Publish("logs.t.a", "NATS/1.0\r\nNats-Msg-Id: id\r\nNats-Trace-Hop: 1\r\n\r\n", []byte("3"))
	n := s.start("b", t.TempDir(), func(c *Config) { c.Trim = TrimNever })
	n.awaitMetric("dormouse_entries_republished_total", 2)
	n.awaitMetric("dormouse_entries_rejected_total", 1)
	for seq, want := range map[uint64]string{4: "Nats-Expected-Last-Sequence", 5: "Nats-Trace-Hop"} {
		if got := s.stored(wire.DefaultSource, seq); got.Header.Get(want) != "" ||
			got.Header.Get(rejected.Original+want) == "" {
			t.Errorf("entry %d was published again with %q", seq, got.Header)
		}
	}
}

// TestDoubtsThatAreGone: a message that the stream dropped between its coming and the look at its block is a gap, in
// its place among the others; one that is another by now makes the owner read again.
func TestDoubtsThatAreGone(t *testing.T) {
	o := claimed(t)
	s := &system{t: t, nc: o.cfg.NC, js: o.cfg.JS}
	for range 3 {
		if _, err := s.js.PublishMsg(t.Context(), &nats.Msg{Subject: "logs.t.a",
			Header: nats.Header{"A": {"1"}}}); err != nil {
			t.Fatal(err)
		}
	}
	doubts := func(seqs ...uint64) *batch {
		in := o.intake.newBatch()
		t.Cleanup(in.close)
		in.batch = o.cfg.DB.NewBatch()
		for _, seq := range seqs {
			in.doubts = append(in.doubts, ordered.Message{Subject: "logs.t.a", Sequence: seq, Time: s.message(seq).Time})
		}
		return in
	}
	in, another, unasked := doubts(1, 2, 3), doubts(1), doubts(3)
	in.gaps = []span{{7, 8}}
	another.doubts[0].Time = another.doubts[0].Time.Add(1)
	if err := o.from.stream.DeleteMsg(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	o.advance.begins(taking)
	_, began, _, _ := o.advance.heldUp(0)
	if err := in.lookAgain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(in.gaps, []span{{2, 2}, {7, 8}}) || len(in.arrivals) != 2 || in.arrivals[0].Seq != 1 ||
		in.arrivals[1].Seq != 3 || len(in.doubts) > 0 {
		t.Errorf("gaps %v, arrivals %v, doubts %v", in.gaps, in.arrivals, in.doubts)
	}
	if _, since, _, _ := o.advance.heldUp(0); !since.After(began) {
		t.Error("the shard is held up as before")
	}
	if err := another.lookAgain(t.Context()); !errors.Is(err, errSource) || len(another.arrivals) > 0 {
		t.Errorf("another one by now: %v, %v", another.arrivals, err)
	}
	js, refuse := s.refusing("STREAM.MSG.GET." + wire.DefaultSource)
	refuse.Store(true)
	o.asksBy(js)
	if err := unasked.lookAgain(t.Context()); !errors.Is(err, errSource) || len(unasked.arrivals)+len(unasked.gaps) > 0 {
		t.Errorf("no answer: %v, %v, %v", unasked.arrivals, unasked.gaps, err)
	}
}
