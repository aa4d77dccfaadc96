package ingest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/google/uuid"

	"dormouse/internal/extent"
	"dormouse/store/bucket"
	"dormouse/store/cache"
	"dormouse/store/cache/catalog"
	"dormouse/store/manifest"
)

// Bucket is where an owner keeps the snapshots of its catalog.
type Bucket interface {
	// Put stores an object for good; an existing key is refused.
	Put(ctx context.Context, key string, data []byte) error
	// Get reads a whole object of a known size.
	Get(ctx context.Context, s extent.Segment) ([]byte, error)
	// Check returns nil when the bucket answers and lets this process in.
	Check(ctx context.Context) error
}

// A manifest's tail, what it has beyond the newest snapshot, is all that a new owner has to apply one by one. It is cut when
// it exceeds these, but not more often than every snapshotEvery, so that a burst is over before its records are read again.
const (
	snapshotRecords = 1024
	snapshotExtents = 65_536 // some 15 MiB while they are sorted
	snapshotEvery   = 30 * time.Second
)

// Runs of a snapshot are merged when there are mergeRuns of about one size at its end, so that an extent is written again
// once for each time that the catalog grows by that factor, and the runs are few (a size-tiered log-structured merge;
// O'Neil et al. 1996).
const (
	mergeRuns  = 4
	mergeRatio = 3 // a run is of the size of those after it when it is at most so many times as large as all of them
	putTries   = 3 // of a part, before the whole snapshot is begun anew
	mergeTries = 3 // an owner leaves a run alone that it could not read so often; each try may leave orphans in the bucket
)

// takeSnapshots keeps the manifest short until ctx is done: it takes a snapshot when the tail is long, and drops the
// records that a snapshot has, once that is safe from a power failure.
func (o *owner) takeSnapshots(ctx context.Context) error {
	every := min(snapshotEvery, 10*o.cfg.TrimDelay)
	if err := o.dropTail(ctx); err != nil { // of an owner that ended before it did
		return err
	}
	for {
		changed := o.ledger.changed()
		if long, _ := o.longTail(); !long {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-changed:
			}
			continue
		}
		if err := o.shorten(ctx); err != nil {
			return err
		}
		if err := o.dropTail(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(every):
		}
	}
}

// longTail reports whether it is time for a snapshot, and up to which record.
func (o *owner) longTail() (long bool, upTo manifest.Mark) {
	records, extents, upTo := o.ledger.tail()
	if o.snapshot != nil && o.snapshot.UpTo >= upTo.Seq { // counted too much, after a crash
		o.ledger.cutTail(records, extents)
		return false, upTo
	}
	return records >= o.cfg.SnapshotRecords || extents >= o.cfg.SnapshotExtents, upTo
}

// shorten takes snapshots until the tail is short. It tries again while the bucket or JetStream fails.
func (o *owner) shorten(ctx context.Context) error {
	for {
		long, upTo := o.longTail()
		if !long {
			return nil
		}
		_, err := backoff.Retry(ctx, func() (struct{}, error) {
			err := o.takeSnapshot(ctx, upTo)
			if err != nil && ctx.Err() == nil {
				o.outages.snapshot.Failed(err)
			}
			if errors.Is(err, manifest.ErrGap) { // another owner has taken one
				err = backoff.Permanent(err)
			}
			return struct{}{}, err
		}, backoff.WithMaxElapsedTime(0))
		if err != nil {
			return err
		}
		o.outages.snapshot.Over()
	}
}

