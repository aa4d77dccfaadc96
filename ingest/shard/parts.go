package shard

import (
	"cmp"
	"context"
	"time"

	"github.com/nats-io/nats.go"

	"dormouse/internal/extent"
	"dormouse/store/manifest"
	"dormouse/store/tree"
)

// owner makes the owner of the claimed epoch, whose ledger is still to be recovered.
func (c *claim) owner() *Owner {
	o := &Owner{epoch: c.epoch, ledger: c.ledger, sched: c.ledger.sched, from: c.from, failing: c.Outages}
	judge, answers := newJudge(c.Site, c.clock, c.ledger), answers{refused: c.Metrics.refused, log: c.Logger}
	o.committer = newCommitter(c.epoch, c.NodeID, int(c.NC.MaxPayload()), committerParts{
		judge: judge.decide, merge: judge.merge, condemn: c.ledger.condemn,
		condemned: c.ledger.isCondemned, floor: c.ledger.floor, append: c.chain.append,
		answer: answers.commit, answerMerge: answers.merge,
	})
	o.intake = newIntake(c.Site, c.epoch, c.from, c.ledger)
	o.trimmer = newTrimmer(c.Site, c.from, c.chain, o.committer.recordFloor)
	o.checkpoints = newCheckpointer(c.Site, c.chain, o.committer.recordCheckpoint)
	o.merger = newMerger(c.Site, c.epoch, c.ledger, o.committer.drop)
	o.garbage = c.chain.garbage
	o.sweeper = newSweeper(c.Site, c.epoch, c.chain, c.clock, o.committer.dead)
	o.cutter = newCutter(c.Site, c.from, c.chain, o)
	o.expirer = &expirer{keeps: c.Keeps, ledger: c.ledger, every: expireEvery, record: o.committer.recordCut}
	o.server = newServer(c.Site, c.ledger, o)
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

func newServer(site Site, l *ledger, o *Owner) *server {
	return &server{
		nc: site.NC, source: site.Source, archive: site.ArchiveURL, ledger: l, commit: o.committer.offer,
		merge: o.committer.offerMerge, cuts: o.cutter.requests, sweep: o.sweeper.answer, fresh: site.Fresh,
		inbox: make(chan *nats.Msg, inboxLimit), drains: make(chan *nats.Msg, drainLimit),
		sweeps:  make(chan *nats.Msg, cutLimit),
		queries: make(chan *nats.Msg, queryLimit), lists: make(chan *nats.Msg, queryLimit),
		drained: site.Metrics.drains, failing: site.Outages.requests, log: site.Logger,
	}
}

func newCutter(site Site, from *sourceStream, chain *appender, o *Owner) *cutter {
	return &cutter{shard: site.Source.Shard, from: from, ledger: chain.ledger, garbage: chain.garbage, bucket: site.Bucket,
		archive: site.ArchiveURL, requests: make(chan *nats.Msg, cutLimit), record: o.committer.recordCut,
		checkpoint: o.checkpoints.now, sweep: o.sweeper.ask, log: site.Logger}
}

func newJudge(site Site, c *clock, l *ledger) *judge {
	return &judge{ledger: l, shard: site.Source.Shard, accepts: site.Accepts, clock: c, grace: site.GCGrace,
		malformed: site.Outages.malformed, elsewhere: site.Outages.elsewhere, late: site.Outages.late}
}

func newTrimmer(site Site, from *sourceStream, chain *appender, recordFloor func(context.Context) error) *trimmer {
	return &trimmer{
		enabled: site.Trim == TrimAlways || site.Trim == TrimAuto && site.Source.Managed, delay: site.TrimDelay,
		from: from, chain: chain, recordFloor: recordFloor, outage: site.Outages.trim, shortened: site.Trimmed,
		log: site.Logger,
	}
}

// newCheckpointer makes a checkpointer that does not know yet which checkpoint is the newest.
func newCheckpointer(site Site, chain *appender,
	record func(context.Context, *manifest.Checkpoint) error) *checkpointer {
	return &checkpointer{
		js: site.JS, shard: site.Source.Shard, bucket: site.Bucket, chain: chain, ledger: chain.ledger,
		most: cmp.Or(site.Tail, defaultTail), delay: site.TrimDelay, record: record,
		asked: make(chan chan<- struct{}), checkpoints: site.Metrics.checkpoints,
		taking: site.Outages.checkpoint, dropping: site.Outages.shorten,
	}
}

func newMerger(site Site, epoch uint64, l *ledger, drop func(context.Context, extent.Summary, uint64) error) *merger {
	limits := tree.Defaults
	if site.Merge != nil {
		limits = *site.Merge
	}
	return &merger{js: site.JS, shard: site.Source.Shard, epoch: epoch, ledger: l, limits: limits,
		room: int(site.NC.MaxPayload()) - itemMargin, failed: site.Outages.merge, underway: make(map[uint8]merge),
		drop: drop, anew: make(map[string]time.Time)}
}

func newSweeper(site Site, epoch uint64, chain *appender, c *clock,
	dead func(context.Context, []string) ([]string, error)) *sweeper {
	return &sweeper{shard: site.Source.Shard, bucket: site.Bucket, grace: site.GCGrace, delay: chain.garbage.grace,
		chain: chain, js: site.JS, epoch: epoch, clock: c, dead: dead, asked: make(chan bool, 1),
		count: site.Metrics.garbageObjects, bytes: site.Metrics.garbageBytes, failing: site.Outages.sweep}
}

func newGarbage(site Site, chain *appender) *garbage {
	g := &garbage{bucket: site.Bucket, grace: max(min(readersGrace, site.GCGrace), site.TrimDelay), chain: chain,
		count: site.Metrics.garbageObjects, bytes: site.Metrics.garbageBytes, failing: site.Outages.garbage}
	g.mu.added = make(chan struct{}, 1)
	return g
}
