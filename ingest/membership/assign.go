package membership

import (
	"cmp"
	"slices"

	"github.com/cespare/xxhash/v2"

	"dormouse/internal/shardid"
)

// Assign says which node should own which shard. Holders are the nodes that hold the shards' leases now. The order of
// the lists does not matter. Without nodes nothing is assigned.
//
// Every node computes it from the same view and comes to the same answer, so a shard has one taker. No node gets more
// than one shard above another. A holder keeps its shard as far as that allows, so only the share of a node that comes
// or goes moves. Beyond that each pair of shard and node has a fixed score (rendezvous hashing, Thaler and Ravishankar
// 1998), and the best pairs go first.
func Assign(shards []shardid.Shard, nodes []string, holders map[shardid.Shard]string) map[shardid.Shard]string {
	type pair struct {
		held  int // 0 before 1
		score uint64
		shard shardid.Shard
		node  string
	}
	pairs := make([]pair, 0, len(shards)*len(nodes))
	for _, s := range shards {
		for _, n := range nodes {
			held := 1
			if holders[s] == n {
				held = 0
			}
			pairs = append(pairs, pair{held, xxhash.Sum64String(s.String() + " " + n), s, n})
		}
	}
	slices.SortFunc(pairs, func(a, b pair) int {
		return cmp.Or(cmp.Compare(a.held, b.held), cmp.Compare(b.score, a.score),
			cmp.Compare(a.shard, b.shard), cmp.Compare(a.node, b.node))
	})
	owners := make(map[shardid.Shard]string, len(shards))
	load := make(map[string]int, len(nodes))
	least, larger := 0, 0 // every node gets least, and this many get one more
	if len(nodes) > 0 {
		least, larger = len(shards)/len(nodes), len(shards)%len(nodes)
	}
	for _, p := range pairs {
		if _, taken := owners[p.shard]; taken || load[p.node] > least || load[p.node] == least && larger == 0 {
			continue
		}
		if load[p.node] == least {
			larger--
		}
		owners[p.shard] = p.node
		load[p.node]++
	}
	return owners
}
