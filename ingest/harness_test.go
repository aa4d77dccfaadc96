package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/batchrepr"
	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"dormouse/internal/entry"
	"dormouse/internal/extent"
	"dormouse/internal/natstest"
	"dormouse/internal/topology"
	"dormouse/internal/wire"
	"dormouse/store/bucket"
	"dormouse/store/cache"
	"dormouse/store/manifest"
)

// TestMain looks for goroutines that are left. Those of a wheel whose Stop met it in the middle of a flush are the
// library's: it blocks for ever then, and the clock of the scheduler leaves it behind after two seconds, with a line in
// the log.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/RussellLuo/timingwheel/delayqueue.(*DelayQueue).Offer"),
		goleak.IgnoreAnyFunction("dormouse/scheduler.(*clock).stop.func1"))
}

// patience bounds every wait of these tests; reaching it is a failure.
const patience = 20 * time.Second

// system is a NATS server with Dormouse's streams. Nodes come and go on it.
type system struct {
	t   testing.TB
	srv *natsserver.Server
	nc  *nats.Conn
	js  jetstream.JetStream

	bucket *bucket.Bucket
}

func newSystem(t testing.TB) *system {
	t.Helper()
	srv := natstest.Start(t)
	nc, js := natstest.Dial(t, srv)
	s := &system{t: t, srv: srv, nc: nc, js: js}
	var err error
	if s.bucket, err = bucket.Open(t.Context(), "mem://"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.bucket.Close() })
	if _, err := topology.Ensure(t.Context(), js, topology.Config{RequeueAfter: time.Minute, Lease: 2 * time.Second,
		Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	return s
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
	s.t.Helper()
	db, err := cache.Open(dir, cache.Options{})
	if err != nil {
		s.t.Fatal(err)
	}
	n := &node{s: s, dir: dir, name: name, registry: prometheus.NewRegistry()}
	cfg := Config{
		NC: s.nc, JS: s.js, DB: db, NodeID: name, ArchiveURL: "mem://", Bucket: s.bucket,
		MaxDelay: 50 * time.Millisecond, RequeueAfter: time.Minute, Lease: 2 * time.Second,
		MaxBytes: 1 << 20, BufferLimit: 64 << 20, Trim: TrimAuto, TrimDelay: 100 * time.Millisecond,
		Registerer: n.registry, Logger: slog.New(slog.NewTextHandler(s.t.Output(),
			&slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, c := range change {
		c(&cfg)
	}
	if n.node, err = New(cfg); err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(s.t.Context())
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
			s.t.Errorf("node %s: %v", name, err)
		}
		if err := db.Close(); err != nil {
			s.t.Errorf("node %s: %v", name, err)
		}
	}
	s.t.Cleanup(n.stop)
	return n
}

// asksBy lets a claimed owner ask another JetStream.
func (o *owner) asksBy(js jetstream.JetStream) {
	o.cfg.JS, o.from.js, o.intake.js, o.intake.rejects.js, o.snapshots.js = js, js, js, js, js
}

// serve has a claimed owner serve until the test or what is returned ends it, and returns the system that it is of.
func (o *owner) serve(t *testing.T) (s *system, end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	listens, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- o.run(ctx, func() { close(listens) }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("the owner ended with %v", err)
		}
	})
	<-listens
	return &system{t: t, nc: o.cfg.NC, js: o.cfg.JS}, cancel
}

func (s *system) until(what string, ok func() bool) {
	s.t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			s.t.Fatalf("waited %s for %s", patience, what)
		}
		<-tick.C
	}
}

