package shard

import (
	"context"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/extent"
	"dormouse/internal/outage"
	"dormouse/internal/retry"
	"dormouse/internal/shardid"
	"dormouse/internal/wire"
	"dormouse/store/tree"
)

const (
	// mergePatience is how long a merge may take before it is planned anew: its item was lost, or its worker is stuck. The
	// one that comes second is refused.
	mergePatience = 15 * time.Minute
	// restAfter is how long nothing may be committed before the fresh segments are merged though they are few.
	restAfter = 2 * time.Minute
	// itemMargin is what a work item leaves free of max_payload.
	itemMargin = 16 << 10
)

// merger plans the merges of a shard's tree and queues them for the workers, one for each level at a time. What becomes
// of them it sees in the tree.
type merger struct {
	js     jetstream.JetStream
	shard  shardid.Shard
	epoch  uint64
	ledger *ledger
	limits tree.Limits
	room   int // bytes of a work item
	failed *outage.Log

	underway map[uint8]merge // by level
}

// merge is one that was queued.
type merge struct {
	first string // key of its first input, which is live until the merge is done
	until time.Time
}

// run plans until ctx is done.
func (m *merger) run(ctx context.Context) error {
	pause := retry.Patient()
	for {
		changed := m.ledger.changed()
		live, version := m.ledger.live()
		wait := mergePatience // while nothing changes
		if err := m.plan(ctx, live, false); err != nil {
			wait = pause.NextBackOff()
		} else {
			pause.Reset()
		}
		if live.Fresh() > 1 {
			wait = min(wait, restAfter)
		}
		rested, err := m.await(ctx, version, changed, wait)
		if err != nil {
			return err
		}
		if rested && wait == restAfter {
			_ = m.plan(ctx, live, true) // what fails is planned again with the next change
		}
	}
}

// await returns when the tree has changed, or when it rested for so long.
func (m *merger) await(ctx context.Context, version uint64, changed <-chan struct{}, wait time.Duration) (rested bool,
	err error) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-timer.C:
			return true, nil
		case <-changed:
		}
		changed = m.ledger.changed()
		if _, now := m.ledger.live(); now != version {
			return false, nil
		}
	}
}

// plan queues what is to be merged and is not under way.
func (m *merger) plan(ctx context.Context, live tree.Tree, rest bool) error {
	now := time.Now()
	for level, one := range m.underway {
		if now.After(one.until) || !live.Has(one.first) {
			delete(m.underway, level)
		}
	}
	skip := func(level uint8) bool { _, ok := m.underway[level]; return ok }
	for _, runs := range live.Plan(m.limits, rest, skip) {
		if err := m.queue(ctx, runs); err != nil {
			if ctx.Err() == nil {
				m.failed.Failed(err)
			}
			return err
		}
		m.underway[runs[0].Level] = merge{runs[0].Segments[0].Object.Key, now.Add(mergePatience)}
		m.failed.Over()
	}
	return nil
}

// queue puts one merge into the queue, of fewer runs if all of them do not fit into a message.
func (m *merger) queue(ctx context.Context, runs []tree.Run) error {
	item := wire.MergeItem{Shard: m.shard, Epoch: m.epoch, Level: runs[0].Level}
	for _, r := range runs {
		item.Runs = append(item.Runs, append([]extent.Summary(nil), r.Segments...))
	}
	data, err := wire.Encode(item)
	for err == nil && len(data) > m.room && len(item.Runs) > 2 {
		item.Runs = item.Runs[:max(len(item.Runs)/2, 2)]
		data, err = wire.Encode(item)
	}
	if err != nil {
		return err
	}
	_, err = m.js.Publish(ctx, wire.MergeSubject(m.shard), data, jetstream.WithExpectStream(wire.MergeStream))
	return err
}
