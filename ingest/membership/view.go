package membership

import (
	"maps"
	"slices"
	"time"

	"dormouse/internal/shardid"
)

// View is what one node knows of the others: who lives, who holds which shard's lease, and who should. It may be late
// or wrong, so it only says what to try. The compare-and-set of the leases decides who does.
//
// A View is pure: it starts nothing, asks nobody, and takes the time from its caller. It is bounded by the numbers of
// nodes and shards. It is not safe for concurrent use; Membership shares one.
type View struct {
	self     string
	term     time.Duration // of the leases
	shards   []shardid.Shard
	peers    map[string]peer // Invariant: self is among them.
	holders  map[shardid.Shard]holder
	assigned map[shardid.Shard]assigned
	serving  map[shardid.Shard]bool // shards that this node serves
	eligible bool                   // this node may take shards while others live
	version  uint64
}

// peer is a node that lives.
type peer struct {
	name  string // for people; empty until its key was read
	heard time.Time
}

// holder is who holds a shard's lease. A lapsed lease has no node. It may be replaced while it is still at that
// revision.
type holder struct {
	node     string
	heard    time.Time
	revision uint64
}

// assigned is the node that should own a shard, and since when.
type assigned struct {
	node  string
	since time.Time
}

// NewView returns the view of a node that knows of nobody yet. Until SetEligible it takes shards only when it is alone.
func NewView(self string, term time.Duration, now time.Time) *View {
	return &View{
		self: self, term: term,
		peers:    map[string]peer{self: {heard: now}},
		holders:  make(map[shardid.Shard]holder),
		assigned: make(map[shardid.Shard]assigned),
		serving:  make(map[shardid.Shard]bool),
	}
}

// Version counts assignments. Only a new one changes what a Placement says, but for Lapsed.
func (v *View) Version() uint64 { return v.version }

// Placement is where a node stands with a shard.
type Placement struct {
	Mine   bool      // this node should own it
	Since  time.Time // since when the shard should be its present node's
	Holder string    // node that holds its lease, as far as is known; else ""
	Lapsed uint64    // revision of its lease that nobody renews any more; else 0
}

// Placement returns where this node stands with the shard.
func (v *View) Placement(shard shardid.Shard) Placement {
	h, a := v.holders[shard], v.assigned[shard]
	p := Placement{Mine: a.node == v.self, Since: a.since, Holder: h.node}
	if h.node == "" {
		p.Lapsed = h.revision
	}
	return p
}

// Share returns how many shards this node should own, and has for at least that long, of how many there are.
func (v *View) Share(settled time.Duration, now time.Time) (mine, all int) {
	for _, a := range v.assigned {
		if a.node == v.self && now.Sub(a.since) >= settled {
			mine++
		}
	}
	return mine, len(v.shards)
}

// Peers returns how many other nodes live.
func (v *View) Peers() int { return len(v.peers) - 1 }

// Unowned returns of how many shards nobody holds the lease.
func (v *View) Unowned() (shards int) {
	for _, shard := range v.shards {
		if v.holders[shard].node == "" {
			shards++
		}
	}
	return shards
}

// SetShards tells which shards there are, ascending.
func (v *View) SetShards(shards []shardid.Shard, now time.Time) {
	if !slices.Equal(v.shards, shards) {
		v.shards = slices.Clone(shards)
		v.assign(now)
	}
}

// SetEligible tells whether this node may take shards while others live.
func (v *View) SetEligible(eligible bool, now time.Time) {
	if v.eligible != eligible {
		v.eligible = eligible
		v.assign(now)
	}
}

// SetServing tells whether this node serves a shard. A node that is not eligible keeps what it serves.
func (v *View) SetServing(shard shardid.Shard, serving bool, now time.Time) {
	if v.serving[shard] == serving {
		return
	}
	if v.serving[shard] = serving; !serving {
		delete(v.serving, shard)
	}
	if !v.eligible {
		v.assign(now)
	}
}

// assign computes anew who should own what.
func (v *View) assign(now time.Time) {
	owners := v.owners()
	next := make(map[shardid.Shard]assigned, len(owners))
	for shard, node := range owners {
		if before := v.assigned[shard]; before.node == node {
			next[shard] = before
		} else {
			next[shard] = assigned{node, now}
		}
	}
	v.assigned = next
	v.version++
}

// owners says who should own what. A node that is not eligible leaves the shards to the others, who do not count it. It
// keeps those that it serves: an owner needs its bucket only when a shard changes hands.
//
// Nodes that are not eligible do not count each other, either. When all of them start while the bucket is away, each
// tries every shard as if it were alone, and the leases decide. That is wanted: a node with the shard's catalog on its
// disk can serve it without the bucket, and no assignment knows which node that is. A node without the catalog gives
// the lease back after a while. A node that is alone serves what its disk allows in the same way.
func (v *View) owners() map[shardid.Shard]string {
	holders := make(map[shardid.Shard]string, len(v.holders))
	for shard, h := range v.holders {
		holders[shard] = h.node
	}
	nodes := slices.Sorted(maps.Keys(v.peers))
	if v.eligible || len(nodes) == 1 {
		return Assign(v.shards, nodes, holders)
	}
	others := slices.DeleteFunc(nodes, func(node string) bool { return node == v.self })
	owners := Assign(v.shards, others, holders)
	for _, shard := range v.shards {
		if v.serving[shard] {
			owners[shard] = v.self
		}
	}
	return owners
}
