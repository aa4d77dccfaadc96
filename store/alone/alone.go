// Package alone reads an archive from the bucket alone: no NATS, no owner, nothing but the objects.
//
// The newest checkpoint of a shard says what was live when it was taken. What was committed since, and what merges have
// made since, is found by listing. Some of that was never committed, or is in its inputs as well: an entry of the same
// log, sequence and time counts once. So all that was committed is read, and what a worker had put and not committed
// yet besides.
//
// It changes nothing. Open survey.go for what is found, read.go for how entries that are in several objects come once,
// and store/reader for reading a system that runs.
package alone

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"dormouse/internal/extent"
	"dormouse/internal/shardid"
	"dormouse/store/bucket"
	"dormouse/store/segment"
)

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
	found, err := Survey(ctx, b)
	if err != nil {
		return nil, err
	}
	a := &Archive{bucket: b}
	for _, f := range found {
		if s := piecesOf(f); len(s.pieces) > 0 {
			a.shards = append(a.shards, s)
		}
	}
	if len(a.shards) == 0 {
		return nil, fmt.Errorf("%w: %s has no segment of any shard: is it the right URL?", ErrEmpty, b.URL())
	}
	return a, nil
}

// piecesOf orders what a bucket has of a shard.
func piecesOf(f Shard) *shard {
	s := &shard{id: f.ID, cuts: f.Tree.Cuts(), gone: f.Gone}
	gone := make(map[string]bool)
	for _, g := range f.Gone {
		gone[g.Object.Key] = true
	}
	for p := range f.Tree.Overlapping("", "") {
		if !gone[p.Segment.Object.Key] {
			s.pieces = append(s.pieces, p)
		}
	}
	s.known = len(s.pieces)
	for _, o := range f.Since {
		s.pieces = append(s.pieces, extent.Piece{Segment: anything(o)})
	}
	return s
}

// anything is the Summary of an object of which nothing is known: it may hold any log.
func anything(o extent.Segment) extent.Summary {
	return extent.Summary{Object: o, Last: "\U0010ffff"}
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
