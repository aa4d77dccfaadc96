package membership

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"dormouse/internal/shardid"
	"dormouse/internal/wire"
)

const (
	modelTerm   = 12 * time.Second
	modelShards = 7
)

// model is several nodes and one lease bucket, with a clock of its own. What a node writes comes to the others' queues,
// and each takes from its queue when the schedule says so.
type model struct {
	t      *testing.T
	random *rand.Rand
	now    time.Time
	bucket map[string]Change // deleted keys too, as a watch tells them
	nodes  []*modelNode
	last   uint64 // revision
}

type modelNode struct {
	name     string
	view     *View // nil: it is dead
	cut      bool  // it neither writes nor hears
	eligible bool
	queue    []Change
	shown    time.Time // when it last renewed its node key or waiting key
	leases   map[shardid.Shard]modelLease
}

type modelLease struct {
	revision uint64
	renewed  time.Time
}

func (l modelLease) fresh(now time.Time) bool { return now.Sub(l.renewed) < modelTerm/2 }

func newModel(t *testing.T, seed uint64, nodes int) *model {
	m := &model{t: t, random: rand.New(rand.NewPCG(seed, 0)), now: time.Unix(1e9, 0), bucket: make(map[string]Change)}
	for i := range nodes {
		m.nodes = append(m.nodes, &modelNode{name: fmt.Sprint("n", i)})
	}
	return m
}

// start begins a node anew; it has nothing of its time before.
func (m *model) start(n *modelNode) {
	*n = modelNode{name: n.name, view: NewView(n.name, modelTerm, m.now), leases: make(map[shardid.Shard]modelLease)}
	n.view.SetShards(m.shards(), m.now)
	m.setEligible(n, true)
	m.watch(n)
}

func (m *model) shards() (all []shardid.Shard) {
	for s := range modelShards {
		all = append(all, shardid.Shard(s))
	}
	return all
}

// watch begins a watch: the bucket as it is comes first.
func (m *model) watch(n *modelNode) {
	n.queue = slices.SortedFunc(maps.Values(m.bucket), func(a, b Change) int {
		return cmp.Compare(a.Revision, b.Revision)
	})
}

// write changes a key and returns its revision.
func (m *model) write(key, node string, deleted bool) uint64 {
	m.last++
	c := put(key, node, m.last)
	if c.Deleted = deleted; deleted {
		c.Value = nil
	}
	m.bucket[key] = c
	for _, n := range m.nodes {
		if n.view != nil && !n.cut {
			n.queue = append(n.queue, c)
		}
	}
	return m.last
}

func (m *model) setEligible(n *modelNode, eligible bool) {
	if n.eligible != eligible {
		n.eligible = eligible
		n.view.SetEligible(eligible, m.now)
		m.write(n.key(!eligible), n.name, true)
		m.show(n)
	}
}

func (n *modelNode) key(eligible bool) string {
	if eligible {
		return wire.NodeKeys + n.name
	}
	return wire.WaitingKeys + n.name
}

func (m *model) show(n *modelNode) { m.write(n.key(n.eligible), n.name, false); n.shown = m.now }

// hear lets a node take that many changes from its queue.
func (m *model) hear(n *modelNode, changes int) {
	changes = min(changes, len(n.queue))
	for _, c := range n.queue[:changes] {
		n.view.Hear(c, m.now)
	}
	n.queue = n.queue[changes:]
	n.view.Expire(m.now)
}

// renew does what is due of Lease.Keep. A lease of which that fails for a term, or that is another's, is lost.
func (m *model) renew(n *modelNode) {
	if !n.cut && m.now.Sub(n.shown) >= modelTerm/3 {
		m.show(n)
	}
	for _, shard := range m.shards() {
		l, ok := n.leases[shard]
		if !ok || m.now.Sub(l.renewed) < modelTerm/3 {
			continue
		}
		switch key := wire.LeaseKey(shard); {
		case !n.cut && m.bucket[key].Revision == l.revision:
			n.leases[shard] = modelLease{m.write(key, n.name, false), m.now}
		case !n.cut || m.now.Sub(l.renewed) >= modelTerm:
			m.lose(n, shard)
		}
	}
}

func (m *model) lose(n *modelNode, shard shardid.Shard) {
	delete(n.leases, shard)
	n.view.SetServing(shard, false, m.now)
}

