package ingest

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"dormouse/ingest/ingesttest"
	"dormouse/ingest/shard"
	"dormouse/internal/entry"
	"dormouse/internal/extent"
	"dormouse/internal/rejected"
	"dormouse/internal/wire"
	"dormouse/store/manifest"
)

func TestRejectedEntriesAreKeptAside(t *testing.T) {
	s := newSystem(t)
	n := s.start("a", t.TempDir())
	n.awaitOwned()
	long := strings.Repeat("x", 300)
	s.Publish("logs.acme", "no log token")
	s.Publish("logs.t."+long, "too long")
	big := nats.NewMsg("logs.big")
	big.Header.Set("Nats-Msg-Id", "id")
	big.Data = []byte(strings.Repeat("b", int(s.NC.MaxPayload())-100))
	if _, err := s.JS.PublishMsg(t.Context(), big); err != nil {
		t.Fatal(err)
	}
	s.Publish("logs.t.good", "fine")
	s.TakeReady("t.good")
	n.awaitMetric("dormouse_entries_rejected_total", 3)
	stream, err := s.JS.Stream(t.Context(), wire.RejectedStream)
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
		if msg.Header.Get(rejected.Subject) == "" || msg.Header.Get(rejected.Sequence) == "" ||
			msg.Header.Get(rejected.Time) == "" {
			t.Errorf("headers missing: %v", msg.Header)
		}
		if msg.Header.Get(rejected.Part) != "" {
			value = append(value, msg.Data...)
			continue
		}
		reasons = append(reasons, msg.Header.Get(rejected.Reason))
	}
	if len(reasons) != 2 || !strings.Contains(reasons[0], "no log token") || !strings.Contains(reasons[1], "302 bytes") {
		t.Errorf("reasons %q", reasons)
	}
	if v, err := entry.DecodeValue(value); err != nil || len(v.Data) != len(big.Data) ||
		v.Headers["Nats-Msg-Id"][0] != "id" {
		t.Errorf("the large message did not come whole: %d bytes, %v", len(v.Data), err)
	}
}

