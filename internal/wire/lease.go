package wire

import (
	"time"

	"dormouse/internal/shardid"
)

// Keys of the lease bucket: one for each node that lives, and one for each shard that a node holds. A node that lives
// but should be given no shard, since its bucket does not answer, has a waiting key instead of a node key.
const (
	NodeKeys    = "node."
	WaitingKeys = "waiting."
	ShardKeys   = "shard."
)

// LeaseKey is the key of a shard's lease.
func LeaseKey(s shardid.Shard) string { return ShardKeys + s.String() }

// Lease is what a key of the lease bucket says, as JSON, for people and for the other nodes.
type Lease struct {
	Node  string    `json:"node"`
	Host  string    `json:"host,omitempty"` // for people
	Since time.Time `json:"since"`
}

// Holder is what the process that holds it is called, see ProcessName.
func (l Lease) Holder() string { return ProcessName(l.Host, l.Node) }
