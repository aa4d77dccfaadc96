// Package shardid numbers the shards of a system, and says how a shard's part of the bucket is named.
package shardid

import (
	"fmt"
	"strconv"
	"strings"
)

// Shard numbers one source stream. It is fixed for the stream's life.
type Shard uint32

// Parse reads the decimal form that String writes.
func Parse(s string) (Shard, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("shard %q is not a number from 0 to 4294967295", s)
	}
	return Shard(n), nil
}

// String returns the decimal form.
func (s Shard) String() string { return strconv.FormatUint(uint64(s), 10) }

const (
	segmentSuffix  = ".sst"
	maxSegmentName = 64 // bytes; a UUID has 36
)

// SegmentKey is where the shard's segment of that name lies in the bucket.
func (s Shard) SegmentKey(name string) string { return s.String() + "/" + name + segmentSuffix }

// CheckpointKey is where the shard's checkpoint of that name lies in the bucket.
func (s Shard) CheckpointKey(name string) string { return s.String() + "/checkpoint/" + name + ".tree" }

// CutKey is where the record lies of who deleted what of the shard, and when.
func (s Shard) CutKey(name string) string { return s.String() + "/deleted/" + name + ".json" }

// IsCheckpointKey reports whether key may name a checkpoint of the shard.
func (s Shard) IsCheckpointKey(key string) bool {
	name, ok := strings.CutPrefix(key, s.String()+"/checkpoint/")
	return ok && strings.HasSuffix(name, ".tree")
}

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
