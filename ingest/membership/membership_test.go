package membership

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"dormouse/internal/shardid"
	"dormouse/internal/wire"
)

// TestAwaitElsewhereSettles: a shard is given up once it has been another node's share for a tenth of a lease without a
// break, whatever else changes meanwhile.
func TestHandOverSettles(t *testing.T) {
	const lease, settle = 10 * time.Second, time.Second
	for name, tc := range map[string]struct {
		happens func(m *Membership, holds func(node string))
		after   time.Duration // 0: it is kept
	}{
		"it stays": {func(*Membership, func(string)) {}, 0},
		"it goes":  {func(_ *Membership, holds func(string)) { holds("b") }, settle},
		"it goes and comes back": {func(_ *Membership, holds func(string)) {
			holds("b")
			time.Sleep(settle - 1)
			holds("a")
		}, 0},
		"it comes back for a moment": {func(_ *Membership, holds func(string)) {
			holds("b")
			time.Sleep(settle / 2)
			holds("a")
			holds("b")
		}, settle/2 + settle},
		"others come and go": {func(m *Membership, holds func(string)) {
			holds("b")
			for i := range 5 {
				time.Sleep(settle / 5)
				m.hear(put(fmt.Sprint(wire.NodeKeys, "c", i), "", 0))
			}
		}, settle},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := New(&Leases{node: "a", term: lease}, nil, slog.New(slog.DiscardHandler))
				m.setEligible(true)
				m.SetShards([]shardid.Shard{0})
				m.hear(put(wire.NodeKeys+"b", "b", 1))
				holds := func(node string) { m.hear(put(wire.LeaseKey(0), node, 2)) }
				holds("a")
				time.Sleep(lease)
				ctx, cancel := context.WithTimeout(t.Context(), lease)
				defer cancel()
				began := time.Now()
				ended := make(chan error, 1)
				var took time.Duration
				go func() {
					err := m.AwaitElsewhere(ctx, 0, settle)
					took = time.Since(began)
					ended <- err
				}()
				tc.happens(m, holds)
				if err := <-ended; (err == nil) != (tc.after > 0) || tc.after > 0 && took != tc.after {
					t.Errorf("ended after %s: %v", took, err)
				}
			})
		})
	}
}
