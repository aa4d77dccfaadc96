package ingest

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"dormouse/ingest/shard"
	"dormouse/internal/header"
	"dormouse/internal/jsapi"
	"dormouse/internal/natstest"
	"dormouse/internal/rejected"
	"dormouse/internal/wire"
)

// raw publishes header blocks as they are.
func (s *system) raw() *natstest.Raw {
	s.T.Helper()
	conn, err := s.Server.InProcessConn()
	if err != nil {
		s.T.Fatal(err)
	}
	return natstest.NewRaw(s.T, conn)
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
		stored, err := jsapi.Get(t.Context(), s.JS, wire.DefaultSource, seq) // the server mends some
		if err != nil {
			t.Fatal(err)
		}
		want[seq], _ = header.Parse(stored.Header)
		blocks[seq] = string(stored.Header)
	}
	n := s.start("a", t.TempDir())
	s.TakeReady("t.a")
	entries, _ := s.Drain("t.a")
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
		msg := s.Stored(wire.RejectedStream, kept)
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
	s.Publish("logs.t.good", "1")
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
	n := s.start("b", t.TempDir(), func(c *Config) { c.Trim = shard.TrimNever })
	n.awaitMetric("dormouse_entries_republished_total", 2)
	n.awaitMetric("dormouse_entries_rejected_total", 1)
	for seq, want := range map[uint64]string{4: "Nats-Expected-Last-Sequence", 5: "Nats-Trace-Hop"} {
		if got := s.Stored(wire.DefaultSource, seq); got.Header.Get(want) != "" ||
			got.Header.Get(rejected.Original+want) == "" {
			t.Errorf("entry %d was published again with %q", seq, got.Header)
		}
	}
}
