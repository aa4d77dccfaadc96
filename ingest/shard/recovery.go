package shard

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cenkalti/backoff/v5"
	"golang.org/x/sync/errgroup"

	"dormouse/internal/extent"
	"dormouse/store/bucket"
	"dormouse/store/cache"
	"dormouse/store/manifest"
	"dormouse/store/segment"
	"dormouse/store/tree"
)

// ErrArchiveUnread is wrapped when this node cannot read what it needs of the archive to take the shard over. Another
// one may be able to, or may need less.
var ErrArchiveUnread = errors.New("what a takeover needs of the archive could not be read")

// found is the tree as of the claim.
type found struct {
	tree    tree.Tree
	version uint64 // manifest record that changed it last
	tail    uint64 // records beyond the newest checkpoint
	kept    string // key of that, empty without one
}

// readTree makes the tree from the newest checkpoint and the records since, and brings pos up to them. Pebble is not
// touched.
func (c *claim) readTree(ctx context.Context, at *manifest.Checkpoint, pos *cache.Position) (f found, err error) {
	if at != nil {
		if f.tree, err = c.checkpointed(ctx, at); err != nil {
			return f, err
		}
		f.kept = at.Object.Key
	}
	f.version = max(at.Mark().Seq, 1)
	err = manifest.Scan(ctx, c.JS, c.Source.Shard, at.Mark(), c.chain.manifest.Mark(),
		func(seq, left uint64, r manifest.Record) error {
			c.Progress.records.Store(left + 1)
			c.Advance.claimedTo(seq)
			next, _, err := r.Apply(f.tree, seq)
			if f.tree = next; r.ChangesTree() {
				f.version = seq
			}
			f.tail++
			pos.ManifestSeq, pos.ManifestID, pos.Floor = seq, r.ID, r.Floor
			return err
		})
	return f, err
}

// checkpointed reads a checkpoint's tree, from the local disk or from the bucket.
func (c *claim) checkpointed(ctx context.Context, at *manifest.Checkpoint) (t tree.Tree, err error) {
	c.Progress.records.Store(1)
	kept, err := c.disk.db.Checkpoint(c.Source.Shard, at.Object.Key)
	if err != nil {
		return t, err
	}
	if kept != nil {
		if t, err = tree.Decode(kept); err == nil {
			return t, nil
		}
	}
	data, err := unread(ctx, c, at.Object, func(ctx context.Context) ([]byte, error) {
		return c.Bucket.Get(ctx, at.Object)
	})
	if err != nil {
		return t, err
	}
	if t, err = tree.Decode(data); err != nil {
		return t, fmt.Errorf("%w: object %s: %w", ErrArchiveUnread, at.Object.Key, err)
	}
	return t, c.disk.keepCheckpoint(at.Object.Key, data)
}

// contentsAtOnce is how many tables of contents are read at a time.
const contentsAtOnce = 8

// compare brings Pebble in line with the tree: what is archived leaves the buffer, and what the source stream will
// bring again though it is archived is noted. before is how far Pebble was, and pos how far it will be.
//
// It reads the tables of contents of the segments that reach above what was taken in, and, if the buffer is not of this
// claim, above its floor. That is what the last minutes have archived, whatever the history. Doing it again, after a
// crash, changes nothing.
func (c *claim) compare(ctx context.Context, t tree.Tree, before, pos cache.Position) error {
	if err := c.disk.forgetRecent(); err != nil {
		return err
	}
	var needed []extent.Summary
	fresh := make(map[string]bool)
	for _, run := range t.Runs() {
		for _, s := range run.Segments {
			buffered := before.Applied > 0 && run.Newest > before.ManifestSeq && s.MaxSeq > before.Floor
			if s.MaxSeq > pos.Applied || buffered {
				needed = append(needed, s)
				fresh[s.Object.Key] = run.Fresh()
			}
		}
	}
	c.Progress.records.Store(uint64(len(needed)) + 1)
	for len(needed) > 0 {
		n := min(contentsAtOnce, len(needed))
		tables, err := c.tables(ctx, needed[:n])
		if err != nil {
			return err
		}
		for i, contents := range tables {
			if key := needed[i].Object.Key; fresh[key] {
				c.ledger.filters.add(key, contents)
			}
			if err := c.disk.archived(contents, pos.Applied); err != nil {
				return err
			}
		}
		needed = needed[n:]
		c.Progress.records.Store(uint64(len(needed)) + 1)
	}
	c.Outages.Unread.Over()
	return c.disk.cutAll(t.Cuts(), pos.Floor)
}

// tables reads the tables of contents of some segments side by side, without what was refused.
func (c *claim) tables(ctx context.Context, segments []extent.Summary) ([][]extent.Extent, error) {
	tables := make([][]extent.Extent, len(segments))
	group, ctx := errgroup.WithContext(ctx)
	for i, s := range segments {
		group.Go(func() (err error) {
			tables[i], err = unread(ctx, c, s.Object, func(ctx context.Context) ([]extent.Extent, error) {
				return c.Bucket.Contents(ctx, s.Object)
			})
			tables[i] = slices.DeleteFunc(tables[i], func(e extent.Extent) bool { return !s.MayHold(e.Log) })
			return err
		})
	}
	return tables, group.Wait()
}

// unread reads something of an object, for which it has two leases: nobody serves the shard meanwhile, while another
// node may be able to. One that is alone comes back, with a new claim. A try that hangs is given up after half of that.
// An object that is gone does not come back by itself.
func unread[T any](ctx context.Context, c *claim, object extent.Segment, read func(context.Context) (T, error)) (T,
	error) {
	limited, cancel := context.WithTimeout(ctx, 2*c.Lease)
	defer cancel()
	var last error
	value, err := backoff.Retry(limited, func() (T, error) {
		try, cancel := context.WithTimeout(limited, c.Lease)
		defer cancel()
		value, err := read(try)
		if err != nil && limited.Err() == nil {
			last = err // what comes when the time is over says less
			c.Outages.Unread.Failed(err)
		}
		if errors.Is(err, bucket.ErrNotFound) || errors.Is(err, segment.ErrCorrupt) {
			err = backoff.Permanent(fmt.Errorf("%w: restore it, or start the ingest process again that had the shard last, "+
				"with its --data", err))
		}
		return value, err
	}, backoff.WithMaxElapsedTime(0))
	switch {
	case err == nil || ctx.Err() != nil:
	case errors.Is(err, bucket.ErrNotFound) || errors.Is(err, segment.ErrCorrupt):
		err = fmt.Errorf("%w: %w", ErrArchiveUnread, err)
	default:
		err = fmt.Errorf("%w: object %s, for %s: %w", ErrArchiveUnread, object.Key, 2*c.Lease, cmp.Or(last, err))
	}
	return value, err
}
