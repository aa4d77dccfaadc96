package shard

import (
	"cmp"
	"context"

	"github.com/nats-io/nats.go"

	"dormouse/store/manifest"
)

// owner makes the owner of the claimed epoch, whose ledger is still to be recovered.
func (c *claim) owner() *Owner {
	o := &Owner{epoch: c.epoch, ledger: c.ledger, sched: c.ledger.sched, from: c.from, failing: c.Outages}
	o.committer = newCommitter(c.epoch, c.NodeID, int(c.NC.MaxPayload()), committerParts{
		judge: newJudge(c.Site, c.ledger).decide, floor: c.ledger.floor, append: c.chain.append,
		answer: answers{refused: c.Metrics.refused, log: c.Logger}.commit,
	})
	o.intake = newIntake(c.Site, c.epoch, c.from, c.ledger)
	o.server = newServer(c.Site, c.ledger, o.committer.offer)
	o.trimmer = newTrimmer(c.Site, c.from, c.chain, o.committer.recordFloor)
	o.snapshots = newSnapshotter(c.Site, c.chain, o.committer.recordSnapshot)
	return o
}

func newIntake(site Site, epoch uint64, from *sourceStream, l *ledger) *intake {
	r := &rejects{nc: site.NC, js: site.JS, from: from, advance: site.Advance, failing: site.Outages.publishing,
		log: site.Logger}
	return &intake{
		share: site.Share, from: from, ledger: l, sched: l.sched, rejects: r,
		losses: &losses{epoch: epoch, from: from, rejects: r, metrics: site.Metrics, log: site.Logger},
		limit: &bufferLimit{bytes: site.BufferLimit, buffered: site.Buffered, ledger: l, sched: l.sched,
			advance: site.Advance, full: site.Outages.full},
		advance: site.Advance, progress: site.Progress, metrics: site.Metrics, log: site.Logger,
		reading: site.Outages.source, rejected: site.Outages.rejected,
	}
}

func newServer(site Site, l *ledger, commit func(*nats.Msg) bool) *server {
	return &server{
		nc: site.NC, source: site.Source, archive: site.ArchiveURL, ledger: l, commit: commit, fresh: site.Fresh,
		listTime: listTime, inbox: make(chan *nats.Msg, inboxLimit), drains: make(chan *nats.Msg, drainLimit),
		queries: make(chan *nats.Msg, queryLimit), lists: make(chan *nats.Msg, queryLimit),
		drained: site.Metrics.drains, failing: site.Outages.requests, log: site.Logger,
	}
}

func newJudge(site Site, l *ledger) *judge {
	return &judge{ledger: l, shard: site.Source.Shard, accepts: site.Accepts,
		malformed: site.Outages.malformed, elsewhere: site.Outages.elsewhere}
}

func newTrimmer(site Site, from *sourceStream, chain *appender, recordFloor func(context.Context) error) *trimmer {
	return &trimmer{
		enabled: site.Trim == TrimAlways || site.Trim == TrimAuto && site.Source.Managed, delay: site.TrimDelay,
		from: from, chain: chain, recordFloor: recordFloor, outage: site.Outages.trim, shortened: site.Trimmed,
		log: site.Logger,
	}
}

// newSnapshotter makes a snapshotter that does not know yet which snapshot is the newest.
func newSnapshotter(site Site, chain *appender, record func(context.Context, *manifest.Snapshot) error) *snapshotter {
	return &snapshotter{
		js: site.JS, shard: site.Source.Shard, bucket: site.Bucket, chain: chain, ledger: chain.ledger,
		most: cmp.Or(site.Tail, defaultTail), delay: site.TrimDelay,
		unread: make(map[uint64]int), record: record,
		snapshots: site.Metrics.snapshots, taking: site.Outages.snapshot, dropping: site.Outages.shorten, log: site.Logger,
	}
}
