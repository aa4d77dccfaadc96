package alone

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"dormouse/internal/extent"
	"dormouse/internal/shardid"
	"dormouse/store/bucket"
	"dormouse/store/tree"
)

// margin is how long before a checkpoint a segment may have been named that was committed after it.
const margin = time.Hour

// Objects is what a Survey needs of a bucket.
type Objects interface {
	List(ctx context.Context, prefix string) iter.Seq2[extent.Segment, error]
	Get(ctx context.Context, s extent.Segment) ([]byte, error)
}

// Shard is what a bucket has of one.
type Shard struct {
	ID shardid.Shard
	// Tree is that of the newest checkpoint that can be read, empty without one, and Checkpoint that object's key.
	Tree       tree.Tree
	Checkpoint string
	Unread     []error          // of newer checkpoints: why they cannot be read
	Gone       []extent.Summary // segments of Tree that are not there: they were merged since, or are lost
	// Since are the segments that are there besides and may have been committed after the checkpoint, ascending by key.
	Since []extent.Segment
}

// Survey lists a bucket and reads the newest checkpoint of each shard. The shards ascend; one that has neither a
// segment nor a checkpoint is none.
func Survey(ctx context.Context, b Objects) (shards []Shard, err error) {
	found := make(map[shardid.Shard]*objects)
	for o, err := range b.List(ctx, "") {
		if err != nil {
			return nil, err
		}
		folder, _, _ := strings.Cut(o.Key, "/")
		id, err := shardid.Parse(folder)
		if err != nil || id.String() != folder || !id.IsSegmentKey(o.Key) && !id.IsCheckpointKey(o.Key) {
			continue
		}
		if found[id] == nil {
			found[id] = &objects{segments: make(map[string]extent.Segment)}
		}
		if id.IsSegmentKey(o.Key) {
			found[id].segments[o.Key] = o
		} else {
			found[id].checkpoints = append(found[id].checkpoints, o) // ascending by key, and so by time
		}
	}
	for _, id := range slices.Sorted(maps.Keys(found)) {
		s, err := found[id].shard(ctx, b, id)
		if err != nil {
			return nil, err
		}
		shards = append(shards, s)
	}
	return shards, nil
}

// objects are those of one shard.
type objects struct {
	segments    map[string]extent.Segment
	checkpoints []extent.Segment
}

// shard makes out which of the segments may be part of the archive. A checkpoint that cannot be read is passed over for
// the one before.
func (o *objects) shard(ctx context.Context, b Objects, id shardid.Shard) (Shard, error) {
	s := Shard{ID: id}
	var since time.Time
	for _, at := range slices.Backward(o.checkpoints) {
		data, err := b.Get(ctx, at)
		if err == nil {
			s.Tree, err = tree.Decode(data)
		}
		if err == nil {
			s.Checkpoint, since = at.Key, Named(at.Key).Add(-margin)
			break
		}
		s.Tree = tree.Tree{}
		if !errors.Is(err, tree.ErrInvalid) && !errors.Is(err, bucket.ErrNotFound) {
			return s, err
		}
		s.Unread = append(s.Unread, fmt.Errorf("checkpoint %s: %w", at.Key, err))
	}
	for p := range s.Tree.Overlapping("", "") {
		if _, there := o.segments[p.Segment.Object.Key]; !there {
			s.Gone = append(s.Gone, p.Segment)
		}
		delete(o.segments, p.Segment.Object.Key)
	}
	for _, key := range slices.Sorted(maps.Keys(o.segments)) {
		if at := Named(key); at.IsZero() || at.After(since) {
			s.Since = append(s.Since, o.segments[key])
		}
	}
	return s, nil
}

// Named returns when an object was named, which its name tells; the zero time if it does not.
func Named(key string) time.Time {
	id, err := uuid.Parse(strings.TrimSuffix(path.Base(key), path.Ext(key)))
	if err != nil || id.Version() != 7 {
		return time.Time{}
	}
	return time.Unix(id.Time().UnixTime())
}
