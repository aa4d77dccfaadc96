package ingest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/wire"
)

// roster is what a node knows of the others: who lives, who holds which shard's lease, and who should. It is a view that
// may be late or wrong, and so only says what to try: the leases' compare-and-set decides who does. Its maps are bounded by
// the numbers of nodes and shards.
type roster struct {
	leases *leases
	term   time.Duration // of the leases
	log    *slog.Logger

	mu      sync.Mutex
	shards  []wire.Shard
	nodes   map[string]time.Time     // when they were last heard of; this node is always among them
	names   map[string]string        // what those are called of whom there is a key
	holders map[wire.Shard]holder    // of shards' leases
	plan    map[wire.Shard]string    // who should own which shard
	since   map[wire.Shard]time.Time // when the plan last changed for a shard
	fit     bool                     // this node's bucket answers, as far as is known
	serving map[wire.Shard]bool      // which shards this node serves
	changed chan struct{}            // closed, and another one made, at each change that a keeper may wait for
}

// holder is who holds a shard's lease. A lease that has lapsed has no node, and may be replaced as long as it is still at that
// revision.
type holder struct {
	node     string
	heard    time.Time
	revision uint64
}

// lapsesAfter is when a lease that was not renewed is over for those who watch it, by their own monotonic clock. That is
// sooner than the bucket's TTL, which the server looks at when it finds time for it, so that a dead owner is replaced within
// a term; and well after the holder has stopped to trust it, see lease.fresh.
func lapsesAfter(term time.Duration) time.Duration { return term / 5 * 4 }

func newRoster(leases *leases, term time.Duration, log *slog.Logger) *roster {
	return &roster{
		leases: leases, term: term, log: log,
		nodes: map[string]time.Time{leases.node: time.Now()}, holders: make(map[wire.Shard]holder),
		names: make(map[string]string), plan: make(map[wire.Shard]string), since: make(map[wire.Shard]time.Time), serving: make(map[wire.Shard]bool), changed: make(chan struct{}),
	}
}

// place is where this node stands with a shard.
type place struct {
	mine    bool            // this node should own it
	since   time.Time       // since when that is so
	holder  string          // node that holds its lease, as far as is known; else ""
	lapsed  uint64          // revision of its lease that nobody renews any more; else 0
	changed <-chan struct{} // closed when any of this may have changed
}

func (r *roster) place(shard wire.Shard) place {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.holders[shard]
	p := place{mine: r.plan[shard] == r.leases.node, since: r.since[shard], holder: h.node, changed: r.changed}
	if h.node == "" {
		p.lapsed = h.revision
	}
	return p
}

// count returns how many shards this node should own, of how many there are.
func (r *roster) count() (mine, all int) { return r.settled(0) }

// settled is count without the shards that this node should own for less than that.
func (r *roster) settled(since time.Duration) (mine, all int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for shard, node := range r.plan {
		if node == r.leases.node && time.Since(r.since[shard]) >= since {
			mine++
		}
	}
	return mine, len(r.shards)
}

// peers returns how many other nodes live.
func (r *roster) peers() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.nodes) - 1
}

// setShards tells which shards there are.
func (r *roster) setShards(shards []wire.Shard) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Equal(r.shards, shards) {
		r.shards = shards
		r.planLocked()
	}
}

// planLocked makes the plan anew. mu must be held.
func (r *roster) planLocked() {
	plan, now := r.assignLocked(), time.Now()
	for _, shard := range r.shards {
		if plan[shard] != r.plan[shard] {
			r.since[shard] = now
		}
	}
	r.plan = plan
	r.changedLocked()
}

// assignLocked says who should own what. A node that is not fit leaves the shards to the others, who do not count it, but for
// those that it serves: they need the bucket only when they change hands. mu must be held.
//
// Nodes that are not fit do not count each other, either. So when all of them start while the bucket is away, each thinks
// that it is alone and tries every shard, and the leases decide. That is what is wanted: who has a shard's catalog on its disk
// can serve it without the bucket, and which node that is no plan knows. One that has not gives the lease back after a while,
// see getPart. A node that is alone serves what its disk allows in the same way.
func (r *roster) assignLocked() map[wire.Shard]string {
	nodes := slices.Sorted(maps.Keys(r.nodes))
	if r.fit || len(nodes) == 1 {
		return assign(r.shards, nodes, r.holders)
	}
	plan := assign(r.shards, slices.DeleteFunc(nodes, func(node string) bool { return node == r.leases.node }), r.holders)
	for _, shard := range r.shards {
		if r.serving[shard] {
			plan[shard] = r.leases.node
		}
	}
	return plan
}

// setFit tells whether this node should take shards while others live.
func (r *roster) setFit(fit bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fit != fit {
		r.fit = fit
		r.planLocked()
	}
}

