package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/wire"
)

// leases is the KV bucket that says which nodes live and which of them should try to own a shard. It keeps nodes out of
// each other's way; the manifest alone decides who owns. Entries vanish when they are not renewed for the bucket's TTL.
type leases struct {
	kv   jetstream.KeyValue
	node string
	host string // for people
}

var (
	errLeaseHeld = errors.New("the lease is held")
	errLeaseLost = errors.New("the lease was lost")
)

func openLeases(ctx context.Context, cfg Config) (*leases, error) {
	kv, err := cfg.JS.KeyValue(ctx, wire.LeaseBucket)
	if err != nil {
		return nil, fmt.Errorf("opening the lease bucket %s: %w", wire.LeaseBucket, err)
	}
	return &leases{kv: kv, node: cfg.NodeID, host: cfg.Host}, nil
}

// lease is one held lease; revision is what the next renewal must replace.
type lease struct {
	kv       jetstream.KeyValue
	key      string
	value    []byte
	revision uint64
	renewed  atomic.Pointer[time.Time] // when the last renewal that succeeded was sent
}

func (h *lease) setRenewed(at time.Time) { h.renewed.Store(&at) }

// fresh reports whether the lease was renewed so lately that nobody else holds it, now or while an answer is on its way that is
// decided on now: another one takes it when 4/5 of the term are over, see lapsesAfter. The clock that this is read from goes on
// while a process is stopped.
func (h *lease) fresh(term time.Duration) bool { return time.Since(*h.renewed.Load()) < term/2 }

// acquire takes the lease of key if it is free, was this node's own before a restart, or is still at the revision lapsed, which
// nobody has renewed for so long that it is over; 0 is none. Every change is a compare-and-set, so two nodes cannot both
// succeed.
func (l *leases) acquire(ctx context.Context, key string, lapsed uint64) (*lease, error) {
	now := time.Now()
	value, err := json.Marshal(wire.Lease{Node: l.node, Host: l.host, Since: now.UTC()})
	if err != nil {
		return nil, err
	}
	held := &lease{kv: l.kv, key: key, value: value}
	held.setRenewed(now)
	held.revision, err = l.kv.Create(ctx, held.key, value)
	if err == nil || !errors.Is(err, jetstream.ErrKeyExists) {
		return held, err
	}
	current, err := l.kv.Get(ctx, held.key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil, fmt.Errorf("%w: or was a moment ago", errLeaseHeld)
	}
	if err != nil {
		return nil, err
	}
	var holder wire.Lease
	if err := json.Unmarshal(current.Value(), &holder); err == nil && holder.Node != l.node && current.Revision() != lapsed {
		return nil, fmt.Errorf("%w: by %s, since %s", errLeaseHeld, holder.Holder(), holder.Since.Format(time.RFC3339))
	}
	held.revision, err = l.kv.Update(ctx, held.key, value, current.Revision())
	if errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
		return nil, fmt.Errorf("%w: it was taken or renewed this moment", errLeaseHeld)
	}
	return held, err
}

// keep renews the lease three times in its term until ctx is done or the lease is lost: to another node, or because it
// could not be renewed for the whole term.
func (h *lease) keep(ctx context.Context, term time.Duration) error {
	ticker := time.NewTicker(term / 3)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		sent := time.Now()
		attempt, cancel := context.WithTimeout(ctx, term/3)
		revision, err := h.kv.Update(attempt, h.key, h.value, h.revision)
		cancel()
		switch {
		case err == nil:
			h.revision = revision
			h.setRenewed(sent)
			continue
		case ctx.Err() != nil:
			return nil
		case h.taken(ctx, term/3):
			return fmt.Errorf("%w: %w", errLeaseLost, err)
		case time.Since(*h.renewed.Load()) >= term:
			return fmt.Errorf("%w: not renewed for %s: %w", errLeaseLost, term, err)
		}
	}
}

// taken looks whether the lease is known not to be ours any more. If it holds our value, a renewal went through whose
// answer was lost: the next one replaces that.
func (h *lease) taken(ctx context.Context, timeout time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	current, err := h.kv.Get(ctx, h.key)
	if err != nil {
		return errors.Is(err, jetstream.ErrKeyNotFound)
	}
	if string(current.Value()) != string(h.value) {
		return true // and its revision is not ours to delete
	}
	h.revision = current.Revision()
	return false
}

// releasePause is how long to wait before a look whether the last renewal went through after all.
const releasePause = 20 * time.Millisecond

// release gives the lease up if it is still held. A renewal that was on its way when ctx ended may have gone through: the
// lease has a revision then that nobody has heard of, and the others would wait for its end.
func (h *lease) release(ctx context.Context) error {
	for {
		err := h.kv.Delete(ctx, h.key, jetstream.LastRevision(h.revision))
		if err == nil || ctx.Err() != nil || h.taken(ctx, releaseTimeout) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(releasePause):
		}
	}
}
