package membership

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/wire"
)

// TestAcquiringALease: by compare-and-set, of what was looked at.
func TestAcquiringALease(t *testing.T) {
	js := newBucket(t)
	open := func(node string) *Leases {
		l, err := OpenLeases(t.Context(), js, node, "", 2*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	a, b := open("a"), open("b")
	first, err := a.acquire(t.Context(), "shard.7", 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.acquire(t.Context(), "shard.7", 0); !errors.As(err, new(*HeldError)) {
		t.Errorf("another's: %v", err)
	}
	again, err := a.acquire(t.Context(), "shard.7", 0)
	if err != nil || again.revision == first.revision {
		t.Fatalf("its own before a restart: %v", err)
	}
	if _, err := b.acquire(t.Context(), "shard.7", first.revision); !errors.As(err, new(*HeldError)) {
		t.Errorf("one that was renewed since it seemed to be over: %v", err)
	}
	b.kv = &renewedMeanwhile{b.kv, again}
	if _, err := b.acquire(t.Context(), "shard.7", again.revision); !errors.As(err, new(*HeldError)) {
		t.Errorf("one that is renewed this moment: %v", err)
	}
	b = open("b")
	if taken, err := b.acquire(t.Context(), "shard.7", again.revision); err != nil || taken.revision <= again.revision {
		t.Errorf("one that is over: %v", err)
	}
}

// renewedMeanwhile is a bucket in which a lease is renewed between a look at it and what follows.
type renewedMeanwhile struct {
	jetstream.KeyValue
	lease *Lease
}

func (k *renewedMeanwhile) Get(ctx context.Context, key string) (jetstream.KeyValueEntry, error) {
	entry, err := k.KeyValue.Get(ctx, key)
	if err == nil {
		k.lease.revision, err = k.KeyValue.Update(ctx, key, k.lease.value, k.lease.revision)
	}
	return entry, err
}

// TestReleaseAfterAnUnheardRenewal: a process that is told to end while it renews its lease does not hear that it
// did, and gives the lease up all the same. One that is another's by now it leaves alone.
func TestReleaseAfterAnUnheardRenewal(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(l *Leases, h *Lease) error
		gone   bool
	}{
		"as it was": {func(*Leases, *Lease) error { return nil }, true},
		"renewed": {func(l *Leases, h *Lease) error {
			_, err := l.kv.Update(t.Context(), h.key, h.value, h.revision)
			return err
		}, true},
		"another's": {func(l *Leases, h *Lease) error {
			_, err := (&Leases{kv: l.kv, node: "b"}).acquire(t.Context(), h.key, h.revision)
			return err
		}, false},
		"gone": {func(l *Leases, h *Lease) error { return l.kv.Delete(t.Context(), h.key) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			js := newBucket(t)
			l, err := OpenLeases(t.Context(), js, "a", "", 2*time.Second)
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
			_ = held.Release(t.Context()) // fails where there is nothing to give up
			if _, err := l.kv.Get(t.Context(), wire.LeaseKey(0)); errors.Is(err, jetstream.ErrKeyNotFound) != tc.gone {
				t.Errorf("the lease is there: %v", err)
			}
		})
	}
}