// serve tells whether this node serves a shard.
func (r *roster) serve(shard wire.Shard, serving bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.serving[shard] == serving {
		return
	}
	if r.serving[shard] = serving; !serving {
		delete(r.serving, shard)
	}
	if !r.fit {
		r.planLocked()
	}
}

func (r *roster) changedLocked() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// run keeps the view up to date until ctx is done. Each time that a watch is made, ready is called once it has told all
// that there is.
func (r *roster) run(ctx context.Context, ready func()) error {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 50*time.Millisecond, 2*time.Second
	for {
		began := time.Now()
		err := r.watch(ctx, ready)
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(began) > r.term {
			pause.Reset()
		}
		r.log.Debug("watching the leases ended; beginning again", "error", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause.NextBackOff()):
		}
	}
}

var errWatchEnded = errors.New("the watch ended")

func (r *roster) watch(ctx context.Context, ready func()) error {
	watcher, err := r.leases.kv.WatchAll(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = watcher.Stop() }() // fails only where the consumer is gone already
	expiry := time.NewTicker(max(r.term/20, 10*time.Millisecond))
	defer expiry.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-expiry.C:
			r.expire(time.Now())
		case entry, ok := <-watcher.Updates():
			switch {
			case !ok:
				return errWatchEnded
			case entry == nil:
				ready()
			default:
				r.hear(entry, time.Now())
			}
		}
	}
}

// hear takes up one change of the bucket.
func (r *roster) hear(entry jetstream.KeyValueEntry, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	gone := entry.Operation() != jetstream.KeyValuePut
	var value wire.Lease
	valid := !gone && json.Unmarshal(entry.Value(), &value) == nil
	if node, ok := strings.CutPrefix(entry.Key(), wire.NodeKeys); ok {
		r.hearNodeLocked(node, gone, now)
		if valid {
			r.names[node] = wire.ProcessName(value.Host, node)
		}
		return
	}
	if node, ok := strings.CutPrefix(entry.Key(), wire.WaitingKeys); ok {
		if node == r.leases.node { // it hears, though it has no node key; the others' are nobody to this one
			r.hearNodeLocked(node, gone, now)
		}
		return
	}
	number, _ := strings.CutPrefix(entry.Key(), wire.ShardKeys)
	shard, err := wire.ParseShard(number)
	if err != nil {
		return // not ours
	}
	before := r.holders[shard].node
	if valid {
		r.holders[shard] = holder{value.Node, now, entry.Revision()}
	} else {
		delete(r.holders, shard)
	}
	if r.holders[shard].node != before {
		r.planLocked()
	}
}

// hearNodeLocked takes up that a node lives or has left. mu must be held.
func (r *roster) hearNodeLocked(node string, gone bool, now time.Time) {
	heard, known := r.nodes[node]
	if node == r.leases.node && now.Sub(heard) > blindAfter(r.term) {
		r.seeAgainLocked(now)
	}
	switch {
	case !gone:
		r.nodes[node] = now
	case node != r.leases.node:
		r.forgetLocked(node)
	}
	if _, knows := r.nodes[node]; knows != known {
		r.planLocked()
	}
}

// forgetLocked forgets a node that is gone. mu must be held.
func (r *roster) forgetLocked(node string) {
	delete(r.nodes, node)
	delete(r.names, node)
}

// unowned returns how many shards nobody holds the lease of, as far as this node sees.
func (r *roster) unowned() (shards int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, shard := range r.shards {
		if r.holders[shard].node == "" {
			shards++
		}
	}
	return shards
}

// blindAfter is after how long without its own renewals a node knows nothing of the others'.
func blindAfter(term time.Duration) time.Duration { return term / 3 * 2 }

// seeAgainLocked begins anew to wait for the others' renewals: this node's own are the first that come through after
// nobody could renew anything, or nobody was heard. mu must be held.
func (r *roster) seeAgainLocked(now time.Time) {
	for node := range r.nodes {
		r.nodes[node] = now
	}
	for shard, h := range r.holders {
		if h.node != "" {
			h.heard = now
			r.holders[shard] = h
		}
	}
}

// expire forgets who was not heard of for long enough. While this node does not even hear its own renewals the view is blind
// rather than the others dead, and stays as it is.
func (r *roster) expire(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Sub(r.nodes[r.leases.node]) > blindAfter(r.term) {
		return
	}
	over, changed := now.Add(-lapsesAfter(r.term)), false
	for shard, h := range r.holders {
		if h.node != "" && h.heard.Before(over) {
			h.node = ""
			r.holders[shard], changed = h, true
		}
	}
	for node, heard := range r.nodes {
		if node != r.leases.node && heard.Before(over) {
			name := cmp.Or(r.names[node], wire.ProcessName("", node))
			r.forgetLocked(node)
			changed = true
			r.log.Info("a node is gone; its shards go to the others", "node", name, "nodes", len(r.nodes))
		}
	}
	if changed {
		r.planLocked()
	}
}