// takeSnapshot takes one that has the records up to upTo, or as many of them as are sorted at once. The steps, and what a
// crash after each leaves: (1) its parts are in the bucket: orphans; (2) its record is in the manifest: new owners use it;
// (3) the records that it has are dropped (dropTail): the next owner drops them.
func (o *owner) takeSnapshot(ctx context.Context, upTo manifest.Mark) error {
	next := &manifest.Snapshot{}
	if o.snapshot != nil {
		*next = *o.snapshot
		next.Runs = slices.Clone(o.snapshot.Runs)
	}
	run := manifest.Run{After: next.UpTo}
	var rows []catalog.Row
	records, enough := uint64(0), errors.New("enough")
	err := manifest.Scan(ctx, o.cfg.JS, o.source.Shard, manifest.Mark{Seq: next.UpTo, ID: next.UpToID}, upTo, func(seq, _ uint64, r manifest.Record) error {
		for _, s := range r.Segments {
			for _, e := range s.Extents {
				rows = append(rows, catalog.RowOf(e, s.Segment))
				run.Entries += e.Count
			}
		}
		next.UpTo, next.UpToID, next.Highest = seq, r.ID, max(next.Highest, r.Highest())
		if records++; uint64(len(rows)) >= o.cfg.SnapshotExtents {
			return enough
		}
		return nil
	})
	if err != nil && !errors.Is(err, enough) {
		return err
	}
	catalog.Sort(rows)
	run.UpTo, run.Extents = next.UpTo, uint64(len(rows))
	if run.Parts, err = o.putParts(ctx, eachOf(rows)); err != nil {
		return err
	}
	next.Runs = append(next.Runs, run)
	if err := o.mergeEnd(ctx, next); err != nil {
		if ctx.Err() != nil {
			return err
		}
		o.log.Warn("runs of the snapshot could not be merged; it is taken as it is. A takeover on an empty disk needs all of its objects: "+
			"restore the one that is missing or damaged", "error", err, "runs", len(next.Runs))
	}
	if err := o.committer.recordSnapshot(ctx, next); err != nil {
		return err
	}
	o.snapshot = next
	o.ledger.cutTail(records, run.Extents)
	o.metrics.snapshots.Inc()
	return nil
}

func eachOf(rows []catalog.Row) iter.Seq2[catalog.Row, error] {
	return func(yield func(catalog.Row, error) bool) {
		for _, r := range rows {
			if !yield(r, nil) {
				return
			}
		}
	}
}

// mergeEnd merges the runs at the snapshot's end that are of about one size, if there are enough of them. After an error the
// snapshot is as it was, and as good: merging only keeps the runs few. A run that cannot be read is left alone after some
// tries. Those after it are merged among themselves, so that the runs stay few for each such run.
func (o *owner) mergeEnd(ctx context.Context, s *manifest.Snapshot) error {
	from, after := len(s.Runs)-1, s.Runs[len(s.Runs)-1].Extents
	for from > 0 && s.Runs[from-1].Extents <= mergeRatio*after && o.unread[s.Runs[from-1].UpTo] < mergeTries {
		from--
		after += s.Runs[from].Extents
	}
	if len(s.Runs)-from < mergeRuns {
		return nil
	}
	merged := manifest.Run{After: s.Runs[from].After, UpTo: s.UpTo}
	var sources []iter.Seq2[catalog.Row, error]
	for _, run := range s.Runs[from:] {
		merged.Extents += run.Extents
		merged.Entries += run.Entries
		sources = append(sources, o.rowsOf(ctx, run))
	}
	var err error
	if merged.Parts, err = o.putParts(ctx, catalog.Merge(sources)); err != nil {
		return err
	}
	for _, run := range s.Runs[from:] {
		delete(o.unread, run.UpTo)
	}
	s.Runs = append(s.Runs[:from], merged)
	return nil
}

// rowsOf yields the rows of a run, and counts that it cannot be read.
func (o *owner) rowsOf(ctx context.Context, run manifest.Run) iter.Seq2[catalog.Row, error] {
	return func(yield func(catalog.Row, error) bool) {
		for row, err := range catalog.Run(ctx, run.Parts, o.cfg.Bucket.Get) {
			if err != nil && ctx.Err() == nil {
				o.unread[run.UpTo]++
			}
			if !yield(row, err) {
				return
			}
		}
	}
}

// putParts puts ascending rows into the bucket.
func (o *owner) putParts(ctx context.Context, rows iter.Seq2[catalog.Row, error]) (parts []extent.Segment, err error) {
	err = catalog.WriteParts(rows, func(part []byte) error {
		id, err := uuid.NewV7()
		if err != nil {
			return err
		}
		s := extent.Segment{Key: o.source.Shard.String() + "/catalog/" + id.String() + ".rows", Size: uint64(len(part))}
		parts = append(parts, s)
		// What fails may have been stored: the same object again is the same one, and another name would leave an orphan.
		_, err = backoff.Retry(ctx, func() (struct{}, error) {
			return struct{}{}, o.cfg.Bucket.Put(ctx, s.Key, part)
		}, backoff.WithMaxTries(putTries))
		return err
	})
	return parts, err
}

