package membership

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"dormouse/internal/shardid"
)

func numbered(shards, nodes int) (s []shardid.Shard, n []string) {
	for i := range shards {
		s = append(s, shardid.Shard(i))
	}
	for i := range nodes {
		n = append(n, fmt.Sprintf("node-%d", i))
	}
	return s, n
}

func TestAssignIsEven(t *testing.T) {
	for shards := range 40 {
		for nodes := 1; nodes <= 12; nodes++ {
			s, n := numbered(shards, nodes)
			plan := Assign(s, n, nil)
			if len(plan) != shards {
				t.Fatalf("%d shards on %d nodes: %d are assigned", shards, nodes, len(plan))
			}
			load := make(map[string]int)
			for _, node := range plan {
				load[node]++
			}
			for _, node := range n {
				if load[node] < shards/nodes || load[node] > (shards+nodes-1)/nodes {
					t.Fatalf("%d shards on %d nodes: %v", shards, nodes, load)
				}
			}
			slices.Reverse(s)
			slices.Reverse(n)
			if !maps.Equal(plan, Assign(s, n, nil)) {
				t.Fatalf("%d shards on %d nodes: the order of the lists matters", shards, nodes)
			}
		}
	}
	if plan := Assign([]shardid.Shard{1}, nil, nil); len(plan) != 0 {
		t.Fatalf("assigned to nobody: %v", plan)
	}
}

// TestAssignMovesOnlyTheShare holds that of a running system nothing moves but the share of the node that comes or
// goes.
func TestAssignMovesOnlyTheShare(t *testing.T) {
	s, n := numbered(67, 8)
	plan := Assign(s, n[:7], nil)
	count := func(next map[shardid.Shard]string, node string) (moved, share int) {
		for shard, owner := range next {
			if owner != plan[shard] {
				moved++
			}
			if owner == node {
				share++
			}
		}
		return moved, share
	}
	joined := Assign(s, n, plan)
	if moved, share := count(joined, n[7]); moved != share || share != 8 {
		t.Errorf("a node that joined took %d shards, %d moved in all", share, moved)
	}
	plan = joined
	left := Assign(s, n[1:], plan)
	moved, _ := count(left, "")
	others := slices.DeleteFunc(slices.Collect(maps.Values(plan)), func(node string) bool { return node == n[0] })
	if share := 67 - len(others); moved != share {
		t.Errorf("a node that left had %d shards, %d moved in all", share, moved)
	}
}
