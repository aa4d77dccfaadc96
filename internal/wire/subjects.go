// Package wire is what travels between the processes of a Dormouse system: subjects, stream names and messages.
//
// Ingest owners and workers never import each other; they share this package. It sends nothing itself. Open ingest for
// the owner's side of each exchange and workers for the other.
package wire

import (
	"strconv"
	"strings"

	"dormouse/internal/shardid"
)

// Names of the streams and buckets, and the subject prefixes, that every process agrees on.
const (
	DefaultSource   = "LOGS" // the source stream that Dormouse makes when there is none
	DefaultPrefix   = "logs" // tenants publish below it
	SyncQueueStream = "DORMOUSE_SYNCQUEUE"
	SyncQueuePool   = "workers" // the durable consumer that all workers share
	MergeStream     = "DORMOUSE_MERGES"
	MergePool       = "workers" // the durable consumer of that one
	ManifestStream  = "DORMOUSE_MANIFEST"
	RejectedStream  = "DORMOUSE_REJECTED"
	LeaseBucket     = "DORMOUSE_LEASES"
	PolicyBucket    = "DORMOUSE_POLICIES"

	SyncQueueSubjects = "dormouse.sync.*"
	MergeSubjects     = "dormouse.merge.*"
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

// HeaderSourceSeq is, on a manifest record, the last sequence of the shard's source stream that was taken in: a stream
// that is made again in its place has to begin above.
const HeaderSourceSeq = "Dormouse-Source-Seq"

// SyncSubject is where a shard's work items are published.
func SyncSubject(s shardid.Shard) string { return "dormouse.sync." + s.String() }

// MergeSubject is where a shard's merges are published.
func MergeSubject(s shardid.Shard) string { return "dormouse.merge." + s.String() }

// ManifestSubject is a shard's manifest.
func ManifestSubject(s shardid.Shard) string { return "dormouse.manifest." + s.String() }

// RejectedSubject takes a shard's entries that are no log.
func RejectedSubject(s shardid.Shard) string { return "dormouse.rejected." + s.String() }

// SkippedSubject takes those that an operator has put aside. The owner takes no gap for a loss of which this tells.
func SkippedSubject(s shardid.Shard) string { return RejectedSubject(s) + "-skipped" }

// Operation is one request that an owner answers.
type Operation string

// The operations.
const (
	OpDrain    Operation = "drain"    // DrainRequest -> DrainReply
	OpCommit   Operation = "commit"   // CommitRequest -> CommitReply
	OpReplace  Operation = "replace"  // ReplaceRequest -> ReplaceReply
	OpHeld     Operation = "held"     // HeldRequest -> HeldReply
	OpSegments Operation = "segments" // SegmentsRequest -> SegmentsReply
	OpList     Operation = "list"     // ListRequest -> ListReply
	OpCut      Operation = "cut"      // CutRequest -> CutReply
	OpSweep    Operation = "sweep"    // SweepRequest -> SweepReply
)

// StatusSubject is where every process of a system answers an empty request with a Process.
const StatusSubject = "dormouse.status"

// OwnerSubject is where the owner of shard in epoch answers op. The epoch in the subject means that a request can only
// reach the owner it was meant for: a stale owner never hears what is asked of its successor, and a request to an owner
// that is gone fails at once with "no responders".
func OwnerSubject(s shardid.Shard, epoch uint64, op Operation) string {
	return "dormouse.owner." + s.String() + "." + strconv.FormatUint(epoch, 10) + "." + string(op)
}

// OwnerSubjects matches every operation of one owner.
func OwnerSubjects(s shardid.Shard, epoch uint64) string { return OwnerSubject(s, epoch, "*") }

// OperationOf returns the operation that an owner subject ends in.
func OperationOf(subject string) Operation {
	return Operation(subject[strings.LastIndexByte(subject, '.')+1:])
}
