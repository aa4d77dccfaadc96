package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"dormouse/internal/extent"
	"dormouse/internal/topology"
	"dormouse/internal/wire"
	"dormouse/store/archive"
)

// TestHandOverSettles: a shard is handed over once it has been another node's share for a tenth of a lease without a
// break, whatever else changes meanwhile.
func TestHandOverSettles(t *testing.T) {
	const lease, settle = 10 * time.Second, time.Second
	for name, tc := range map[string]struct {
		happens func(r *roster, holds func(node string))
		after   time.Duration // 0: it is kept
	}{
		"it stays": {func(*roster, func(string)) {}, 0},
		"it goes":  {func(_ *roster, holds func(string)) { holds("b") }, settle},
		"it goes and comes back": {func(_ *roster, holds func(string)) {
			holds("b")
			time.Sleep(settle - 1)
			holds("a")
		}, 0},
		"it comes back for a moment": {func(_ *roster, holds func(string)) {
			holds("b")
			time.Sleep(settle / 2)
			holds("a")
			holds("b")
		}, settle/2 + settle},
		"others come and go": {func(r *roster, holds func(string)) {
			holds("b")
			for i := range 5 {
				time.Sleep(settle / 5)
				r.hear(change{key: fmt.Sprint(wire.NodeKeys, "c", i)}, time.Now())
			}
		}, settle},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := slog.New(slog.DiscardHandler)
				r := newRoster(&leases{node: "a"}, lease, log)
				r.setFit(true)
				r.setShards([]wire.Shard{0})
				r.hear(change{key: wire.NodeKeys + "b"}, time.Now())
				holds := func(node string) { r.hear(change{key: wire.LeaseKey(0), node: node}, time.Now()) }
				holds("a")
				time.Sleep(lease)
				k := &keeper{node: &Node{cfg: Config{Lease: lease}}, source: topology.Source{Shard: 0}, roster: r, log: log}
				ctx, cancel := context.WithTimeout(t.Context(), lease)
				defer cancel()
				began := time.Now()
				ended := make(chan error, 1)
				var took time.Duration
				go func() {
					err := k.handOver(ctx)
					took = time.Since(began)
					ended <- err
				}()
				tc.happens(r, holds)
				if err := <-ended; errors.Is(err, errHandedOver) != (tc.after > 0) || tc.after > 0 && took != tc.after {
					t.Errorf("ended after %s: %v", took, err)
				}
			})
		})
	}
}

// hanging is a bucket whose gets do not come back until their time is over, but for one.
type hanging struct {
	Bucket
	answers int // the try that is answered; 0: none
	err     error
	tries   []time.Duration // how long each could wait
}

func (h *hanging) Get(ctx context.Context, _ extent.Segment) ([]byte, error) {
	deadline, _ := ctx.Deadline()
	h.tries = append(h.tries, time.Until(deadline))
	if len(h.tries) == h.answers {
		return []byte("part"), h.err
	}
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestPartThatDoesNotCome: a takeover waits for a part of its snapshot for two leases, and for one try half of that;
// for one that is not there it does not wait.
func TestPartThatDoesNotCome(t *testing.T) {
	const lease = 10 * time.Second
	for name, tc := range map[string]struct {
		answers int
		err     error
		takes   time.Duration // at most; and at least what it took less than a try's pause
		want    error
	}{
		"at once":      {1, nil, 0, nil},
		"at last":      {2, nil, lease + time.Second, nil},
		"never":        {0, nil, 2 * lease, errSnapshotUnread},
		"it is gone":   {1, archive.ErrNotFound, 0, errSnapshotUnread},
		"it fails now": {1, errors.New("denied"), 2 * lease, errSnapshotUnread},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bucket := &hanging{answers: tc.answers, err: tc.err}
				o := &owner{cfg: Config{Lease: lease, Bucket: bucket}, outages: newOutages(slog.New(slog.DiscardHandler))}
				began := time.Now()
				data, err := o.getPart(t.Context(), extent.Segment{Key: "0/catalog/a.rows"})
				took := time.Since(began)
				if !errors.Is(err, tc.want) || tc.want == nil && string(data) != "part" || took > tc.takes || took < tc.takes-time.Second {
					t.Errorf("ended after %s with %q, %v", took, data, err)
				}
				for _, try := range bucket.tries {
					if try > lease {
						t.Errorf("one try may take %s", try)
					}
				}
			})
		})
	}
}
