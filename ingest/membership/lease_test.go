package membership

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// oneKey is a bucket with one key. It takes a while to answer.
type oneKey struct {
	jetstream.KeyValue
	value    string
	revision uint64
	takes    time.Duration
	fails    func() error // of updates, if it returns one; heard is what it did before
	deaf     bool         // gets fail too
	heard    time.Time    // the last update that went through, when it was sent
}

func (k *oneKey) Update(ctx context.Context, _ string, value []byte, revision uint64) (uint64, error) {
	sent := time.Now()
	if err := k.wait(ctx); err != nil {
		return 0, err
	}
	if err := k.fails(); err != nil {
		return 0, err
	}
	if revision != k.revision {
		return 0, jetstream.ErrKeyRevisionMismatch
	}
	k.revision, k.value, k.heard = k.revision+1, string(value), sent
	return k.revision, nil
}

func (k *oneKey) Get(ctx context.Context, _ string) (jetstream.KeyValueEntry, error) {
	if err := k.wait(ctx); err != nil {
		return nil, err
	}
	if k.deaf {
		return nil, nats.ErrNoResponders
	}
	return storedKey{value: []byte(k.value), revision: k.revision}, nil
}

// storedKey is a key as a bucket holds it.
type storedKey struct {
	jetstream.KeyValueEntry
	value    []byte
	revision uint64
}

func (k storedKey) Value() []byte    { return k.value }
func (k storedKey) Revision() uint64 { return k.revision }

func (k *oneKey) wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(k.takes):
		return nil
	}
}

// TestKeepingALease: a lease is lost when it is another's, or when it was not renewed for its term; not before. It
// counts from when a renewal was sent, since others may count from when it came.
func TestKeepingALease(t *testing.T) {
	const term = 3 * time.Second
	nothing := func() error { return nil }
	for name, tc := range map[string]struct {
		change func(k *oneKey)
		lasts  time.Duration // 0: it is kept
		says   string
	}{
		"it is renewed": {func(*oneKey) {}, 0, ""},
		"another has it": {func(k *oneKey) {
			k.value, k.revision = "another's", 9
		}, term/3 + 200*time.Millisecond, "revision mismatch"},
		"nobody answers": {func(k *oneKey) {
			k.fails, k.deaf = func() error { return nats.ErrNoResponders }, true
		}, term, "not renewed"},
		"it is not heard": {func(k *oneKey) { k.revision++ }, 0, ""}, // a renewal went through, whose answer was lost
		"it hangs":        {func(k *oneKey) { k.takes = time.Hour }, term, "not renewed"},
		"it fails once": {func(k *oneKey) {
			k.fails = func() error { k.fails = nothing; return nats.ErrNoResponders }
		}, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := &oneKey{value: "ours", revision: 1, takes: 100 * time.Millisecond, fails: nothing}
				h := &Lease{kv: k, key: "k", value: []byte("ours"), term: term, revision: 1}
				began := time.Now()
				h.renewed.Store(&began)
				tc.change(k)
				ctx, cancel := context.WithTimeout(t.Context(), 10*term)
				defer cancel()
				err := h.Keep(ctx)
				took := time.Since(began)
				if tc.lasts == 0 {
					if err != nil || took < 10*term || !h.renewed.Load().Equal(k.heard) {
						t.Errorf("lost after %s: %v; renewed at %s, and %s was heard", took, err, h.renewed.Load(), k.heard)
					}
					return
				}
				inTime := took >= tc.lasts && took <= tc.lasts+term/2
				if !errors.Is(err, ErrLost) || !strings.Contains(err.Error(), tc.says) || !inTime {
					t.Errorf("ended after %s: %v", took, err)
				}
			})
		})
	}
}

// TestLeaseIsFreshForHalfItsTerm: well before others take it, so that what is decided on it holds when it comes.
func TestLeaseIsFreshForHalfItsTerm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const term = 4 * time.Second
		h, now := Lease{term: term}, time.Now()
		h.renewed.Store(&now)
		time.Sleep(term/2 - 1)
		if !h.Fresh() {
			t.Error("not fresh any more before half of the term")
		}
		time.Sleep(time.Nanosecond)
		if h.Fresh() {
			t.Error("fresh after half of the term")
		}
		if lapsesAfter(term) < term/2+term/4 {
			t.Errorf("others take it after %s", lapsesAfter(term))
		}
	})
}