// dropTail drops the records that the newest snapshot has, TrimDelay after its record was appended: until then a power
// failure could take that record and not the drop.
func (o *owner) dropTail(ctx context.Context) error {
	if o.snapshot == nil {
		return nil
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(o.cfg.TrimDelay):
	}
	err := o.stillInManifest(ctx)
	if errors.Is(err, manifest.ErrFenced) {
		return err
	}
	if err == nil {
		err = manifest.Purge(ctx, o.cfg.JS, o.source.Shard, o.snapshot)
	}
	if err == nil {
		o.outages.shorten.Over()
	} else if ctx.Err() == nil {
		o.outages.shorten.Failed(err)
	}
	return ctx.Err()
}

// errSnapshotUnread is wrapped when this node cannot load a snapshot. Another one may be able to, or may not need it.
var errSnapshotUnread = errors.New("the snapshot of the catalog could not be read")

// loadSnapshot makes the local state anew from a snapshot. Until it is done there is no position, so that a crash in between
// leaves nothing that is trusted.
func (o *owner) loadSnapshot(ctx context.Context, s *manifest.Snapshot, pos cache.Position) (cache.Position, error) {
	var extents uint64
	for _, run := range s.Runs {
		extents += run.Extents
	}
	o.progress.records.Store(extents + 1)
	level := slog.LevelInfo
	if o.outages.part.Lasts() { // it is said already that this is tried
		level = slog.LevelDebug
	}
	o.log.Log(ctx, level, "loading a snapshot of the catalog", "extents", extents, "up_to_record", s.UpTo)
	loaded := cache.Position{Source: pos.Source, Manifest: pos.Manifest, ManifestSeq: s.UpTo, ManifestID: s.UpToID, Highest: s.Highest}
	if err := o.ledger.forget(cache.Position{}); err != nil {
		return pos, err
	}
	for _, run := range s.Runs {
		for _, part := range run.Parts {
			if err := o.loadPart(ctx, part); err != nil {
				return pos, err
			}
		}
	}
	o.outages.part.Over()
	return loaded, o.ledger.store(loaded)
}

func (o *owner) loadPart(ctx context.Context, part extent.Segment) error {
	data, err := o.getPart(ctx, part)
	if err != nil {
		return err
	}
	rows, err := o.ledger.putRows(catalog.Rows(data))
	if errors.Is(err, catalog.ErrCorrupt) {
		err = fmt.Errorf("%w: object %s: %w", errSnapshotUnread, part.Key, err)
	}
	o.progress.records.Store(o.progress.records.Load() - min(rows, o.progress.records.Load()-1))
	return err
}

// getPart reads a part, for which it has two leases: nobody serves the shard meanwhile, while another node may be able to.
// One that is alone comes back, with a new claim. A try that hangs is given up after half of that. A part that is gone does
// not come back by itself.
func (o *owner) getPart(ctx context.Context, part extent.Segment) ([]byte, error) {
	limited, cancel := context.WithTimeout(ctx, 2*o.cfg.Lease)
	defer cancel()
	var last error
	data, err := backoff.Retry(limited, func() ([]byte, error) {
		try, cancel := context.WithTimeout(limited, o.cfg.Lease)
		defer cancel()
		data, err := o.cfg.Bucket.Get(try, part)
		if err != nil && limited.Err() == nil {
			last = err // what comes when the time is over says less
			o.outages.part.Failed(err)
		}
		if errors.Is(err, bucket.ErrNotFound) {
			err = backoff.Permanent(fmt.Errorf("%w: restore it, or start the ingest process again that had the shard last, with its --data", err))
		}
		return data, err
	}, backoff.WithMaxElapsedTime(0))
	switch {
	case err == nil:
	case errors.Is(err, bucket.ErrNotFound):
		return nil, fmt.Errorf("%w: %w", errSnapshotUnread, err)
	case ctx.Err() == nil:
		return nil, fmt.Errorf("%w: object %s, for %s: %w", errSnapshotUnread, part.Key, 2*o.cfg.Lease, cmp.Or(last, err))
	}
	return data, err
}
