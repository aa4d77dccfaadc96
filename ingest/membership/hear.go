package membership

import (
	"cmp"
	"encoding/json"
	"strings"
	"time"

	"dormouse/internal/shardid"
	"dormouse/internal/wire"
)

// Change is one change of the lease bucket.
type Change struct {
	Key      string
	Value    []byte // JSON of a wire.Lease, or what else somebody put there
	Deleted  bool
	Revision uint64
}

// lapsesAfter is how long a lease goes unrenewed before those who watch it take it to be over, by their own monotonic
// clock. It is less than the bucket's TTL, which the server enforces late, so a dead owner is replaced within a term.
// It is well more than the half term for which the holder trusts it, see Lease.Fresh.
func lapsesAfter(term time.Duration) time.Duration { return term / 5 * 4 }

// blindAfter is how long a node goes without hearing its own heartbeat before it knows nothing of the others' either.
func blindAfter(term time.Duration) time.Duration { return term / 3 * 2 }

// Hear takes up one change of the bucket. It ignores keys that are not ours.
func (v *View) Hear(c Change, now time.Time) {
	var value wire.Lease
	valid := !c.Deleted && json.Unmarshal(c.Value, &value) == nil
	if node, ok := strings.CutPrefix(c.Key, wire.NodeKeys); ok {
		v.hearNode(node, c.Deleted, now)
		if p, lives := v.peers[node]; lives && valid {
			p.name = wire.ProcessName(value.Host, node)
			v.peers[node] = p
		}
		return
	}
	if node, ok := strings.CutPrefix(c.Key, wire.WaitingKeys); ok {
		if node == v.self { // our own waiting key is our heartbeat; other nodes' waiting keys do not count
			v.hearNode(node, c.Deleted, now)
		}
		return
	}
	number, _ := strings.CutPrefix(c.Key, wire.ShardKeys)
	shard, err := shardid.Parse(number)
	if err != nil {
		return
	}
	before := v.holders[shard].node
	if valid {
		v.holders[shard] = holder{value.Node, now, c.Revision}
	} else {
		delete(v.holders, shard)
	}
	if v.holders[shard].node != before {
		v.assign(now)
	}
}

// hearNode takes up that a node lives or has left.
func (v *View) hearNode(node string, gone bool, now time.Time) {
	p, known := v.peers[node]
	if node == v.self && now.Sub(p.heard) > blindAfter(v.term) {
		v.seeAgain(now)
	}
	switch {
	case !gone:
		p.heard = now
		v.peers[node] = p
	case node != v.self:
		delete(v.peers, node)
	}
	if _, knows := v.peers[node]; knows != known {
		v.assign(now)
	}
}

// seeAgain gives everybody a new term to be heard. Our own heartbeat came through again after nobody could renew
// anything, or nobody was heard. The others' renewals may still be on their way.
func (v *View) seeAgain(now time.Time) {
	for node, p := range v.peers {
		p.heard = now
		v.peers[node] = p
	}
	for shard, h := range v.holders {
		if h.node != "" {
			h.heard = now
			v.holders[shard] = h
		}
	}
}

// Expire forgets who is unresponsive, and returns what people call the nodes that it forgot. While this node does not
// hear its own heartbeat, the view is blind rather than the others dead: it stays as it is.
func (v *View) Expire(now time.Time) (gone []string) {
	if now.Sub(v.peers[v.self].heard) > blindAfter(v.term) {
		return nil
	}
	over, changed := now.Add(-lapsesAfter(v.term)), false
	for shard, h := range v.holders {
		if h.node != "" && h.heard.Before(over) {
			h.node = ""
			v.holders[shard], changed = h, true
		}
	}
	for node, p := range v.peers {
		if node != v.self && p.heard.Before(over) {
			delete(v.peers, node)
			gone = append(gone, cmp.Or(p.name, wire.ProcessName("", node)))
		}
	}
	if changed || len(gone) > 0 {
		v.assign(now)
	}
	return gone
}
