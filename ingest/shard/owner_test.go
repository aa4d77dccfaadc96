package shard

import (
	"slices"
	"testing"

	"github.com/nats-io/nats.go"

	"dormouse/ingest/ingesttest"
	"dormouse/internal/wire"
)

// TestCommitInHandAtTheEnd: an owner that is told to end makes what it has decided lasting, and says so.
func TestCommitInHandAtTheEnd(t *testing.T) {
	h := &ingesttest.Hooked{}
	h.Set(func(*nats.Msg) {})
	o := claimed(t, func(c *Config) { h.JetStream, c.JS = c.JS, h })
	s, end := o.serve(t)
	s.Publish("logs.t.a", "1")
	s.Until("the entry", func() bool { return o.ledger.applied() == 1 })
	_, extents := s.Drain("t.a")
	reached, ended := make(chan struct{}), make(chan struct{})
	h.Set(func(*nats.Msg) { close(reached); <-ended })
	go func() { <-reached; end(); close(ended) }()
	if refused := s.Commit("0/a.sst", extents...); len(refused) > 0 {
		t.Errorf("refused %v", refused)
	}
	h.Set(func(*nats.Msg) {})
	if got := s.Archived("t.a"); !slices.Equal(got, []uint64{1}) {
		t.Errorf("archived %v", got)
	}
}

// TestWorkItemNamesItsOwner: by the epoch, so that one that is over is nobody's.
func TestWorkItemNamesItsOwner(t *testing.T) {
	o := claimed(t)
	if err := (queue{o.site.JS, 0, 7}).publish(t.Context(), []string{"t.a", "t.b"}); err != nil {
		t.Fatal(err)
	}
	msg := o.system(t).Stored(wire.SyncQueueStream, 1)
	var item wire.WorkItem
	if err := wire.Decode(msg.Data, &item); err != nil || item.Epoch != 7 || item.Shard != 0 ||
		!slices.Equal(item.Logs, []string{"t.a", "t.b"}) {
		t.Errorf("queued %+v, %v", item, err)
	}
}
