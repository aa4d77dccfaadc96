package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/wire"
)

// leases is the KV bucket that says which node should try to own a shard. It keeps nodes out of each other's way; the
// manifest alone decides who owns. Entries vanish when they are not renewed for the bucket's TTL.
type leases struct {
	kv   jetstream.KeyValue
	node string
}

// leaseValue is what a lease says, for people and for status displays.
type leaseValue struct {
	Node  string    `json:"node"`
	Since time.Time `json:"since"`
}

var (
	errLeaseHeld = errors.New("another node holds the lease")
	errLeaseLost = errors.New("the lease was lost")
)

func openLeases(ctx context.Context, cfg Config) (*leases, error) {
	kv, err := cfg.JS.KeyValue(ctx, wire.LeaseBucket)
	if err != nil {
		return nil, fmt.Errorf("opening the lease bucket %s: %w", wire.LeaseBucket, err)
	}
	return &leases{kv: kv, node: cfg.NodeID}, nil
}

// lease is one held lease; revision is what the next renewal must replace.
type lease struct {
	kv       jetstream.KeyValue
	key      string
	value    []byte
	revision uint64
}

// acquire takes the shard's lease if it is free or was this node's own before a restart. Every change is a
// compare-and-set, so two nodes cannot both succeed.
func (l *leases) acquire(ctx context.Context, shard wire.Shard) (*lease, error) {
	value, err := json.Marshal(leaseValue{Node: l.node, Since: time.Now().UTC()})
	if err != nil {
		return nil, err
	}
	held := &lease{kv: l.kv, key: shard.String(), value: value}
	held.revision, err = l.kv.Create(ctx, held.key, value)
	if err == nil || !errors.Is(err, jetstream.ErrKeyExists) {
		return held, err
	}
	current, err := l.kv.Get(ctx, held.key)
	if err != nil {
		return nil, err
	}
	var holder leaseValue
	if err := json.Unmarshal(current.Value(), &holder); err == nil && holder.Node != l.node {
		return nil, fmt.Errorf("%w: %s, since %s", errLeaseHeld, holder.Node, holder.Since.Format(time.RFC3339))
	}
	held.revision, err = l.kv.Update(ctx, held.key, value, current.Revision())
	return held, err
}

// keep renews the lease three times in its term until ctx is done or the lease is lost: to another node, or because it
// could not be renewed for the whole term.
func (h *lease) keep(ctx context.Context, term time.Duration) error {
	ticker := time.NewTicker(term / 3)
	defer ticker.Stop()
	renewed := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		attempt, cancel := context.WithTimeout(ctx, term/3)
		revision, err := h.kv.Update(attempt, h.key, h.value, h.revision)
		cancel()
		var api *jetstream.APIError
		switch {
		case err == nil:
			h.revision, renewed = revision, time.Now()
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &api) && h.stillOurs(ctx, term/3):
			renewed = time.Now() // an earlier renewal whose answer was lost
		case errors.As(err, &api):
			return fmt.Errorf("%w: %w", errLeaseLost, err)
		case time.Since(renewed) >= term:
			return fmt.Errorf("%w: not renewed for %s: %w", errLeaseLost, term, err)
		}
	}
}

// stillOurs looks whether the lease holds exactly our value, and takes up its revision if so.
func (h *lease) stillOurs(ctx context.Context, timeout time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	current, err := h.kv.Get(ctx, h.key)
	if err != nil || string(current.Value()) != string(h.value) {
		return false
	}
	h.revision = current.Revision()
	return true
}

// release gives the lease up if it is still held.
func (h *lease) release(ctx context.Context) error {
	return h.kv.Delete(ctx, h.key, jetstream.LastRevision(h.revision))
}
