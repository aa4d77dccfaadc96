package ingest

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"dormouse/ingest/ingesttest"
	"dormouse/ingest/shard"
	"dormouse/store/cache"
)

func TestMain(m *testing.M) { ingesttest.Main(m) }

// system is a NATS server with Dormouse's streams. Nodes come and go on it.
type system struct{ *ingesttest.System }

func newSystem(t testing.TB) *system {
	t.Helper()
	return &system{ingesttest.New(t)}
}

// node is one running ingest node; its directory outlives it.
type node struct {
	s        *system
	dir      string
	name     string
	registry *prometheus.Registry
	node     *Node
	stop     func()
}

func (s *system) start(name, dir string, change ...func(*Config)) *node {
	s.T.Helper()
	db, err := cache.Open(dir, cache.Options{})
	if err != nil {
		s.T.Fatal(err)
	}
	n := &node{s: s, dir: dir, name: name, registry: prometheus.NewRegistry()}
	cfg := Config{
		Registerer: n.registry, Config: shard.Config{
			NC: s.NC, JS: s.JS, DB: db, NodeID: name, ArchiveURL: "mem://", Bucket: s.Archive,
			MaxDelay: 50 * time.Millisecond, RequeueAfter: time.Minute, Lease: 2 * time.Second,
			MaxBytes: 1 << 20, BufferLimit: 64 << 20, Trim: shard.TrimAuto, TrimDelay: 100 * time.Millisecond,
			GCGrace: time.Hour,
			Logger:  slog.New(slog.NewTextHandler(s.T.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
		}}
	for _, c := range change {
		c(&cfg)
	}
	if n.node, err = New(cfg); err != nil {
		s.T.Fatal(err)
	}
	ctx, cancel := context.WithCancel(s.T.Context())
	done := make(chan error, 1)
	go func() { done <- n.node.Run(ctx) }()
	stopped := false
	n.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			s.T.Errorf("node %s: %v", name, err)
		}
		if err := db.Close(); err != nil {
			s.T.Errorf("node %s: %v", name, err)
		}
	}
	s.T.Cleanup(n.stop)
	return n
}

func (n *node) metric(name string) float64 {
	n.s.T.Helper()
	families, err := n.registry.Gather()
	if err != nil {
		n.s.T.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetCounter().GetValue() + f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	n.s.T.Fatalf("no metric %s", name)
	return 0
}

func (n *node) awaitMetric(name string, want float64) {
	n.s.T.Helper()
	n.s.Until(fmt.Sprintf("%s to be %v, it is %v", name, want, n.metric(name)), func() bool {
		return n.metric(name) == want
	})
}

func (n *node) awaitOwned() { n.s.T.Helper(); n.awaitMetric("dormouse_shards_owned", 1) }
