package shard

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/cenkalti/backoff/v5"

	"dormouse/internal/extent"
	"dormouse/store/bucket"
	"dormouse/store/cache"
	"dormouse/store/cache/catalog"
	"dormouse/store/manifest"
)

// ErrSnapshotUnread is wrapped when this node cannot load a snapshot. Another one may be able to, or may not need it.
var ErrSnapshotUnread = errors.New("the snapshot of the catalog could not be read")

// loadSnapshot makes the local state anew from a snapshot. Until it is done there is no position, so that a crash in
// between leaves nothing that is trusted.
func (c *claim) loadSnapshot(ctx context.Context, s *manifest.Snapshot, pos cache.Position) (cache.Position, error) {
	var extents uint64
	for _, run := range s.Runs {
		extents += run.Extents
	}
	c.Progress.records.Store(extents + 1)
	level := slog.LevelInfo
	if c.Outages.Unread.Lasts() { // it is said already that this is tried
		level = slog.LevelDebug
	}
	c.Logger.Log(ctx, level, "loading a snapshot of the catalog", "extents", extents, "up_to_record", s.UpTo)
	loaded := cache.Position{Source: pos.Source, Manifest: pos.Manifest, ManifestSeq: s.UpTo, ManifestID: s.UpToID,
		Highest: s.Highest}
	if err := c.disk.forget(cache.Position{}); err != nil {
		return pos, err
	}
	for _, run := range s.Runs {
		for _, part := range run.Parts {
			if err := c.loadPart(ctx, part); err != nil {
				return pos, err
			}
		}
	}
	c.Outages.Unread.Over()
	return loaded, c.disk.store(loaded)
}

func (c *claim) loadPart(ctx context.Context, part extent.Segment) error {
	data, err := c.getPart(ctx, part)
	if err != nil {
		return err
	}
	rows, err := c.disk.putRows(catalog.Rows(data))
	if errors.Is(err, catalog.ErrCorrupt) {
		err = fmt.Errorf("%w: object %s: %w", ErrSnapshotUnread, part.Key, err)
	}
	c.Progress.records.Store(c.Progress.records.Load() - min(rows, c.Progress.records.Load()-1))
	return err
}

// getPart reads a part, for which it has two leases: nobody serves the shard meanwhile, while another node may be able
// to. One that is alone comes back, with a new claim. A try that hangs is given up after half of that. A part that is
// gone does not come back by itself.
func (c *claim) getPart(ctx context.Context, part extent.Segment) ([]byte, error) {
	limited, cancel := context.WithTimeout(ctx, 2*c.Lease)
	defer cancel()
	var last error
	data, err := backoff.Retry(limited, func() ([]byte, error) {
		try, cancel := context.WithTimeout(limited, c.Lease)
		defer cancel()
		data, err := c.Bucket.Get(try, part)
		if err != nil && limited.Err() == nil {
			last = err // what comes when the time is over says less
			c.Outages.Unread.Failed(err)
		}
		if errors.Is(err, bucket.ErrNotFound) {
			err = backoff.Permanent(fmt.Errorf("%w: restore it, or start the ingest process again that had the shard last, "+
				"with its --data", err))
		}
		return data, err
	}, backoff.WithMaxElapsedTime(0))
	switch {
	case err == nil:
	case errors.Is(err, bucket.ErrNotFound):
		return nil, fmt.Errorf("%w: %w", ErrSnapshotUnread, err)
	case ctx.Err() == nil:
		return nil, fmt.Errorf("%w: object %s, for %s: %w", ErrSnapshotUnread, part.Key, 2*c.Lease, cmp.Or(last, err))
	}
	return data, err
}
