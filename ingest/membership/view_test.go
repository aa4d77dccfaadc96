package membership

import (
	"testing"
	"time"

	"dormouse/internal/shardid"
	"dormouse/internal/wire"
)

// put is a change by which a node takes or renews a key.
func put(key, node string, revision uint64) Change {
	return Change{Key: key, Value: []byte(`{"node":"` + node + `"}`), Revision: revision}
}

// TestLapsedLease holds when a node takes the lease of another one to be over: not before its holder has stopped to
// trust it, within a term, and not when it could not have heard of a renewal.
func TestLapsedLease(t *testing.T) {
	const term = 12 * time.Second
	start := time.Now()
	at := func(d time.Duration) time.Time { return start.Add(d) }
	heldByB := func() *View {
		v := NewView("a", term, start)
		v.SetEligible(true, start)
		v.SetShards([]shardid.Shard{0}, start)
		v.Hear(put(wire.NodeKeys+"a", "a", 1), start)
		v.Hear(put(wire.NodeKeys+"b", "b", 2), start)
		v.Hear(put(wire.LeaseKey(0), "b", 3), start)
		return v
	}
	is := func(v *View, holder string, lapsed uint64, mine bool) {
		t.Helper()
		if p := v.Placement(0); p.Holder != holder || p.Lapsed != lapsed || p.Mine != mine {
			t.Errorf("holder %q, lapsed revision %d, mine %v; want %q, %d, %v", p.Holder, p.Lapsed, p.Mine, holder, lapsed, mine)
		}
	}

	v := heldByB()
	v.Hear(put(wire.NodeKeys+"a", "a", 4), at(term/2))
	v.Expire(at(term / 2))
	is(v, "b", 0, false) // b still answers readers
	v.Hear(put(wire.NodeKeys+"a", "a", 5), at(term-1))
	v.Expire(at(term - 1))
	is(v, "", 3, true)
	v.Hear(put(wire.LeaseKey(0), "a", 6), at(term))
	is(v, "a", 0, true)

	v = heldByB()
	v.Expire(at(term)) // nothing was heard at all: this node is blind
	is(v, "b", 0, false)
	v.Hear(put(wire.NodeKeys+"a", "a", 4), at(2*term))
	v.Expire(at(2 * term)) // sees again, and b's renewals may be the next that it hears
	is(v, "b", 0, false)
	v.Hear(put(wire.NodeKeys+"a", "a", 5), at(2*term+term/2))
	v.Expire(at(3*term - 1))
	is(v, "", 3, true)
}

// TestViewOfANodeThatIsNotEligible holds what a node that is not eligible takes for its own: what it serves, and all if
// it is alone.
func TestViewOfANodeThatIsNotEligible(t *testing.T) {
	const term = 10 * time.Second
	start := time.Now()
	v := NewView("a", term, start)
	v.SetShards([]shardid.Shard{0, 1, 2, 3}, start)
	owns := func(when string, want int) {
		t.Helper()
		if mine, _ := v.Share(0, start.Add(2*term)); mine != want {
			t.Errorf("%s: its share is %d shards, want %d", when, mine, want)
		}
	}
	owns("alone", 4)
	v.Hear(put(wire.WaitingKeys+"c", "c", 1), start)
	owns("another one waits", 4)
	v.Hear(put(wire.NodeKeys+"b", "b", 2), start)
	owns("another one lives", 0)
	v.SetServing(2, true, start)
	owns("it serves one", 1)
	if !v.Placement(2).Mine {
		t.Error("it is to give up what it serves")
	}
	v.SetServing(2, false, start)
	owns("it serves none", 0)
	v.SetEligible(true, start)
	owns("it is eligible", 2)
	v.SetEligible(false, start)
	v.Hear(put(wire.WaitingKeys+"a", "a", 3), start.Add(term))
	v.Expire(start.Add(term))
	owns("it has just begun to hear", 0)
	v.Hear(put(wire.WaitingKeys+"a", "a", 4), start.Add(term+term/2))
	v.Expire(start.Add(2*term - 1))
	owns("the other one died", 4)
}

// FuzzHear: whatever the lease bucket holds, this node is among those that live, and shards are for nodes that live.
func FuzzHear(f *testing.F) {
	lease := []byte(`{"node":"b","since":"2026-01-02T03:04:05Z"}`)
	f.Add(wire.NodeKeys+"b", lease, wire.LeaseKey(0), lease, true)
	f.Add(wire.WaitingKeys+"a", []byte("{"), wire.ShardKeys+"-1", []byte(nil), false)
	f.Add(wire.NodeKeys+"a", lease, "shard.0.0", []byte(`{"node":7}`), false)
	f.Fuzz(func(t *testing.T, key1 string, value1 []byte, key2 string, value2 []byte, gone bool) {
		now := time.Now()
		v := NewView("a", 2*time.Second, now)
		v.SetShards([]shardid.Shard{0, 1, 7}, now)
		for i, c := range []Change{{Key: key1, Value: value1}, {Key: key2, Value: value2}, {Key: key1, Deleted: gone}} {
			v.Hear(c, now.Add(time.Duration(i)*time.Millisecond))
			if _, lives := v.peers["a"]; !lives {
				t.Fatalf("%q has this node dead", c.Key)
			}
			for shard, a := range v.assigned {
				if _, lives := v.peers[a.node]; !lives {
					t.Fatalf("shard %s is for %q, who is not among %v", shard, a.node, v.peers)
				}
			}
		}
		v.Expire(now.Add(time.Hour))
	})
}