// follow does what the view says: the node acquires what is its share, and releases what is not.
func (m *model) follow(n *modelNode) {
	if n.cut {
		return
	}
	for _, shard := range m.shards() {
		key, p := wire.LeaseKey(shard), n.view.Placement(shard)
		l, holds := n.leases[shard]
		current, there := m.bucket[key]
		switch {
		case holds && !p.Mine:
			if current.Revision == l.revision {
				m.write(key, "", true)
			}
			m.lose(n, shard)
		case !holds && p.Mine && (!there || current.Deleted || current.Revision == p.Lapsed):
			n.leases[shard] = modelLease{m.write(key, n.name, false), m.now}
			n.view.SetServing(shard, true, m.now)
		}
	}
}

// step lets some time pass and one random thing happen to one node.
func (m *model) step() {
	m.now = m.now.Add(time.Duration(m.random.Int64N(int64(modelTerm / 10))))
	n := m.nodes[m.random.IntN(len(m.nodes))]
	switch what := m.random.IntN(40); {
	case n.view == nil:
		if what < 10 {
			m.start(n)
		}
	case what == 0:
		n.view, n.leases = nil, nil
	case what == 1:
		n.cut = true
	case what < 5 && n.cut:
		n.cut = false
		m.watch(n)
	case what == 5 && !n.cut:
		m.setEligible(n, !n.eligible)
	}
	for _, n := range m.nodes {
		if n.view != nil {
			m.renew(n)
			if !n.cut {
				m.hear(n, m.random.IntN(6))
			}
			m.follow(n)
			m.check(n)
		}
	}
}

// check holds what is true at every moment.
func (m *model) check(n *modelNode) {
	m.t.Helper()
	if _, lives := n.view.peers[n.name]; !lives {
		m.t.Fatalf("%s does not live in its own view", n.name)
	}
	for shard, a := range n.view.assigned {
		if _, lives := n.view.peers[a.node]; !lives {
			m.t.Fatalf("%s gives shard %s to %q, who does not live", n.name, shard, a.node)
		}
	}
	for shard, l := range n.leases {
		for _, other := range m.nodes {
			if o, ok := other.leases[shard]; other != n && ok && l.fresh(m.now) && o.fresh(m.now) {
				m.t.Fatalf("%s and %s both trust their lease of shard %s", n.name, other.name, shard)
			}
		}
	}
}

// settle ends all faults and lets everybody hear everything for a while.
func (m *model) settle() {
	for _, n := range m.nodes {
		if n.view != nil && n.cut {
			n.cut = false
			m.watch(n)
		}
		if n.view != nil {
			m.setEligible(n, true)
		}
	}
	for end := m.now.Add(4 * modelTerm); m.now.Before(end); m.now = m.now.Add(modelTerm / 20) {
		for _, n := range m.nodes {
			if n.view != nil {
				m.renew(n)
				m.hear(n, len(n.queue))
				m.follow(n)
				m.check(n)
			}
		}
	}
}

// TestRandomMembership lets nodes come, go, die, be cut off and withdraw at random, and hear late. No two of them ever
// trust their lease of a shard at the same time. Once that is over, they all know each other, agree, and hold even
// shares.
func TestRandomMembership(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			m := newModel(t, seed, 4)
			m.start(m.nodes[0]) // which may die, like all of them
			for range 400 {
				m.step()
			}
			m.settle()
			var live []*modelNode
			for _, n := range m.nodes {
				if n.view != nil {
					live = append(live, n)
				}
			}
			held := 0
			for _, n := range live {
				if n.view.Peers() != len(live)-1 {
					t.Errorf("%s knows of %d others, of %d", n.name, n.view.Peers(), len(live)-1)
				}
				if least := modelShards / len(live); len(n.leases) < least || len(n.leases) > least+1 {
					t.Errorf("%s holds %d shards, of %d on %d nodes", n.name, len(n.leases), modelShards, len(live))
				}
				held += len(n.leases)
				for shard, a := range n.view.assigned {
					if agreed := live[0].view.assigned[shard].node; a.node != agreed {
						t.Errorf("%s gives shard %s to %s, and %s to %s", n.name, shard, a.node, live[0].name, agreed)
					}
				}
			}
			if len(live) > 0 && held != modelShards {
				t.Errorf("%d shards are held, of %d", held, modelShards)
			}
		})
	}
}