func (n *node) metric(name string) float64 {
	n.s.t.Helper()
	families, err := n.registry.Gather()
	if err != nil {
		n.s.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetCounter().GetValue() + f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	n.s.t.Fatalf("no metric %s", name)
	return 0
}

func (n *node) awaitMetric(name string, want float64) {
	n.s.t.Helper()
	n.s.until(fmt.Sprintf("%s to be %v, it is %v", name, want, n.metric(name)), func() bool {
		return n.metric(name) == want
	})
}

func (n *node) awaitOwned() { n.s.t.Helper(); n.awaitMetric("dormouse_shards_owned", 1) }

// publish stores entries and returns their sequences.
func (s *system) publish(subject string, payloads ...string) (seqs []uint64) {
	s.t.Helper()
	for _, p := range payloads {
		ack, err := s.js.Publish(s.t.Context(), subject, []byte(p))
		if err != nil {
			s.t.Fatal(err)
		}
		seqs = append(seqs, ack.Sequence)
	}
	return seqs
}

func (s *system) epoch() uint64 { s.t.Helper(); return s.lastRecord().Epoch }

// lastRecord returns the manifest's last record.
func (s *system) lastRecord() manifest.Record {
	s.t.Helper()
	m, err := manifest.Open(s.t.Context(), s.js, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	last, _ := m.Last()
	return last
}

// ask sends one request to the owner of the current epoch.
func (s *system) ask(op wire.Operation, request, reply any) error {
	s.t.Helper()
	return s.askEpoch(s.epoch(), op, request, reply)
}

func (s *system) askEpoch(epoch uint64, op wire.Operation, request, reply any) error {
	s.t.Helper()
	data, err := wire.Encode(request)
	if err != nil {
		s.t.Fatal(err)
	}
	msg, err := s.nc.Request(wire.OwnerSubject(0, epoch, op), data, 5*time.Second)
	if err != nil {
		return err
	}
	return wire.Decode(msg.Data, reply)
}

// takeReady takes work items off the SyncQueue until all the logs have come.
func (s *system) takeReady(logs ...string) {
	s.t.Helper()
	consumer, err := s.js.Consumer(s.t.Context(), wire.SyncQueueStream, wire.SyncQueuePool)
	if err != nil {
		s.t.Fatal(err)
	}
	missing := make(map[string]bool)
	for _, log := range logs {
		missing[log] = true
	}
	deadline := time.Now().Add(patience)
	for len(missing) > 0 {
		if time.Now().After(deadline) {
			s.t.Fatalf("never queued: %v", missing)
		}
		msgs, err := consumer.Fetch(1, jetstream.FetchMaxWait(time.Second))
		if err != nil {
			s.t.Fatal(err)
		}
		for msg := range msgs.Messages() {
			var item wire.WorkItem
			if err := errors.Join(wire.Decode(msg.Data(), &item), item.Validate(), msg.Ack()); err != nil {
				s.t.Fatal(err)
			}
			for _, log := range item.Logs {
				delete(missing, log)
			}
		}
	}
}

// drain fetches everything that is buffered for the logs, in one reply.
func (s *system) drain(logs ...string) (entries []entry.Entry, extents []extent.Extent) {
	s.t.Helper()
	slices.Sort(logs)
	var reply wire.DrainReply
	if err := s.ask(wire.OpDrain, wire.DrainRequest{Logs: logs, MaxBytes: 1 << 20}, &reply); err != nil ||
		reply.Err() != nil || !reply.Done {
		s.t.Fatalf("drain: %v, %+v", err, reply)
	}
	return s.decode(reply.Data)
}

// decode returns what the data of a drain reply holds.
func (s *system) decode(data []byte) (entries []entry.Entry, extents []extent.Extent) {
	s.t.Helper()
	if len(data) == 0 {
		return nil, nil
	}
	reader := batchrepr.Read(data)
	for {
		_, key, value, ok, err := reader.Next()
		if err != nil {
			s.t.Fatal(err)
		}
		if !ok {
			return entries, extents
		}
		log, seq, err := entry.SplitKey(key)
		if err != nil {
			s.t.Fatal(err)
		}
		v, err := entry.DecodeValue(value)
		if err != nil {
			s.t.Fatal(err)
		}
		entries = append(entries, entry.Entry{Log: string(log), Seq: seq, Time: v.Time, Headers: v.Headers, Data: v.Data})
		if len(extents) == 0 || extents[len(extents)-1].Log != string(log) {
			extents = append(extents, extent.Extent{Log: string(log)})
		}
		extents[len(extents)-1].Add(seq, v.Time, v.Bytes)
	}
}

// commit offers extents as segment key and returns the LogIDs that were refused.
func (s *system) commit(key string, extents ...extent.Extent) (refused []string) {
	s.t.Helper()
	var reply wire.CommitReply
	err := s.ask(wire.OpCommit, wire.CommitRequest{Segment: extent.Segment{Key: key, Size: 1}, Extents: extents}, &reply)
	if err != nil || reply.Err() != nil {
		s.t.Fatalf("commit: %v, %v", err, reply.Err())
	}
	for _, r := range reply.Refused {
		refused = append(refused, r.Log)
	}
	return refused
}

// archived returns the ends of each of the log's extents that the manifest holds, in its order, or the one entry that
// it has; an extent committed twice shows twice.
func (s *system) archived(log string) (seqs []uint64) {
	s.t.Helper()
	m, err := manifest.Open(s.t.Context(), s.js, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	err = manifest.Scan(s.t.Context(), s.js, 0, manifest.Mark{}, m.Mark(), func(_, _ uint64, r manifest.Record) error {
		for _, seg := range r.Segments {
			for _, e := range seg.Extents {
				if e.Log == log {
					seqs = append(seqs, e.First, e.Last)[:len(seqs)+min(2, int(e.Count))]
				}
			}
		}
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return seqs
}

func payloads(entries []entry.Entry) string {
	var all []string
	for _, e := range entries {
		all = append(all, string(e.Data))
	}
	return strings.Join(all, ",")
}

// forgetEnd makes the cache in dir remember one more entry than the source stream has.
func (s *system) forgetEnd(dir string) {
	s.t.Helper()
	db, err := cache.Open(dir, cache.Options{})
	if err != nil {
		s.t.Fatal(err)
	}
	defer db.Close()
	pos, err := db.Position(0)
	if err != nil {
		s.t.Fatal(err)
	}
	pos.Applied++
	pos.AppliedTime = pos.AppliedTime.Add(time.Nanosecond)
	batch := db.NewBatch()
	if err := errors.Join(cache.SetPosition(batch, 0, pos), batch.Commit(noSync), batch.Close()); err != nil {
		s.t.Fatal(err)
	}
}
