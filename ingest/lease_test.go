package ingest

import (
	"errors"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/wire"
)

// TestReleaseAfterAnUnheardRenewal: a process that is told to end while it renews its lease does not hear that it
// did, and gives the lease up all the same. One that is another's by now it leaves alone.
func TestReleaseAfterAnUnheardRenewal(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(l *leases, h *lease) error
		gone   bool
	}{
		"as it was": {func(*leases, *lease) error { return nil }, true},
		"renewed": {func(l *leases, h *lease) error {
			_, err := l.kv.Update(t.Context(), h.key, h.value, h.revision)
			return err
		}, true},
		"another's": {func(l *leases, h *lease) error {
			_, err := (&leases{kv: l.kv, node: "b"}).acquire(t.Context(), h.key, h.revision)
			return err
		}, false},
		"gone": {func(l *leases, h *lease) error { return l.kv.Delete(t.Context(), h.key) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSystem(t)
			l, err := openLeases(t.Context(), Config{JS: s.js, NodeID: "a"})
			if err != nil {
				t.Fatal(err)
			}
			held, err := l.acquire(t.Context(), wire.LeaseKey(0), 0)
			if err == nil {
				err = tc.change(l, held)
			}
			if err != nil {
				t.Fatal(err)
			}
			_ = held.release(t.Context()) // fails where there is nothing to give up
			if _, err := l.kv.Get(t.Context(), wire.LeaseKey(0)); errors.Is(err, jetstream.ErrKeyNotFound) != tc.gone {
				t.Errorf("the lease is there: %v", err)
			}
		})
	}
}

// TestNodeThatEndsGivesUpWhatItHolds at once, so that nobody waits for it; and no shard is taken for served any more.
func TestNodeThatEndsGivesUpWhatItHolds(t *testing.T) {
	s := newSystem(t)
	n := s.start("a", t.TempDir())
	n.awaitOwned()
	keys := []string{wire.LeaseKey(0), wire.NodeKeys + "a"}
	for _, key := range keys {
		if !s.hasKey(key) {
			t.Errorf("an owner does not hold %s", key)
		}
	}
	r := n.node.roster.Load()
	r.mu.Lock()
	serving := r.serving[0]
	r.mu.Unlock()
	if !serving {
		t.Error("an owner does not serve its shard")
	}
	n.stop()
	for _, key := range keys {
		if s.hasKey(key) {
			t.Errorf("%s is held after the end", key)
		}
	}
	if len(r.serving) > 0 {
		t.Errorf("served after the end: %v", r.serving)
	}
}
