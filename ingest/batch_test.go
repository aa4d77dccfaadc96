package ingest

import (
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/wire"
)

// TestGapsAreCountedAsLoss: what was purged or deleted before it was taken in, at the beginning and in the middle.
func TestGapsAreCountedAsLoss(t *testing.T) {
	s := newSystem(t)
	dir := t.TempDir()
	n := s.start("a", dir)
	n.awaitOwned()
	s.Publish("logs.t.a", "1")
	n.awaitMetric("dormouse_entries_ingested_total", 1)
	n.stop()
	seqs := s.Publish("logs.t.a", "2", "3", "4", "5", "6")
	stream, err := s.JS.Stream(t.Context(), wire.DefaultSource)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Purge(t.Context(), jetstream.WithPurgeSequence(seqs[2])); err != nil { // loses 2 and 3
		t.Fatal(err)
	}
	if err := stream.DeleteMsg(t.Context(), seqs[3]); err != nil { // loses 5
		t.Fatal(err)
	}
	n = s.start("a", dir)
	n.awaitMetric("dormouse_entries_lost_total", 3)
	n.awaitMetric("dormouse_entries_ingested_total", 2)
}
