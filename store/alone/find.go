package alone

import (
	"context"
	"errors"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"dormouse/internal/entry"
	"dormouse/internal/extent"
	"dormouse/internal/shardid"
	"dormouse/store/bucket"
	"dormouse/store/segment"
)

// Sought says what is looked for in a bucket: entries of logs that a cut of each shard covers.
type Sought map[shardid.Shard]extent.Cut

// in returns what is looked for in a shard; nothing if there is none.
func (s Sought) in(id shardid.Shard) (extent.Cut, bool) {
	c, ok := s[id]
	if !ok {
		c, ok = s[anyShard]
	}
	return c, ok
}

// anyShard stands in Sought for all shards that are not named.
const anyShard = ^shardid.Shard(0)

// Everything looks for any entry of what a pattern covers, see extent.Cut, in all shards.
func Everything(pattern string) Sought {
	return Sought{anyShard: {Logs: pattern, UpTo: ^uint64(0)}}
}

// Find reads the table of contents of every segment in a bucket, committed or not, live or not, and yields the keys of
// those that have entries of what is sought. The error names a segment that cannot be read: nobody can say then.
// Progress is told of segments, and may be nil.
func Find(ctx context.Context, b *bucket.Bucket, sought Sought, progress func(done, total uint64)) (keys []string,
	err error) {
	var objects []extent.Segment
	var wanted []extent.Cut // of each
	for o, err := range b.List(ctx, "") {
		if err != nil {
			return nil, err
		}
		folder, _, _ := strings.Cut(o.Key, "/")
		id, err := shardid.Parse(folder)
		if err != nil || id.String() != folder || !id.IsSegmentKey(o.Key) {
			continue
		}
		if c, ok := sought.in(id); ok {
			objects, wanted = append(objects, o), append(wanted, c)
		}
	}
	var mu sync.Mutex
	var done uint64
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(openAtOnce)
	a := &Archive{bucket: b}
	for i, o := range objects {
		group.Go(func() error {
			has, err := a.has(ctx, o, wanted[i])
			if errors.Is(err, bucket.ErrNotFound) { // deleted meanwhile
				has, err = false, nil
			}
			mu.Lock()
			defer mu.Unlock()
			if has {
				keys = append(keys, o.Key)
			}
			if done++; progress != nil {
				progress(done, uint64(len(objects)))
			}
			return err
		})
	}
	return keys, group.Wait()
}

// has reports whether a segment has entries of what a cut covers.
func (a *Archive) has(ctx context.Context, s extent.Segment, c extent.Cut) (has bool, err error) {
	r, err := a.Open(ctx, s)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	from, to := c.Range()
	table, err := r.Table(ctx, from, to)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, table.Close()) }()
	for {
		e, ok, err := table.Next()
		if err != nil || !ok {
			return false, err
		}
		if !c.Covers(e.Log) {
			continue
		}
		if c.Has(e.First, e.MinTime) && (c.Before == 0 || c.Has(e.Last, e.MaxTime)) {
			return true, nil
		}
		if !c.Has(e.First, e.MinTime) {
			continue
		}
		if part, err := a.hasPart(ctx, r, e, c); part || err != nil {
			return part, err
		}
	}
}

// errFound ends a scan.
var errFound = errors.New("found")

// hasPart reads the entries of an extent of which the table of contents does not tell.
func (a *Archive) hasPart(ctx context.Context, r *segment.Reader, e extent.Extent, c extent.Cut) (bool, error) {
	err := r.Scan(ctx, e.Log, e.First, e.Last, func(one entry.Entry) error {
		if c.Has(one.Seq, one.Time.UnixNano()) {
			return errFound
		}
		return nil
	})
	if errors.Is(err, errFound) {
		return true, nil
	}
	return false, err
}
