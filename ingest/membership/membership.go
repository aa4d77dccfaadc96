// Package membership says which node should own which shard.
//
// Nodes show that they live, and which shards they try to own, in one KV bucket of leases. Each node watches the bucket
// and computes from it the same assignment. A node acquires the leases of its own share.
//
// The package never says what is true: the manifest does, and a node may act on a view that is late. It knows no source
// stream, no disk and no object store.
//
// Open view.go next for the rules, which are pure, and leases.go for what keeps two nodes apart. Membership joins them.
package membership

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"dormouse/internal/shardid"
)

// Membership is a node's part among the others: it shows that the node lives, and watches who should own what. Its
// methods may be called from any goroutine.
type Membership struct {
	leases    *Leases
	log       *slog.Logger
	heartbeat *heartbeat
	watching  chan struct{} // closed when the first watch has told all that there is
	watched   func()        // closes it
	mu        struct {
		sync.Mutex
		view    *View
		changed chan struct{} // closed and replaced at each new version of the view
	}
}

// New makes the membership of the node that leases are of; Run starts it. Check returns nil when the node
// could take a shard over, which needs its bucket. It may be called at any time while Run runs, one call at a time.
func New(leases *Leases, check func(context.Context) error, log *slog.Logger) *Membership {
	m := &Membership{leases: leases, log: log, watching: make(chan struct{})}
	m.watched = sync.OnceFunc(func() { close(m.watching) })
	m.heartbeat = newHeartbeat(leases, check, m.setEligible, log)
	m.mu.view = NewView(leases.node, leases.term, time.Now())
	m.mu.changed = make(chan struct{})
	return m
}

// Run shows the node to the others and keeps the view up to date until ctx is done. It then deletes the node's key, and
// returns when no goroutine is left. It never fails: what it cannot do now it tries again.
func (m *Membership) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { m.heartbeat.run(ctx); return nil })
	group.Go(func() error { m.watch(ctx); return nil })
	return group.Wait()
}

// meetFor bounds how long Meet waits for others that start at the same time.
const meetFor = 200 * time.Millisecond

// Meet waits until this node and others that start at the same time know each other, so that they hand nothing over.
// Take no shard before. It returns early when ctx is done.
func (m *Membership) Meet(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-m.watching: // before, this node would think that it is alone
	}
	select {
	case <-ctx.Done():
	case <-m.heartbeat.checked: // the others hear of this node from then on
	case <-time.After(m.leases.term / 10): // a node that is alone serves without a bucket
	}
	select {
	case <-ctx.Done():
	case <-time.After(min(meetFor, m.leases.term/10)):
	}
}

// Placement returns where this node stands with a shard, and a channel that is closed when that may have changed.
func (m *Membership) Placement(shard shardid.Shard) (Placement, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.view.Placement(shard), m.mu.changed
}

// Acquire takes the lease of a shard, also one that its holder has not renewed for so long that it is over. See
// Leases.Acquire for the errors.
func (m *Membership) Acquire(ctx context.Context, shard shardid.Shard) (*Lease, error) {
	placement, _ := m.Placement(shard)
	return m.leases.Acquire(ctx, shard, placement.Lapsed)
}

// AwaitElsewhere returns nil once the shard has been another node's share for settle without a break, and ctx.Err()
// when ctx is done before. Nodes that come and go together cost one handover and not one each.
func (m *Membership) AwaitElsewhere(ctx context.Context, shard shardid.Shard, settle time.Duration) error {
	for {
		placement, changed := m.Placement(shard)
		var settled <-chan time.Time
		if !placement.Mine {
			left := settle - time.Since(placement.Since)
			if left <= 0 {
				return nil
			}
			settled = time.After(left)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-settled:
		}
	}
}

// Share returns how many shards this node should own, and has for at least that long, of how many there are.
func (m *Membership) Share(settled time.Duration) (mine, all int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.view.Share(settled, time.Now())
}

// Peers returns how many other nodes live, as far as this one knows.
func (m *Membership) Peers() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.view.Peers()
}

// Unowned returns of how many shards nobody holds the lease, as far as this node knows.
func (m *Membership) Unowned() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.view.Unowned()
}

// SetShards tells which shards there are, ascending.
func (m *Membership) SetShards(shards []shardid.Shard) {
	m.update(func(v *View, now time.Time) { v.SetShards(shards, now) })
}

// SetServing tells whether this node serves a shard. A node that withdraws keeps what it serves.
func (m *Membership) SetServing(shard shardid.Shard, serving bool) {
	m.update(func(v *View, now time.Time) { v.SetServing(shard, serving, now) })
}

// Withdraw leaves the shards that this node does not serve to the others, because of why. The node comes back by itself
// when its check passes, and after a pause that grows with each Withdraw.
func (m *Membership) Withdraw(why error) {
	m.setEligible(false)
	m.heartbeat.withdraw(why)
}

func (m *Membership) setEligible(eligible bool) {
	m.update(func(v *View, now time.Time) { v.SetEligible(eligible, now) })
}

// update changes the view, and wakes those who wait for a Placement if there is a new version of it.
func (m *Membership) update(change func(v *View, now time.Time)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := m.mu.view.Version()
	if change(m.mu.view, time.Now()); m.mu.view.Version() != before {
		close(m.mu.changed)
		m.mu.changed = make(chan struct{})
	}
}
