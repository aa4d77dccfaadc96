package membership

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/shardid"
	"dormouse/internal/wire"
)

// Leases is the KV bucket in which nodes show that they live and which shards they try to own. It keeps nodes out of
// each other's way. The manifest alone decides who owns. The server drops a key that is not renewed for the bucket's
// TTL.
type Leases struct {
	kv   jetstream.KeyValue
	node string
	host string // for people; may be empty
	term time.Duration
}

// OpenLeases opens the bucket for a node. Host says where the node runs, for people; it may be empty. Term is how long
// a lease is held without a renewal. The bucket must be there.
func OpenLeases(ctx context.Context, js jetstream.JetStream, node, host string, term time.Duration) (*Leases, error) {
	kv, err := js.KeyValue(ctx, wire.LeaseBucket)
	if err != nil {
		return nil, fmt.Errorf("opening the lease bucket %s: %w", wire.LeaseBucket, err)
	}
	return &Leases{kv: kv, node: node, host: host, term: term}, nil
}

// HeldError says that a lease is somebody's. Its fields are zero when the lease was taken, renewed or given up while
// Acquire looked at it.
type HeldError struct {
	Owner   string    // the process, as people call it
	Since   time.Time // by the owner's clock
	Renewed time.Time // by the server's clock
}

// Error says who holds the lease.
func (e *HeldError) Error() string {
	if e.Owner == "" {
		return "the lease is held: it was taken, renewed or given up this moment"
	}
	return fmt.Sprintf("the lease is held: by %s, since %s, renewed at %s",
		e.Owner, e.Since.Format(time.RFC3339), e.Renewed.UTC().Format(time.RFC3339))
}

// Acquire takes the lease of a shard. It takes one that is free, one that was this node's own before a restart, and one
// that is still at the revision lapsed. Lapsed is Placement.Lapsed; 0 is none.
//
// A *HeldError says that another node has it. Every change is a compare-and-set, so two nodes cannot both succeed. Who
// acquires a lease must Keep and Release it.
func (l *Leases) Acquire(ctx context.Context, shard shardid.Shard, lapsed uint64) (*Lease, error) {
	return l.acquire(ctx, wire.LeaseKey(shard), lapsed)
}

func (l *Leases) acquire(ctx context.Context, key string, lapsed uint64) (*Lease, error) {
	now := time.Now()
	value, err := json.Marshal(wire.Lease{Node: l.node, Host: l.host, Since: now.UTC()})
	if err != nil {
		return nil, err
	}
	lease := &Lease{kv: l.kv, key: key, value: value, term: l.term}
	lease.renewed.Store(&now)
	lease.revision, err = l.kv.Create(ctx, key, value)
	switch {
	case err == nil:
		return lease, nil
	case !errors.Is(err, jetstream.ErrKeyExists):
		return nil, err
	}
	current, err := l.kv.Get(ctx, key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil, &HeldError{}
	}
	if err != nil {
		return nil, err
	}
	var holder wire.Lease
	if json.Unmarshal(current.Value(), &holder) == nil && holder.Node != l.node && current.Revision() != lapsed {
		return nil, &HeldError{Owner: holder.Holder(), Since: holder.Since, Renewed: current.Created()}
	}
	lease.revision, err = l.kv.Update(ctx, key, value, current.Revision())
	if errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
		return nil, &HeldError{}
	}
	if err != nil {
		return nil, err
	}
	return lease, nil
}
