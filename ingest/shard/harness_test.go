package shard

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/ingest/ingesttest"
	"dormouse/internal/topology"
	"dormouse/scheduler"
	"dormouse/store/cache"
)

func TestMain(m *testing.M) { ingesttest.Main(m) }

// system is what the tests run on.
type system struct{ *ingesttest.System }

// trial is an owner that nobody runs, with what its claim was made of: what it does is what the test calls.
type trial struct {
	*Owner
	site  *Site
	claim *claim
	trims int // of its trimmers
	on    *ingesttest.System
	shut  func() error // closes its database, once
}

// claimed returns the owner of shard 0 of a system of its own.
func claimed(t testing.TB, change ...func(*Config)) *trial {
	t.Helper()
	s := ingesttest.New(t)
	db, err := cache.Open(t.TempDir(), cache.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	shut := sync.OnceValue(db.Close)
	t.Cleanup(func() { _ = shut() })
	cfg := Config{
		NC: s.NC, JS: s.JS, DB: db, NodeID: "bench", ArchiveURL: "mem://", Bucket: s.Archive, MaxDelay: time.Hour,
		RequeueAfter: time.Hour, Lease: time.Minute, MaxBytes: 1 << 20, BufferLimit: 64 << 20,
		Trim: TrimNever, TrimDelay: time.Second, GCGrace: time.Hour, Logger: slog.New(slog.DiscardHandler),
	}
	for _, c := range change {
		c(&cfg)
	}
	if cfg, err = cfg.Completed(); err != nil {
		t.Fatal(err)
	}
	sources, err := topology.Sources(t.Context(), s.JS)
	if err != nil {
		t.Fatal(err)
	}
	o := &trial{on: s, shut: shut}
	site := Site{
		Config: cfg, Source: sources[0], Metrics: NewMetrics(nil), Outages: NewOutages(cfg.Logger), Advance: &Advance{},
		Progress: &Progress{}, Share: func() int { return 1 }, Trimmed: func() { o.trims++ },
		Fresh:    func() bool { return true },
		Buffered: func() scheduler.Stats { return o.sched.Stats() },
	}
	if o.claim, err = openClaim(t.Context(), site); err != nil {
		t.Fatal(err)
	}
	o.site = &o.claim.Site
	if o.Owner, err = o.claim.begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	return o
}

// system returns what the owner runs on, for a test or a part of one.
func (o *trial) system(t testing.TB) *system {
	s := *o.on
	s.T = t
	return &system{&s}
}

// asksBy lets a claimed owner ask another JetStream.
func (o *trial) asksBy(js jetstream.JetStream) {
	o.site.JS, o.from.js, o.intake.rejects.js, o.checkpoints.js = js, js, js, js
}

// newTrimmer makes another trimmer, of the site as it is now.
func (o *trial) newTrimmer() *trimmer {
	return newTrimmer(*o.site, o.from, o.claim.chain, o.committer.recordFloor)
}

// serve has a claimed owner serve until the test or what is returned ends it, and returns the system that it is of.
func (o *trial) serve(t *testing.T) (s *system, end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	listens, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- o.Run(ctx, func() { close(listens) }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("the owner ended with %v", err)
		}
	})
	<-listens
	return o.system(t), cancel
}