// TestPutAsideOnce has two owners take in the same messages, each with an empty disk: those that have to be published
// again, since the archive has others under their sequences, and one that is no entry, are published once.
func TestPutAsideOnce(t *testing.T) {
	s := newSystem(t)
	never := func(c *Config) { c.Trim = shard.TrimNever }
	n := s.start("a", t.TempDir(), never)
	n.awaitOwned()
	n.stop()
	m, err := manifest.Open(t.Context(), s.JS, 0)
	if err != nil {
		t.Fatal(err)
	}
	last, _ := m.Last()
	before := time.Now().UnixNano()
	// of which the stream has nothing
	lost := extent.Extent{Log: "t.a", First: 1, Last: 3, Count: 3, MinTime: before, MaxTime: before}
	if _, err := m.Append(t.Context(), manifest.Record{Kind: manifest.Commit, Epoch: last.Epoch, Owner: "a",
		Segments: s.Segment("0/lost.sst", lost)}); err != nil {
		t.Fatal(err)
	}
	// The publishers' own ids must not make their entries duplicates of themselves.
	for i, payload := range []string{"new 1", "new 2"} {
		if _, err := s.JS.Publish(t.Context(), "logs.t.a", []byte(payload), jetstream.WithMsgID(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	s.Publish("logs.t", "no log token")
	for _, name := range []string{"b", "c"} {
		n = s.start(name, t.TempDir(), never)
		n.awaitMetric("dormouse_entries_republished_total", 2)
		n.awaitMetric("dormouse_entries_ingested_total", 2)
		if name == "b" {
			n.stop()
		}
	}
	s.TakeReady("t.a")
	if entries, _ := s.Drain("t.a"); ingesttest.Payloads(entries) != "new 1,new 2" {
		t.Errorf("drained %s, want each once", ingesttest.Payloads(entries))
	}
	for stream, want := range map[string]uint64{wire.DefaultSource: 5, wire.RejectedStream: 1} {
		if have, err := s.JS.Stream(t.Context(), stream); err != nil || have.CachedInfo().State.LastSeq != want {
			t.Errorf("%s has %d messages, want %d (%v)", stream, have.CachedInfo().State.LastSeq, want, err)
		}
	}
}

// reusing returns a system whose archive has entries of log t.a under the sequences up to last, which the stream has
// lost.
func reusing(t *testing.T, last uint64) *system {
	t.Helper()
	s := newSystem(t)
	n := s.start("a", t.TempDir())
	n.awaitOwned()
	n.stop()
	m, err := manifest.Open(t.Context(), s.JS, 0)
	if err != nil {
		t.Fatal(err)
	}
	record, _ := m.Last()
	before := time.Now().UnixNano()
	lost := extent.Extent{Log: "t.a", First: 1, Last: last, Count: last, MinTime: before, MaxTime: before}
	if _, err := m.Append(t.Context(), manifest.Record{Kind: manifest.Commit, Epoch: record.Epoch, Owner: "a",
		Segments: s.Segment("0/lost.sst", lost)}); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestLargeEntryIsPublishedAgain: one that has no room for a header.
func TestLargeEntryIsPublishedAgain(t *testing.T) {
	s := reusing(t, 2)
	s.Publish("logs.t.a", strings.Repeat("x", int(s.NC.MaxPayload())))
	s.Publish("logs.t.a", "small")
	n := s.start("b", t.TempDir(), func(c *Config) { c.MaxBytes, c.Trim = 4<<20, shard.TrimNever })
	n.awaitMetric("dormouse_entries_republished_total", 2)
	n.awaitMetric("dormouse_entries_ingested_total", 2)
	for seq, want := range map[uint64]int{3: int(s.NC.MaxPayload()), 4: len("small")} {
		if got := s.Stored(wire.DefaultSource, seq); len(got.Data) != want ||
			(got.Header.Get(jetstream.MsgIDHeader) == "") != (seq == 3) {
			t.Errorf("entry %d has %d bytes and headers %v", seq, len(got.Data), got.Header)
		}
	}
}

// TestRefusedRepublicationIsKeptAside: the stream's limit is below the size of what it took once. The shard goes on.
func TestRefusedRepublicationIsKeptAside(t *testing.T) {
	s := reusing(t, 2)
	s.Publish("logs.t.a", strings.Repeat("x", 2000), "small")
	source, err := s.JS.Stream(t.Context(), wire.DefaultSource)
	if err != nil {
		t.Fatal(err)
	}
	cfg := source.CachedInfo().Config
	cfg.MaxMsgSize = 1000
	if _, err := s.JS.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	n := s.start("b", t.TempDir())
	n.awaitMetric("dormouse_entries_ingested_total", 1)
	for name, want := range map[string]float64{"dormouse_entries_rejected_total": 1,
		"dormouse_entries_republished_total": 1} {
		if got := n.metric(name); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	kept := s.Stored(wire.RejectedStream, 1)
	if len(kept.Data) != 2000 || kept.Header.Get(rejected.Sequence) != "1" ||
		!strings.Contains(kept.Header.Get(rejected.Reason), "exceeds maximum") {
		t.Errorf("put aside: %d bytes, %v", len(kept.Data), kept.Header)
	}
}

// TestTransformedEntryIsNotPublishedAgain: nobody takes what the stream stores, so that a shard which waits for that
// would wait for ever.
func TestTransformedEntryIsNotPublishedAgain(t *testing.T) {
	s := reusing(t, 1)
	source, err := s.JS.Stream(t.Context(), wire.DefaultSource)
	if err != nil {
		t.Fatal(err)
	}
	cfg := source.CachedInfo().Config
	cfg.Subjects, cfg.SubjectTransform = []string{"in.>"},
		&jetstream.SubjectTransformConfig{Source: "in.>", Destination: "logs.>"}
	if _, err := s.JS.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	s.Publish("in.t.a", "reused", "after it")
	n := s.start("b", t.TempDir())
	n.awaitMetric("dormouse_entries_ingested_total", 1)
	for name, want := range map[string]float64{"dormouse_entries_rejected_total": 1,
		"dormouse_entries_republished_total": 0} {
		if got := n.metric(name); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	kept := s.Stored(wire.RejectedStream, 1)
	if string(kept.Data) != "reused" || !strings.Contains(kept.Header.Get(rejected.Reason), "subject transform") {
		t.Errorf("put aside: %q, %v", kept.Data, kept.Header)
	}
}

// TestRejectedWithAllTheHeadersThatFit: the server's limit leaves no room for more headers.
func TestRejectedWithAllTheHeadersThatFit(t *testing.T) {
	s := newSystem(t)
	n := s.start("a", t.TempDir())
	n.awaitOwned()
	msg := nats.NewMsg("logs.bad")
	msg.Header.Set("Large", strings.Repeat("h", 65_450))
	if _, err := s.JS.PublishMsg(t.Context(), msg); err != nil {
		t.Fatal(err)
	}
	n.awaitMetric("dormouse_entries_rejected_total", 1)
	kept := s.Stored(wire.RejectedStream, 1)
	if v, err := entry.DecodeValue(kept.Data); kept.Header.Get(rejected.Part) != "1/1" || err != nil ||
		len(v.Headers["Large"][0]) != 65_450 {
		t.Errorf("put aside with headers %v, %v", kept.Header, err)
	}
}

// TestAnswersThatNeverCome: more messages are to be put aside than may wait for acks at a time, and all acks are lost.
func TestAnswersThatNeverCome(t *testing.T) {
	t.Parallel() // it waits most of its time
	s := newSystem(t)
	const bad = 1100
	for range bad {
		if err := s.NC.Publish("logs.x", []byte("no log token")); err != nil {
			t.Fatal(err)
		}
	}
	s.Publish("logs.t.good", "1")
	js, err := jetstream.New(s.NC, jetstream.WithPublishAsyncMaxPending(100))
	if err != nil {
		t.Fatal(err)
	}
	callOff := s.Silence()
	n := s.start("a", t.TempDir(), func(c *Config) { c.JS = js })
	n.awaitOwned()
	n.awaitMetric("dormouse_shard_stuck", 1) // for longer than a lease: however many came in the first batch
	callOff()
	n.awaitMetric("dormouse_entries_rejected_total", bad)
	n.awaitMetric("dormouse_entries_ingested_total", 1)
}

// TestStopWhilePuttingAside does not wait for acks.
func TestStopWhilePuttingAside(t *testing.T) {
	s := newSystem(t)
	s.Silence()
	published := make(chan struct{})
	told := sync.OnceFunc(func() { close(published) })
	if _, err := s.NC.Subscribe(wire.RejectedSubjects, func(*nats.Msg) { told() }); err != nil {
		t.Fatal(err)
	}
	s.Publish("logs.x", "no log token")
	n := s.start("a", t.TempDir())
	<-published
	began := time.Now()
	n.stop()
	const rejectTimeout = 5 * time.Second // of package shard
	if took := time.Since(began); took > rejectTimeout/2 {
		t.Errorf("stopped after %s", took)
	}
}
