package shard

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"dormouse/internal/extent"
	"dormouse/internal/outage"
	"dormouse/internal/shardid"
	"dormouse/store/cache/catalog"
	"dormouse/store/manifest"
)

// Tail is what a manifest has beyond its newest snapshot: all that a new owner has to apply one by one.
type Tail struct{ Records, Extents uint64 }

// defaultTail is how long a tail may get before it is cut. Its extents take some 15 MiB while they are sorted.
var defaultTail = Tail{Records: 1024, Extents: 65_536}

// snapshotEvery is how often a tail is cut at most, so that a burst is over before its records are read again.
const snapshotEvery = 30 * time.Second

// Runs of a snapshot are merged when there are mergeRuns of about one size at its end (a size-tiered log-structured
// merge; O'Neil et al. 1996). The runs stay few, and an extent is written again once for each time that the catalog
// grows by that factor.
const (
	mergeRuns  = 4
	mergeRatio = 3 // a run is of the size of those after it when it is at most so many times as large as all of them
	putTries   = 3 // of a part, before the whole snapshot is begun anew
	mergeTries = 3 // an owner leaves a run alone that it could not read so often; each try may leave orphans in the bucket
)

// snapshotter keeps the manifest of a shard short: it takes snapshots of the catalog, and drops the records that they
// have. What it takes in memory is the rows of one snapshot's newest run.
type snapshotter struct {
	js     jetstream.JetStream
	shard  shardid.Shard
	bucket Bucket
	chain  *appender
	ledger *ledger
	most   Tail               // of a tail that is not cut; as many extents are sorted at once
	delay  time.Duration      // of dropping what a snapshot has
	newest *manifest.Snapshot // set by the claim, nil without any
	unread map[uint64]int     // how often a run, by its last record, could not be read; bounded by the runs

	record           func(context.Context, *manifest.Snapshot) error // has a snapshot recorded
	snapshots        prometheus.Counter
	taking, dropping *outage.Log
	log              *slog.Logger
}

