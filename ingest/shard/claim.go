package shard

import (
	"context"
	"errors"
	"fmt"
	"time"

	"dormouse/scheduler"
	"dormouse/store/cache"
	"dormouse/store/manifest"
)

// Claim begins a new epoch of the shard and brings the local state up to it, for an owner to serve it. From the claim's
// append on, no earlier owner can commit; so what is read afterwards is final until this owner changes it. An error
// that wraps ErrArchiveUnread is of this node alone.
//
// A crash at any point of it leaves at most an epoch in which nothing was committed.
func Claim(ctx context.Context, site Site) (*Owner, error) {
	c, err := openClaim(ctx, site)
	if err != nil {
		return nil, err
	}
	return c.begin(ctx)
}

// claim is the beginning of an epoch.
type claim struct {
	Site
	epoch  uint64
	from   *sourceStream
	disk   *disk
	ledger *ledger
	chain  *appender
	clock  *clock // of objects
}

// openClaim finds the streams of the shard, and with them the epoch.
func openClaim(ctx context.Context, site Site) (*claim, error) {
	stream, err := site.JS.Stream(ctx, site.Source.Stream)
	if err != nil {
		return nil, fmt.Errorf("opening the source stream %s: %w", site.Source.Stream, err)
	}
	m, err := manifest.Open(ctx, site.JS, site.Source.Shard)
	if err != nil {
		return nil, err
	}
	m.Failing = func(err error) { site.Advance.Fails(Committing, err) }
	last, _ := m.Last()
	c := &claim{Site: site, epoch: last.Epoch + 1, disk: newDisk(site.DB, site.Source.Shard),
		clock: new(clock)}
	sched, err := scheduler.New(scheduler.Config{
		Tick: c.Tick, MaxDelay: c.MaxDelay, RequeueAfter: c.RequeueAfter, MaxBytes: c.MaxBytes,
		Publish: queue{c.JS, c.Source.Shard, c.epoch}.publish, Metrics: c.Metrics.schedules, Logger: c.Logger,
		Outage: c.Outages.queue, Policies: c.Policies,
	})
	if err != nil {
		return nil, err
	}
	c.ledger = newLedger(c.disk, sched, c.Metrics)
	c.from = &sourceStream{source: c.Source, js: c.JS, stream: stream, ledger: c.ledger, every: sourceCheck,
		advance: c.Advance, log: c.Logger}
	c.chain = &appender{manifest: m, shard: c.Source.Shard, ledger: c.ledger, advance: c.Advance}
	c.chain.garbage = newGarbage(c.Site, c.chain)
	return c, nil
}

// begin claims the epoch and returns its owner.
func (c *claim) begin(ctx context.Context) (*Owner, error) {
	if err := c.append(ctx); err != nil {
		return nil, err
	}
	o := c.owner()
	if err := c.recover(ctx, o); err != nil {
		return nil, fmt.Errorf("recovering the local state: %w", err)
	}
	return o, nil
}

// append makes the claim the manifest's last record.
func (c *claim) append(ctx context.Context) (err error) {
	last, _ := c.chain.manifest.Last()
	record := manifest.Record{Kind: manifest.Claim, Epoch: c.epoch, Owner: c.NodeID}
	if record.Floor, record.Source, err = c.resume(ctx, last); err != nil {
		return err
	}
	if record.Source == last.Source && record.Floor == last.Floor {
		c.chain.before = last
	}
	if _, err := c.chain.manifest.Append(ctx, record); err != nil {
		return err
	}
	c.Advance.Done(Committing)
	return nil
}

// recover brings Pebble from wherever a crash left it to the manifest as of the claim, and the log states from there.
func (c *claim) recover(ctx context.Context, o *Owner) error {
	before, err := c.trustedPosition(ctx)
	if err != nil {
		return err
	}
	if o.checkpoints.newest, err = c.chain.manifest.Checkpoint(ctx); err != nil {
		return err
	}
	pos := before
	found, err := c.readTree(ctx, o.checkpoints.newest, &pos)
	if errors.Is(err, manifest.ErrGap) { // what was applied may count for nothing, and is trusted no more
		err = errors.Join(err, c.disk.forget(cache.Position{}))
	}
	if err != nil {
		return err
	}
	if pos.Applied < pos.Floor { // the disk was lost, or is of long ago: all up to the floor is archived
		pos.Applied, pos.AppliedTime = pos.Floor, time.Time{}
	}
	if err := c.compare(ctx, found.tree, before, pos); err != nil {
		return err
	}
	if err := c.disk.store(pos); err != nil {
		return err
	}
	c.ledger.begin(pos, found)
	if err := c.ledger.restore(); err != nil {
		return err
	}
	c.Progress.replay(pos.Applied, c.from.stream.CachedInfo().State.LastSeq)
	c.chain.floors.recorded(pos.Floor, time.Now())
	return nil
}

// trustedPosition returns the local position after dropping what does not belong to the streams as they are now:
// another stream of the same name, or one that lost its end (a power failure before its sync) and uses those sequences
// again.
func (c *claim) trustedPosition(ctx context.Context) (cache.Position, error) {
	pos, err := c.disk.position()
	if err != nil {
		return pos, err
	}
	info := c.from.stream.CachedInfo()
	_, lastManifest := c.chain.manifest.Last()
	fresh := cache.Position{Source: info.Created, Manifest: c.chain.manifest.Created()}
	if pos.Source.IsZero() { // a new disk
		return fresh, c.disk.forget(fresh)
	}
	if !pos.Source.Equal(fresh.Source) || !pos.Manifest.Equal(fresh.Manifest) || pos.ManifestSeq > lastManifest {
		c.Logger.Warn("the local cache belongs to other streams: rebuilding it from JetStream")
		return fresh, c.disk.forget(fresh)
	}
	switch presence, err := c.chain.manifest.Has(ctx, pos.ManifestSeq, pos.ManifestID); {
	case err != nil:
		return pos, err
	case presence == manifest.Other:
		c.Logger.Warn("the manifest lost its end, which this node had applied (power failure before a sync?): rebuilding " +
			"the local cache")
		return fresh, c.disk.forget(fresh)
	case presence == manifest.Gone: // nothing can tell any more that it was this one
		c.Logger.Info("the manifest was shortened beyond what this node had applied: rebuilding the local cache from " +
			"its checkpoint")
		return fresh, c.disk.forget(fresh)
	}
	same, err := c.from.has(ctx, pos.Applied, pos.AppliedTime)
	if err != nil || same {
		return pos, err
	}
	c.Logger.Warn("the source stream lost entries at its end that this node had buffered (power failure before a sync?): "+
		"reading it again", "applied", pos.Applied, "stream_last", info.State.LastSeq)
	pos.Applied, pos.AppliedTime = 0, time.Time{}
	return pos, c.disk.forget(pos, cache.SpaceBuffer)
}
