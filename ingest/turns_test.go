package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"dormouse/ingest/membership"
	"dormouse/ingest/shard"
	"dormouse/internal/topology"
	"dormouse/internal/wire"
	"dormouse/store/cache"
	"dormouse/store/manifest"
)

// idleRunner tends a shard, and does nothing by itself.
func idleRunner(cfg Config, source topology.Source) *shardRunner {
	log := slog.New(slog.DiscardHandler)
	return &shardRunner{node: &Node{cfg: cfg, shards: newShardStates()}, source: source,
		log: log, outages: shard.NewOutages(log), advance: &shard.Advance{}}
}

// TestTurnsThatEnd: what another node has is none of this one's trouble; what keeps this one from it is.
func TestTurnsThatEnd(t *testing.T) {
	failed := errors.New("failed")
	for name, tc := range map[string]struct {
		err     error
		concern shard.Concern
		heldUp  bool
	}{
		"handed over":       {errHandedOver, 0, false},
		"another's lease":   {&membership.HeldError{Owner: "b"}, 0, false},
		"fenced":            {fmt.Errorf("committing: %w", manifest.ErrFenced), 0, false},
		"could not claim":   {notOwned{failed}, shard.Claiming, true},
		"could not go on":   {failed, shard.Taking, true},
		"the process ended": {context.Canceled, shard.Committing, true},
	} {
		r := idleRunner(Config{}, topology.Source{})
		r.advance.Fails(shard.Committing, nil)
		if tc.concern != shard.Committing && tc.heldUp {
			r.advance.Done(shard.Committing)
		}
		r.note(tc.err)
		if c, _, _, ok := r.advance.HeldUp(-1); ok != tc.heldUp || c != tc.concern {
			t.Errorf("%s: held up: %v, concern %d", name, ok, c)
		}
		r.standBy(membership.Placement{Holder: "b"})
		if _, _, _, ok := r.advance.HeldUp(-1); ok {
			t.Errorf("%s: held up while another node has the shard", name)
		}
	}
}

// TestWhatIsHeldUp: the first message that was not taken in, or that no record covers. Without one there is nothing to
// take in.
func TestWhatIsHeldUp(t *testing.T) {
	s := newSystem(t)
	sources, err := topology.Sources(t.Context(), s.JS)
	if err != nil {
		t.Fatal(err)
	}
	db, err := cache.Open(t.TempDir(), cache.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	s.Publish("logs.t.a", "1", "2", "3")
	batch := db.NewBatch()
	err = errors.Join(cache.SetPosition(batch, 0, cache.Position{Applied: 2, Floor: 1}), batch.Commit(pebble.NoSync),
		batch.Close())
	if err != nil {
		t.Fatal(err)
	}
	r := idleRunner(Config{Config: shard.Config{JS: s.JS, DB: db, Lease: time.Minute}}, sources[0])
	is := func(what string, seq uint64) {
		t.Helper()
		if got := r.lookAtAdvance(t.Context(), time.Minute); got == nil && seq > 0 || got != nil &&
			(got.Seq != seq || got.Subject != "logs.t.a") {
			t.Errorf("%s: %+v, want sequence %d", what, got, seq)
		}
	}
	const anHourAgo = -time.Hour
	is("nothing", 0)
	r.advance.Fails(shard.Committing, nil)
	r.advance.Forgive(anHourAgo)
	is("committing", 2)
	r.advance.Done(shard.Committing)
	r.advance.Fails(shard.Taking, nil)
	r.advance.Forgive(anHourAgo)
	is("taking in", 3)
	if err := s.Source().Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	is("taking in what is gone", 0)
	if _, _, _, ok := r.advance.HeldUp(-1); ok {
		t.Error("held up with nothing to take in")
	}
	report := &wire.Stuck{Since: time.Now()}
	r.advance.Report(report)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r.watchAdvance(ctx)
	if before := r.advance.Report(nil); before != nil {
		t.Errorf("after the end %+v is reported", before)
	}
}
