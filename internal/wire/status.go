package wire

import (
	"fmt"
	"time"

	"dormouse/internal/shardid"
)

// Process is what one process says of itself.
type Process struct {
	ID      string        `cbor:"1,keyasint"` // of its data directory, or of this run for a process without one
	Host    string        `cbor:"2,keyasint"`
	Version string        `cbor:"3,keyasint"`
	Roles   []string      `cbor:"4,keyasint"`
	Started time.Time     `cbor:"5,keyasint"`
	HTTP    string        `cbor:"6,keyasint"` // address of metrics and health
	Workers int           `cbor:"7,keyasint,omitempty"`
	Busy    int           `cbor:"8,keyasint,omitempty"`
	Shards  []ShardStatus `cbor:"9,keyasint,omitempty"` // of the ingest role, ascending

	// What processes of older versions do not say.
	Archive  string `cbor:"10,keyasint,omitempty"` // URL of its bucket, without secrets
	NotReady string `cbor:"11,keyasint,omitempty"` // what keeps it from being ready, but for its bucket
	Bucket   string `cbor:"12,keyasint,omitempty"` // how its bucket fails
	Looking  bool   `cbor:"13,keyasint,omitempty"` // it is still finding these two out: ask again
}

// Name is what the process is called, see ProcessName.
func (p Process) Name() string { return ProcessName(p.Host, p.ID) }

// ShardState is where an ingest process stands with a shard.
type ShardState string

// The shard states.
const (
	ShardStarting ShardState = "starting" // neither owned nor seen to be owned by another process
	ShardStandby  ShardState = "standby"  // another process holds the lease
	ShardClaiming ShardState = "claiming" // holds the lease, catching up with the manifest
	ShardOwned    ShardState = "owned"
)

// ShardStatus is where one ingest process stands with one shard.
type ShardStatus struct {
	Shard  shardid.Shard `cbor:"1,keyasint"`
	State  ShardState    `cbor:"2,keyasint"`
	Holder string        `cbor:"3,keyasint,omitempty"` // ID of the process that holds the lease, as far as this one knows

	RecordsLeft uint64 `cbor:"4,keyasint,omitempty"` // of a takeover: manifest records to apply
	EntriesLeft uint64 `cbor:"5,keyasint,omitempty"` // and entries to replay

	// Of an owner.
	Epoch   uint64 `cbor:"6,keyasint,omitempty"`
	Applied uint64 `cbor:"7,keyasint,omitempty"` // last source sequence that was taken in
	Logs    int    `cbor:"8,keyasint,omitempty"` // active
	Queued  int    `cbor:"9,keyasint,omitempty"` // of those, waiting for workers
	Entries uint64 `cbor:"10,keyasint,omitempty"`
	Bytes   uint64 `cbor:"11,keyasint,omitempty"`
	Oldest  int64  `cbor:"12,keyasint,omitempty"` // arrival of the oldest buffered entry, Unix nanoseconds; 0: none
	Full    bool   `cbor:"13,keyasint,omitempty"` // it takes nothing in until workers have made room in its buffer

	Stuck *Stuck `cbor:"14,keyasint,omitempty"` // of a process that owns the shard or should; nil while it gets on
}

// Stuck is what a shard has not got past for longer than a lease.
type Stuck struct {
	Seq     uint64    `cbor:"1,keyasint"`           // in the source stream; 0 when that is not known
	Subject string    `cbor:"2,keyasint,omitempty"` // of that message, likewise
	Since   time.Time `cbor:"3,keyasint"`
	Reason  string    `cbor:"4,keyasint"`
	Suspect bool      `cbor:"5,keyasint,omitempty"` // nothing else is known to be at fault than this message
}

// At names the message, for people; "" when it is not known, or no single one is at fault.
func (s Stuck) At() string {
	if s.Seq == 0 {
		return ""
	}
	return fmt.Sprintf(" at sequence %d (%.200q)", s.Seq, s.Subject)
}

// Try is what an operator can try, to follow the reason; "" when there is no message that may be at fault.
func (s Stuck) Try(shard shardid.Shard) string {
	if s.Seq == 0 || !s.Suspect {
		return ""
	}
	return fmt.Sprintf(" (if it is that message's fault: dormouse provision --skip %s:%d puts it aside)", shard, s.Seq)
}
