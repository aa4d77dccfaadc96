// Package wire is what travels between the processes of a Dormouse system: subjects, stream names and messages.
//
// Ingest owners and workers never import each other; they share this package. It sends nothing itself. Open ingest for
// the owner's side of each exchange and workers for the other.
package wire

import (
	"fmt"
	"strconv"
	"strings"
)

// Names of the streams and buckets, and the subject prefixes, that every process agrees on.
const (
	DefaultSource   = "LOGS" // the source stream that Dormouse makes when there is none
	DefaultPrefix   = "logs" // tenants publish below it
	SyncQueueStream = "DORMOUSE_SYNCQUEUE"
	SyncQueuePool   = "workers" // the durable consumer that all workers share
	ManifestStream  = "DORMOUSE_MANIFEST"
	RejectedStream  = "DORMOUSE_REJECTED"
	LeaseBucket     = "DORMOUSE_LEASES"

	SyncQueueSubjects = "dormouse.sync.*"
	ManifestSubjects  = "dormouse.manifest.*"
	RejectedSubjects  = "dormouse.rejected.*"
	// SystemSubject, in the manifest stream, holds the system's identity: which bucket is its archive.
	SystemSubject = "dormouse.manifest.system"

	// MetadataShard, in a source stream's metadata, holds its Shard number: shards are found by it.
	MetadataShard = "dormouse.shard"
	// MetadataPrefix holds the subject prefix in front of the LogID.
	MetadataPrefix = "dormouse.prefix"
	// MetadataPartitions is, on each of the source streams over which Dormouse spreads the tenants, how many of them there
	// are.
	MetadataPartitions = "dormouse.partitions"
	// MetadataManaged is "true" on a source stream that Dormouse made, and may therefore trim.
	MetadataManaged = "dormouse.managed"
)

// HeaderSourceSeq, on a manifest record, is the last sequence of the shard's source stream that was taken in: a stream
// that is made again in its place has to begin above.
const HeaderSourceSeq = "Dormouse-Source-Seq"

// Shard numbers one source stream. It is fixed for the stream's life.
type Shard uint32

// ParseShard reads the decimal form that String writes.
func ParseShard(s string) (Shard, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("shard %q is not a number from 0 to 4294967295", s)
	}
	return Shard(n), nil
}

func (s Shard) String() string { return strconv.FormatUint(uint64(s), 10) }

// PartitionStream is the name of the source stream that is the shard's, when tenants are spread over several.
func (s Shard) PartitionStream() string { return "DORMOUSE_LOGS_" + s.String() }

// PartitionPrefix is where the account mapping sends the tenants of such a shard.
func (s Shard) PartitionPrefix() string { return "dormouse.shard." + s.String() }

// SyncSubject is where the shard's work items are published.
func (s Shard) SyncSubject() string { return "dormouse.sync." + s.String() }

// ManifestSubject is the shard's manifest.
func (s Shard) ManifestSubject() string { return "dormouse.manifest." + s.String() }

// SegmentKey is where the shard's segment of that name lies in the bucket.
func (s Shard) SegmentKey(name string) string { return s.String() + "/" + name + segmentSuffix }

// IsSegmentKey reports whether key may name a segment of the shard: it lies in the shard's folder itself, and its name
// is of letters, digits, `.`, `_` and `-`, and does not start with a dot.
func (s Shard) IsSegmentKey(key string) bool {
	name, ok := strings.CutPrefix(key, s.String()+"/")
	if ok {
		name, ok = strings.CutSuffix(name, segmentSuffix)
	}
	return ok && name != "" && name[0] != '.' && len(name) <= maxSegmentName &&
		!strings.ContainsFunc(name, func(r rune) bool {
			letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
			return !letter && r != '.' && r != '_' && r != '-'
		})
}

const (
	segmentSuffix  = ".sst"
	maxSegmentName = 64 // bytes; a UUID has 36
)

// RejectedSubject takes the shard's entries that are no log.
func (s Shard) RejectedSubject() string { return "dormouse.rejected." + s.String() }

// SkippedSubject takes those that an operator has put aside. The owner takes no gap for a loss of which this tells.
func (s Shard) SkippedSubject() string { return s.RejectedSubject() + "-skipped" }

// Operation is one request that an owner answers.
type Operation string

const (
	OpDrain   Operation = "drain"   // DrainRequest -> DrainReply
	OpCommit  Operation = "commit"  // CommitRequest -> CommitReply
	OpHeld    Operation = "held"    // HeldRequest -> HeldReply
	OpExtents Operation = "extents" // ExtentsRequest -> ExtentsReply
	OpList    Operation = "list"    // ListRequest -> ListReply
)

// StatusSubject is where every process of a system answers an empty request with a Process.
const StatusSubject = "dormouse.status"

// OwnerSubject is where the owner of shard in epoch answers op. The epoch in the subject means that a request can only
// reach the owner it was meant for: a stale owner never hears what is asked of its successor, and a request to an owner
// that is gone fails at once with "no responders".
func OwnerSubject(s Shard, epoch uint64, op Operation) string {
	return "dormouse.owner." + s.String() + "." + strconv.FormatUint(epoch, 10) + "." + string(op)
}

// OwnerSubjects matches every operation of one owner.
func OwnerSubjects(s Shard, epoch uint64) string { return OwnerSubject(s, epoch, "*") }

// OperationOf returns the operation that an owner subject ends in.
func OperationOf(subject string) Operation {
	return Operation(subject[strings.LastIndexByte(subject, '.')+1:])
}
