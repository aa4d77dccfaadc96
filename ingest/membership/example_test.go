package membership_test

import (
	"fmt"
	"time"

	"dormouse/ingest/membership"
	"dormouse/internal/shardid"
	"dormouse/internal/wire"
)

func ExampleAssign() {
	shards := []shardid.Shard{0, 1, 2, 3}
	owners := membership.Assign(shards, []string{"a"}, nil)
	owners = membership.Assign(shards, []string{"a", "b"}, owners) // b comes: only its share moves
	load := make(map[string]int)
	for _, node := range owners {
		load[node]++
	}
	fmt.Println(load)
	// Output: map[a:2 b:2]
}

func ExampleView() {
	const term = 10 * time.Second
	now := time.Unix(0, 0)
	hear := func(v *membership.View, key, node string, revision uint64) {
		v.Hear(membership.Change{Key: key, Value: []byte(`{"node":"` + node + `"}`), Revision: revision}, now)
	}
	v := membership.NewView("a", term, now)
	v.SetEligible(true, now)
	v.SetShards([]shardid.Shard{0}, now)
	hear(v, wire.NodeKeys+"b", "b", 1)
	hear(v, wire.LeaseKey(0), "b", 2)
	p := v.Placement(0)
	fmt.Printf("mine: %v, holder: %q\n", p.Mine, p.Holder)

	now = now.Add(term / 2) // this node hears its own heartbeat, and nothing of b
	hear(v, wire.NodeKeys+"a", "a", 3)
	now = now.Add(term / 2)
	fmt.Println("gone:", v.Expire(now))
	p = v.Placement(0)
	fmt.Printf("mine: %v, lapsed revision: %d\n", p.Mine, p.Lapsed)
	// Output:
	// mine: false, holder: "b"
	// gone: [b]
	// mine: true, lapsed revision: 2
}
