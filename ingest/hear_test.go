package ingest

import (
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/wire"
)

// rawChange is a change of the lease bucket by whoever may write to it.
type rawChange struct {
	change
	value []byte
	gone  bool
}

func (c rawChange) Value() []byte { return c.value }

func (c rawChange) Operation() jetstream.KeyValueOp {
	if c.gone {
		return jetstream.KeyValueDelete
	}
	return jetstream.KeyValuePut
}

// FuzzHear: whatever the lease bucket holds, this node is among those that live, and shards are for nodes that live.
func FuzzHear(f *testing.F) {
	lease := []byte(`{"node":"b","since":"2026-01-02T03:04:05Z"}`)
	f.Add(wire.NodeKeys+"b", lease, wire.LeaseKey(0), lease, true)
	f.Add(wire.WaitingKeys+"a", []byte("{"), wire.ShardKeys+"-1", []byte(nil), false)
	f.Add(wire.NodeKeys+"a", lease, "shard.0.0", []byte(`{"node":7}`), false)
	f.Fuzz(func(t *testing.T, key1 string, value1 []byte, key2 string, value2 []byte, gone bool) {
		now := time.Now()
		r := newRoster(&leases{node: "a"}, 2*time.Second, slog.New(slog.DiscardHandler))
		r.setShards([]wire.Shard{0, 1, 7})
		for i, c := range []rawChange{{change{key: key1}, value1, false}, {change{key: key2}, value2, false}, {change{key: key1}, nil, gone}} {
			r.hear(c, now.Add(time.Duration(i)*time.Millisecond))
			if _, lives := r.nodes["a"]; !lives {
				t.Fatalf("%q has this node dead", c.key)
			}
			for shard, node := range r.plan {
				if _, lives := r.nodes[node]; !lives {
					t.Fatalf("shard %s is for %q, who is not among %v", shard, node, r.nodes)
				}
			}
		}
		r.expire(now.Add(time.Hour))
	})
}
