package ingest

import (
	"encoding/json"
	"log/slog"
	"strings"
	"testing"

	"dormouse/ingest/ingesttest"
	"dormouse/internal/logid"
	"dormouse/internal/shardid"
	"dormouse/internal/wire"
)

// reasonsTold returns what a node tells of rejected messages, by reason.
func (n *node) reasonsTold() map[string]float64 {
	n.s.T.Helper()
	families, err := n.registry.Gather()
	if err != nil {
		n.s.T.Fatal(err)
	}
	told := make(map[string]float64)
	for _, f := range families {
		if f.GetName() != "dormouse_rejections_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			told[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
		}
	}
	return told
}

// TestRejectionsHaveReasons: all reasons are there from the start, and their sum is the number of messages rejected.
func TestRejectionsHaveReasons(t *testing.T) {
	s := newSystem(t)
	n := s.start("a", t.TempDir())
	if told := n.reasonsTold(); len(told) != len(logid.Faults())+3 { // and headers, refused, skipped
		t.Fatalf("before anything was rejected the reasons are %v", told)
	}
	n.awaitOwned()
	s.Publish("logs.acme", "no log token")
	s.Publish("logs.t."+strings.Repeat("x", 300), "too long")
	s.Publish("logs.u."+strings.Repeat("x", 300), "too long")
	n.awaitMetric("dormouse_entries_rejected_total", 3)
	sum := 0.0
	told := n.reasonsTold()
	for _, count := range told {
		sum += count
	}
	if sum != 3 || told["no_log_token"] != 1 || told["too_long"] != 2 {
		t.Errorf("the reasons are %v", told)
	}
}

// TestUnownedShardsShow: a shard without a lease is seen by every node, and no more once there is an owner.
func TestUnownedShardsShow(t *testing.T) {
	s := newSystem(t)
	a := s.start("a", t.TempDir())
	a.awaitOwned()
	a.awaitMetric("dormouse_shards_unowned", 0)
	kv, err := s.JS.KeyValue(t.Context(), wire.LeaseBucket)
	if err != nil {
		t.Fatal(err)
	}
	a.node.members.Load().SetShards([]shardid.Shard{0, 7}) // which nobody takes
	a.awaitMetric("dormouse_shards_unowned", 1)
	if _, err := kv.Put(t.Context(), wire.LeaseKey(7), []byte(`{"node":"somebody","host":"web-1"}`)); err != nil {
		t.Fatal(err)
	}
	a.awaitMetric("dormouse_shards_unowned", 0)
}

// TestHandoversAreTold: a shard that goes to another node, and one that a node leaves when it ends, have a line each;
// leases and lines name nodes with their host.
func TestHandoversAreTold(t *testing.T) {
	const over = "the shard is handed over"
	s := newSystem(t)
	s.addShards(2)
	var log ingesttest.Log
	a := s.start("a", t.TempDir(), func(c *Config) {
		c.Host, c.Logger = "web-1",
			slog.New(slog.NewJSONHandler(&log, nil))
	})
	s.awaitShares(map[*node]float64{a: 2})
	if lines := log.Lines(t, over); len(lines) != 0 {
		t.Fatalf("nothing was handed over, and it says %v", lines)
	}
	b := s.start("b", t.TempDir())
	s.awaitShares(map[*node]float64{a: 1, b: 1})
	s.Until("the handover to be told", func() bool { return len(log.Lines(t, over)) == 1 })
	if line := log.Lines(t, over)[0]; line["why"] != "it is another node's share" || line["epoch"] != 1.0 ||
		line["served"] == nil {
		t.Errorf("the handover is %v", line)
	}
	kv, err := s.JS.KeyValue(t.Context(), wire.LeaseBucket)
	if err != nil {
		t.Fatal(err)
	}
	entry, err := kv.Get(t.Context(), wire.NodeKeys+"a")
	var lease wire.Lease
	if err != nil || json.Unmarshal(entry.Value(), &lease) != nil || lease.Holder() != "web-1/a" {
		t.Errorf("the node key is %+v, %v", lease, err)
	}
	a.stop()
	if lines := log.Lines(t, over); len(lines) != 2 || lines[1]["why"] != "this process ends" {
		t.Errorf("after the end it says %v", lines)
	}
}
