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
