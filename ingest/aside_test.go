package ingest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/entry"
	"dormouse/internal/extent"
	"dormouse/internal/topology"
	"dormouse/internal/wire"
	"dormouse/store/manifest"
)

func TestRejectedEntriesAreKeptAside(t *testing.T) {
	s := newSystem(t)
	n := s.start("a", t.TempDir())
	n.awaitOwned()
	long := strings.Repeat("x", 300)
	s.publish("logs.acme", "no log token")
	s.publish("logs.t."+long, "too long")
	big := nats.NewMsg("logs.big")
	big.Header.Set("Nats-Msg-Id", "id")
	big.Data = []byte(strings.Repeat("b", int(s.nc.MaxPayload())-1000))
	if _, err := s.js.PublishMsg(t.Context(), big); err != nil {
		t.Fatal(err)
	}
	s.publish("logs.t.good", "fine")
	s.takeReady("t.good")
	n.awaitMetric("dormouse_entries_rejected_total", 3)
	stream, err := s.js.Stream(t.Context(), wire.RejectedStream)
	if err != nil {
		t.Fatal(err)
	}
	var reasons []string
	var value []byte
	for seq := uint64(1); seq <= stream.CachedInfo().State.LastSeq; seq++ {
		msg, err := stream.GetMsg(t.Context(), seq)
		if err != nil {
			t.Fatal(err)
		}
		if msg.Header.Get(headerSubject) == "" || msg.Header.Get(headerSequence) == "" || msg.Header.Get(headerTime) == "" {
			t.Errorf("headers missing: %v", msg.Header)
		}
		if msg.Header.Get(headerPart) != "" {
			value = append(value, msg.Data...)
			continue
		}
		reasons = append(reasons, msg.Header.Get(headerReason))
	}
	if len(reasons) != 2 || !strings.Contains(reasons[0], "no log token") || !strings.Contains(reasons[1], "302 bytes") {
		t.Errorf("reasons %q", reasons)
	}
	if v, err := entry.DecodeValue(value); err != nil || len(v.Data) != len(big.Data) || v.Headers["Nats-Msg-Id"][0] != "id" {
		t.Errorf("the large message did not come whole: %d bytes, %v", len(v.Data), err)
	}
}

// TestPutAsideOnce has two owners take in the same messages, each with an empty disk: those that have to be published again,
// since the archive has others under their sequences, and one that is no entry, are published once.
func TestPutAsideOnce(t *testing.T) {
	s := newSystem(t)
	never := func(c *Config) { c.Trim = TrimNever }
	n := s.start("a", t.TempDir(), never)
	n.awaitOwned()
	n.stop()
	m, err := manifest.Open(t.Context(), s.js, 0)
	if err != nil {
		t.Fatal(err)
	}
	last, _ := m.Last()
	before := time.Now().UnixNano()
	lost := extent.Extent{Log: "t.a", First: 1, Last: 3, Count: 3, MinTime: before, MaxTime: before} // of which the stream has nothing
	if _, err := m.Append(t.Context(), manifest.Record{Kind: manifest.Commit, Epoch: last.Epoch, Owner: "a",
		Segments: []manifest.Committed{{Segment: extent.Segment{Key: "0/lost.sst"}, Extents: []extent.Extent{lost}}}}); err != nil {
		t.Fatal(err)
	}
	// The publishers' own ids must not make their entries duplicates of themselves.
	for i, payload := range []string{"new 1", "new 2"} {
		if _, err := s.js.Publish(t.Context(), "logs.t.a", []byte(payload), jetstream.WithMsgID(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	s.publish("logs.t", "no log token")
	for _, name := range []string{"b", "c"} {
		n = s.start(name, t.TempDir(), never)
		n.awaitMetric("dormouse_entries_republished_total", 2)
		n.awaitMetric("dormouse_entries_ingested_total", 2)
		if name == "b" {
			n.stop()
		}
	}
	s.takeReady("t.a")
	if entries, _ := s.drain("t.a"); payloads(entries) != "new 1,new 2" {
		t.Errorf("drained %s, want each once", payloads(entries))
	}
	for stream, want := range map[string]uint64{wire.DefaultSource: 5, wire.RejectedStream: 1} {
		if have, err := s.js.Stream(t.Context(), stream); err != nil || have.CachedInfo().State.LastSeq != want {
			t.Errorf("%s has %d messages, want %d (%v)", stream, have.CachedInfo().State.LastSeq, want, err)
		}
	}
}

// TestAsideID: a sequence that is used again, or another reason to put a message aside, makes another id.
func TestAsideID(t *testing.T) {
	o := &owner{source: topology.Source{Stream: "LOGS"}}
	at := func(seq uint64, nanos int64, what string) string {
		meta := &jetstream.MsgMetadata{Timestamp: time.Unix(0, nanos)}
		meta.Sequence.Stream = seq
		return o.asideID(meta, what)
	}
	seen := make(map[string]bool)
	for _, id := range []string{at(1, 1, ""), at(1, 1, "1"), at(1, 1, "again"), at(1, 2, "again"), at(2, 1, "again"), at(12, 1, "1"), at(1, 21, "1")} {
		if seen[id] {
			t.Errorf("two messages have the id %s", id)
		}
		seen[id] = true
	}
	if again := at(1, 1, "again"); !seen[again] {
		t.Error("the same message gets two ids")
	}
}
