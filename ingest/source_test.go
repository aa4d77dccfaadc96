package ingest

import (
	"strings"
	"testing"

	"dormouse/ingest/ingesttest"
	"dormouse/internal/topology"
	"dormouse/internal/wire"
)

// TestDeletedSource: an owner whose stream is gone can be stopped.
func TestDeletedSource(t *testing.T) {
	s := newSystem(t)
	n := s.start("a", t.TempDir())
	n.awaitOwned()
	s.Publish("logs.t.a", "1")
	n.awaitMetric("dormouse_entries_ingested_total", 1)
	if err := s.JS.DeleteStream(t.Context(), "LOGS"); err != nil {
		t.Fatal(err)
	}
	_ = ingesttest.Ended(t, "the node to stop", func() error { n.stop(); return nil })
}

// TestNoSourceIsLeft: a node whose last shard's stream was deleted does not look ready, with nothing to be kept.
func TestNoSourceIsLeft(t *testing.T) {
	shards := newShardStates()
	shards.set(0, shardStatus{state: wire.ShardOwned})
	shards.begin()
	if err := shards.ready(); err != nil {
		t.Errorf("with a shard: %v", err)
	}
	shards.drop(0)
	if err := shards.ready(); err == nil || !strings.Contains(err.Error(), "provision") {
		t.Errorf("without any: %v", err)
	}
}

// TestSourceThatIsAnotherShardNow: it was added again with another prefix, and the old number has no stream any more.
func TestSourceThatIsAnotherShardNow(t *testing.T) {
	was := topology.Source{Shard: 0, Stream: "EDGE", Prefix: "wrong"}
	now := topology.Source{Shard: 1, Stream: "EDGE", Prefix: "edge"}
	n := &Node{}
	if !n.isGone(t.Context(), was, []topology.Source{now}) || n.isGone(t.Context(), now, []topology.Source{now}) {
		t.Error("the old shard is kept, or the new one is not")
	}
}

// TestSourceMadeAnew: the owner of the old one steps down and claims the new one from its beginning.
func TestSourceMadeAnew(t *testing.T) {
	s := newSystem(t)
	n := s.start("a", t.TempDir())
	n.awaitOwned()
	s.Publish("logs.t.a", "1")
	n.awaitMetric("dormouse_entries_ingested_total", 1)
	s.remakeSource()
	s.Publish("logs.t.b", "new 1")
	n.awaitMetric("dormouse_owner_stepdowns_total", 1)
	s.TakeReady("t.b")
	if entries, _ := s.Drain("t.b"); ingesttest.Payloads(entries) != "new 1" {
		t.Errorf("drained %s", ingesttest.Payloads(entries))
	}
}
