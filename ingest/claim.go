package ingest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"dormouse/scheduler"
	"dormouse/store/cache"
	"dormouse/store/manifest"
)

// claim begins a new epoch of the shard and brings the local state up to it. From the claim's append on, no earlier
// owner can commit; so what is read afterwards is final until this owner changes it.
//
// A crash at any point of it leaves at most an epoch in which nothing was committed.
func (o *owner) claim(ctx context.Context) (err error) {
	if o.from.stream, err = o.cfg.JS.Stream(ctx, o.source.Stream); err != nil {
		return fmt.Errorf("opening the source stream %s: %w", o.source.Stream, err)
	}
	if o.manifest, err = manifest.Open(ctx, o.cfg.JS, o.source.Shard); err != nil {
		return err
	}
	last, _ := o.manifest.Last()
	o.epoch = last.Epoch + 1
	o.manifest.Failing = func(err error) { o.advance.fails(committing, err) }
	record := manifest.Record{Kind: manifest.Claim, Epoch: o.epoch, Owner: o.cfg.NodeID}
	if record.Floor, record.Source, err = o.resume(ctx, last); err != nil {
		return err
	}
	if record.Source == last.Source && record.Floor == last.Floor {
		o.before = last
	}
	if _, err := o.manifest.Append(ctx, record); err != nil {
		return err
	}
	o.advance.done(committing)
	if o.sched, err = scheduler.New(scheduler.Config{
		Tick: o.cfg.Tick, MaxDelay: o.cfg.MaxDelay, RequeueAfter: o.cfg.RequeueAfter, MaxBytes: o.cfg.MaxBytes,
		Publish: o.publishReady, Metrics: o.schedules, Logger: o.log, Outage: o.outages.queue,
	}); err != nil {
		return err
	}
	o.ledger.sched, o.committer, o.intake = o.sched, o.newCommitter(), o.newIntake()
	if err := o.recover(ctx); err != nil {
		return fmt.Errorf("recovering the local state: %w", err)
	}
	pos := o.ledger.position()
	o.progress.replay(pos.Applied, o.from.stream.CachedInfo().State.LastSeq)
	o.floors.recorded(pos.Floor, time.Now())
	return nil
}

// recover brings Pebble from wherever a crash left it to the manifest as of the claim, and the log states from there.
func (o *owner) recover(ctx context.Context) error {
	pos, err := o.trustedPosition(ctx)
	if err != nil {
		return err
	}
	snapshot, err := o.manifest.Snapshot(ctx)
	if err != nil {
		return err
	}
	o.snapshots = o.newSnapshotter(snapshot)
	if snapshot != nil && pos.ManifestSeq < snapshot.UpTo { // the records between may go at any moment
		if pos, err = o.loadSnapshot(ctx, snapshot, pos); err != nil {
			return err
		}
	}
	o.ledger.begin(pos)
	err = manifest.Scan(ctx, o.cfg.JS, o.source.Shard, manifest.Mark{Seq: pos.ManifestSeq, ID: pos.ManifestID},
		o.manifest.Mark(),
		func(seq, left uint64, r manifest.Record) error {
			o.progress.records.Store(left + 1)
			o.advance.claimedTo(seq)
			return o.ledger.apply(seq, r, false)
		})
	if errors.Is(err, manifest.ErrGap) { // what was applied may count for nothing, and is trusted no more
		err = errors.Join(err, o.ledger.forget(cache.Position{}))
	}
	if err != nil {
		return err
	}
	o.ledger.beginAbove(o.ledger.position().Floor)
	return o.ledger.restore()
}

// trustedPosition returns the local position after dropping what does not belong to the streams as they are now:
// another stream of the same name, or one that lost its end (a power failure before its sync) and uses those sequences
// again.
func (o *owner) trustedPosition(ctx context.Context) (cache.Position, error) {
	pos, err := o.cfg.DB.Position(o.source.Shard)
	if err != nil {
		return pos, err
	}
	info := o.from.stream.CachedInfo()
	_, lastManifest := o.manifest.Last()
	fresh := cache.Position{Source: info.Created, Manifest: o.manifest.Created()}
	if pos.Source.IsZero() { // a new disk, or one on which a snapshot was being loaded
		return fresh, o.ledger.forget(fresh)
	}
	if !pos.Source.Equal(fresh.Source) || !pos.Manifest.Equal(fresh.Manifest) || pos.ManifestSeq > lastManifest {
		o.log.Warn("the local cache belongs to other streams: rebuilding it from JetStream")
		return fresh, o.ledger.forget(fresh)
	}
	switch presence, err := o.manifest.Has(ctx, pos.ManifestSeq, pos.ManifestID); {
	case err != nil:
		return pos, err
	case presence == manifest.Other:
		o.log.Warn("the manifest lost its end, which this node had applied (power failure before a sync?): rebuilding the " +
			"local cache")
		return fresh, o.ledger.forget(fresh)
	case presence == manifest.Gone: // nothing can tell any more that it was this one
		o.log.Info("the manifest was shortened beyond what this node had applied: rebuilding the local cache from " +
			"its snapshot")
		return fresh, o.ledger.forget(fresh)
	}
	same, err := o.from.has(ctx, pos.Applied, pos.AppliedTime)
	if err != nil || same {
		return pos, err
	}
	o.log.Warn("the source stream lost entries at its end that this node had buffered (power failure before a sync?): "+
		"reading it again", "applied", pos.Applied, "stream_last", info.State.LastSeq)
	pos.Applied, pos.AppliedTime = 0, time.Time{}
	return pos, o.ledger.forget(pos, cache.SpaceBuffer)
}

// stillInManifest returns an error that wraps manifest.ErrFenced when the last record that this owner has applied is
// not there any more: the servers lost their last seconds in a power failure that this process lived through. What is
// removed on the strength of the manifest must not be removed then.
func (o *owner) stillInManifest(ctx context.Context) error {
	pos := o.ledger.position()
	presence, err := o.manifest.Has(ctx, pos.ManifestSeq, pos.ManifestID)
	if err == nil && presence != manifest.Same {
		err = fmt.Errorf("%w: shard %s: record %d is not there any more", manifest.ErrFenced, o.source.Shard, pos.ManifestSeq)
	}
	return err
}
