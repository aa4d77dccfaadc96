package topology

import (
	"fmt"
	"hash/fnv"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/shardid"
	"dormouse/internal/wire"
)

// MaxShards bounds the shards that tenants are spread over. Each is a stream with a Raft group of its own.
const MaxShards = 1024

// Mapping is a subject mapping of a NATS account.
type Mapping struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// PartitionMapping sends what tenants publish below the default prefix to n shards, by a hash of the tenant, and keeps
// the rest of the subject.
func PartitionMapping(n int) Mapping {
	return Mapping{
		From: wire.DefaultPrefix + ".*.>",
		To:   fmt.Sprintf("dormouse.shard.{{partition(%d,1)}}.{{wildcard(1)}}.>", n),
	}
}

// PartitionOf returns the shard to which a server that applies PartitionMapping(n) sends a tenant: its partition
// function is the 32-bit FNV-1a hash of the token, modulo n.
func PartitionOf(tenant string, n int) shardid.Shard {
	h := fnv.New32a()
	_, _ = h.Write([]byte(tenant)) // never fails
	return shardid.Shard(h.Sum32() % uint32(n))
}

// Partitions returns over how many of the sources the tenants are spread by an account mapping; 0 is none.
func Partitions(sources []Source) int {
	for _, s := range sources {
		if s.Partitions > 0 {
			return s.Partitions
		}
	}
	return 0
}

// partitionConfig is the source stream of one of n shards.
func partitionConfig(shard shardid.Shard, n int, cfg Config) jetstream.StreamConfig {
	c := sourceConfig(PartitionStream(shard), shard, PartitionPrefix(shard), cfg)
	c.Metadata[wire.MetadataPartitions] = fmt.Sprint(n)
	return c
}

// PartitionStream is the name of a shard's source stream, when tenants are spread over several.
func PartitionStream(s shardid.Shard) string { return "DORMOUSE_LOGS_" + s.String() }

// PartitionPrefix is where the account mapping sends the tenants of such a shard.
func PartitionPrefix(s shardid.Shard) string { return "dormouse.shard." + s.String() }
