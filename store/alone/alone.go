// Package alone reads an archive from the bucket alone: no NATS, no owner, nothing but the objects.
//
// The newest checkpoint of a shard says what was live when it was taken. What was committed since, and what merges have
// made since, is found by listing. Some of that was never committed, or is in its inputs as well: an entry of the same
// log, sequence and time counts once. So all that was committed is read, and what a worker had put and not committed
// yet besides.
//
// It changes nothing. Open read.go for how entries that are in several objects come once, and store/reader for reading
// a system that runs.
package alone

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"dormouse/internal/extent"
	"dormouse/internal/shardid"
	"dormouse/store/bucket"
	"dormouse/store/segment"
	"dormouse/store/tree"
)

// margin is how long before a checkpoint a segment may have been named that was committed after it.
const margin = time.Hour

// ErrEmpty means that a bucket has no segment of an archive.
var ErrEmpty = errors.New("no archive")

// Archive is what a bucket has of a system, as it was when it was listed. It is for one goroutine.
type Archive struct {
	bucket *bucket.Bucket
	shards []*shard // ascending
}

// shard is what a bucket has of one.
type shard struct {
	id     shardid.Shard
	pieces []extent.Piece // in the tree's order, then what is not in the checkpoint, by name
	known  int            // pieces of the checkpoint, whose Summary is whole; that of others has no more than the object
	gone   []extent.Summary
	cuts   extent.Cuts // of the checkpoint
}

// Open lists a bucket and reads the checkpoints. The error wraps ErrEmpty when there is no segment.
func Open(ctx context.Context, b *bucket.Bucket) (*Archive, error) {
	found := make(map[shardid.Shard]*objects)
	for o, err := range b.List(ctx, "") {
		if err != nil {
			return nil, err
		}
		folder, name, ok := strings.Cut(o.Key, "/")
		id, err := shardid.Parse(folder)
		if !ok || err != nil || id.String() != folder {
			continue
		}
		if found[id] == nil {
			found[id] = &objects{segments: make(map[string]extent.Segment)}
		}
		switch {
		case id.IsSegmentKey(o.Key):
			found[id].segments[o.Key] = o
		case strings.HasPrefix(name, "checkpoint/"):
			found[id].checkpoints = append(found[id].checkpoints, o) // ascending by key, and so by time
		}
	}
	a := &Archive{bucket: b}
	for _, id := range slices.Sorted(maps.Keys(found)) {
		s, err := found[id].shard(ctx, b, id)
		if err != nil {
			return nil, err
		}
		if len(s.pieces) > 0 {
			a.shards = append(a.shards, s)
		}
	}
	if len(a.shards) == 0 {
		return nil, fmt.Errorf("%w: %s has no segment of any shard: is it the right URL?", ErrEmpty, b.URL())
	}
	return a, nil
}

// objects are those of one shard.
type objects struct {
	segments    map[string]extent.Segment
	checkpoints []extent.Segment
}

// shard makes out which of the segments may be part of the archive. A checkpoint that cannot be read is passed over for
// the one before.
func (o *objects) shard(ctx context.Context, b *bucket.Bucket, id shardid.Shard) (*shard, error) {
	s := &shard{id: id}
	var live tree.Tree
	var since time.Time
	for _, at := range slices.Backward(o.checkpoints) {
		data, err := b.Get(ctx, at)
		if err == nil {
			live, err = tree.Decode(data)
		}
		if err == nil {
			since = named(at.Key).Add(-margin)
			break
		}
		if !errors.Is(err, tree.ErrInvalid) && !errors.Is(err, bucket.ErrNotFound) {
			return nil, err
		}
	}
	s.cuts = live.Cuts()
	for p := range live.Overlapping("", "") {
		if _, there := o.segments[p.Segment.Object.Key]; !there { // merged since, or lost
			s.gone = append(s.gone, p.Segment)
			continue
		}
		delete(o.segments, p.Segment.Object.Key)
		s.pieces = append(s.pieces, p)
	}
	s.known = len(s.pieces)
	for _, key := range slices.Sorted(maps.Keys(o.segments)) {
		if at := named(key); at.IsZero() || at.After(since) {
			s.pieces = append(s.pieces, extent.Piece{Segment: anything(o.segments[key])})
		}
	}
	return s, nil
}

// anything is the Summary of an object of which nothing is known: it may hold any log.
func anything(o extent.Segment) extent.Summary {
	return extent.Summary{Object: o, Last: "\U0010ffff"}
}

// named returns when an object was named, which its name tells; the zero time if it does not.
func named(key string) time.Time {
	id, err := uuid.Parse(strings.TrimSuffix(path.Base(key), path.Ext(key)))
	if err != nil || id.Version() != 7 {
		return time.Time{}
	}
	return time.Unix(id.Time().UnixTime())
}

// cuts returns the cuts of the shard that a segment is of: their sequences are those of its source stream.
func (a *Archive) cuts(s extent.Segment) extent.Cuts {
	folder, _, _ := strings.Cut(s.Key, "/")
	for _, one := range a.shards {
		if one.id.String() == folder {
			return one.cuts
		}
	}
	return nil
}

// uncut drops the extents of which nothing is left.
func (a *Archive) uncut(extents []extent.Located) []extent.Located {
	return slices.DeleteFunc(extents, func(l extent.Located) bool {
		_, none := a.cuts(l.Segment).Split(l.Extent)
		return none
	})
}

// Open implements contents.Opener.
func (a *Archive) Open(ctx context.Context, s extent.Segment) (*segment.Reader, error) {
	object, err := a.bucket.Segment(s)
	if err != nil {
		return nil, err
	}
	r, err := segment.Open(ctx, object)
	if err != nil {
		return nil, errors.Join(err, object.Close())
	}
	return r, nil
}

// Done implements contents.Opener.
func (a *Archive) Done(_ extent.Segment, r *segment.Reader) error { return r.Close() }