// run keeps the manifest short until ctx is done: it takes a snapshot when the tail is long, and drops the
// records that a snapshot has, once that is safe from a power failure.
func (t *snapshotter) run(ctx context.Context) error {
	every := min(snapshotEvery, 10*t.delay)
	if err := t.dropTail(ctx); err != nil { // of an owner that ended before it did
		return err
	}
	for {
		changed := t.ledger.changed()
		if long, _ := t.longTail(); !long {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-changed:
			}
			continue
		}
		if err := t.shorten(ctx); err != nil {
			return err
		}
		if err := t.dropTail(ctx); err != nil {
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
func (t *snapshotter) longTail() (long bool, upTo manifest.Mark) {
	records, extents, upTo := t.ledger.tail()
	if t.newest != nil && t.newest.UpTo >= upTo.Seq { // counted too much, after a crash
		t.ledger.cutTail(records, extents)
		return false, upTo
	}
	return records >= t.most.Records || extents >= t.most.Extents, upTo
}

// shorten takes snapshots until the tail is short. It tries again while the bucket or JetStream fails.
func (t *snapshotter) shorten(ctx context.Context) error {
	for {
		long, upTo := t.longTail()
		if !long {
			return nil
		}
		_, err := backoff.Retry(ctx, func() (struct{}, error) {
			err := t.take(ctx, upTo)
			if err != nil && ctx.Err() == nil {
				t.taking.Failed(err)
			}
			if errors.Is(err, manifest.ErrGap) { // another owner has taken one
				err = backoff.Permanent(err)
			}
			return struct{}{}, err
		}, backoff.WithMaxElapsedTime(0))
		if err != nil {
			return err
		}
		t.taking.Over()
	}
}

// take takes one that has the records up to upTo, or as many of them as are sorted at once. The steps, and what a
// crash after each leaves: (1) its parts are in the bucket: orphans; (2) its record is in the manifest: new owners use
// it; (3) the records that it has are dropped (dropTail): the next owner drops them.
func (t *snapshotter) take(ctx context.Context, upTo manifest.Mark) error {
	next := &manifest.Snapshot{}
	if t.newest != nil {
		*next = *t.newest
		next.Runs = slices.Clone(t.newest.Runs)
	}
	run := manifest.Run{After: next.UpTo}
	var rows []catalog.Row
	records, enough := uint64(0), errors.New("enough")
	err := manifest.Scan(ctx, t.js, t.shard, manifest.Mark{Seq: next.UpTo, ID: next.UpToID}, upTo,
		func(seq, _ uint64, r manifest.Record) error {
			for _, s := range r.Segments {
				for _, e := range s.Extents {
					rows = append(rows, catalog.RowOf(e, s.Segment))
					run.Entries += e.Count
				}
			}
			next.UpTo, next.UpToID, next.Highest = seq, r.ID, max(next.Highest, r.Highest())
			if records++; uint64(len(rows)) >= t.most.Extents {
				return enough
			}
			return nil
		})
	if err != nil && !errors.Is(err, enough) {
		return err
	}
	catalog.Sort(rows)
	run.UpTo, run.Extents = next.UpTo, uint64(len(rows))
	if run.Parts, err = t.putParts(ctx, eachOf(rows)); err != nil {
		return err
	}
	next.Runs = append(next.Runs, run)
	if err := t.mergeEnd(ctx, next); err != nil {
		if ctx.Err() != nil {
			return err
		}
		t.log.Warn("runs of the snapshot could not be merged; it is taken as it is. A takeover on an empty disk needs all "+
			"of its objects: restore the one that is missing or damaged", "error", err, "runs", len(next.Runs))
	}
	if err := t.record(ctx, next); err != nil {
		return err
	}
	t.newest = next
	t.ledger.cutTail(records, run.Extents)
	t.snapshots.Inc()
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

// mergeEnd merges the runs at the snapshot's end that are of about one size, if there are enough of them. After an
// error the snapshot is as it was, and as good: merging only keeps the runs few. A run that cannot be read is left
// alone after some tries. Those after it are merged among themselves, so that the runs stay few for each such run.
func (t *snapshotter) mergeEnd(ctx context.Context, s *manifest.Snapshot) error {
	from, after := len(s.Runs)-1, s.Runs[len(s.Runs)-1].Extents
	for from > 0 && s.Runs[from-1].Extents <= mergeRatio*after && t.unread[s.Runs[from-1].UpTo] < mergeTries {
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
		sources = append(sources, t.rowsOf(ctx, run))
	}
	var err error
	if merged.Parts, err = t.putParts(ctx, catalog.Merge(sources)); err != nil {
		return err
	}
	for _, run := range s.Runs[from:] {
		delete(t.unread, run.UpTo)
	}
	s.Runs = append(s.Runs[:from], merged)
	return nil
}

// rowsOf yields the rows of a run, and counts that it cannot be read.
func (t *snapshotter) rowsOf(ctx context.Context, run manifest.Run) iter.Seq2[catalog.Row, error] {
	return func(yield func(catalog.Row, error) bool) {
		for row, err := range catalog.Run(ctx, run.Parts, t.bucket.Get) {
			if err != nil && ctx.Err() == nil {
				t.unread[run.UpTo]++
			}
			if !yield(row, err) {
				return
			}
		}
	}
}

// putParts puts ascending rows into the bucket.
func (t *snapshotter) putParts(
	ctx context.Context, rows iter.Seq2[catalog.Row, error],
) (parts []extent.Segment, err error) {
	err = catalog.WriteParts(rows, func(part []byte) error {
		id, err := uuid.NewV7()
		if err != nil {
			return err
		}
		s := extent.Segment{Key: t.shard.String() + "/catalog/" + id.String() + ".rows", Size: uint64(len(part))}
		parts = append(parts, s)
		// What fails may have been stored: the same object again is the same one, and another name would leave an orphan.
		_, err = backoff.Retry(ctx, func() (struct{}, error) {
			return struct{}{}, t.bucket.Put(ctx, s.Key, part)
		}, backoff.WithMaxTries(putTries))
		return err
	})
	return parts, err
}

// dropTail drops the records that the newest snapshot has, TrimDelay after its record was appended: until then a power
// failure could take that record and not the drop.
func (t *snapshotter) dropTail(ctx context.Context) error {
	if t.newest == nil {
		return nil
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(t.delay):
	}
	err := t.chain.stillThere(ctx)
	if errors.Is(err, manifest.ErrFenced) {
		return err
	}
	if err == nil {
		err = manifest.Purge(ctx, t.js, t.shard, t.newest)
	}
	if err == nil {
		t.dropping.Over()
	} else if ctx.Err() == nil {
		t.dropping.Failed(err)
	}
	return ctx.Err()
}
