package shard

import (
	"context"
	"slices"
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
	// mostCuts is how many cuts a work item names.
	mostCuts = 256
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

	drop func(ctx context.Context, s extent.Summary, cut uint64) error // takes a segment out of the archive
	anew map[string]time.Time                                          // by key: until when it is being written anew
}

// mostAnew is how many segments are written anew at a time, for what is cut of them.
const mostAnew = 16

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
	if more, err := m.cut(ctx, live); err != nil {
		if ctx.Err() == nil {
			m.failed.Failed(err)
		}
		return err
	} else if more && live.Fresh() < 2*m.limits.Fresh { // else a merge would take inputs that are replaced meanwhile
		return nil
	}
	now := time.Now()
	for level, one := range m.underway {
		if now.After(one.until) || !live.Has(one.first) {
			delete(m.underway, level)
		}
	}
	skip := func(level uint8) bool { _, ok := m.underway[level]; return ok }
	for _, runs := range live.Plan(m.limits, rest, skip) {
		if err := m.queue(ctx, live, runs); err != nil {
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

// cut has what is cut leave the live segments: one of which nothing is left is dropped unread, the others are written
// anew. It reports whether any are left.
func (m *merger) cut(ctx context.Context, live tree.Tree) (more bool, err error) {
	now := time.Now()
	for key, until := range m.anew {
		if now.After(until) || !live.Has(key) {
			delete(m.anew, key)
		}
	}
	for u := range live.Uncut() {
		key := u.Segment.Object.Key
		if u.Whole {
			err := m.drop(ctx, u.Segment, live.NewestCut().Record)
			if now, _ := m.ledger.live(); err != nil && now.Has(key) { // else a merge has replaced it
				return true, err
			}
			continue
		}
		more = true
		if _, underway := m.anew[key]; underway || len(m.anew) >= mostAnew {
			continue
		}
		if err := m.queue(ctx, live, []tree.Run{{Segments: []extent.Summary{u.Segment}}}); err != nil {
			return true, err
		}
		m.anew[key] = now.Add(mergePatience)
	}
	return more, nil
}

// queue puts one merge into the queue, of fewer runs if all of them do not fit into a message. What is cut of them is
// to be left out; if it takes too much of the message to say it all, then by another merge.
func (m *merger) queue(ctx context.Context, live tree.Tree, runs []tree.Run) error {
	item := wire.MergeItem{Shard: m.shard, Epoch: m.epoch, Level: runs[0].Level}
	for _, r := range runs {
		item.Runs = append(item.Runs, append([]extent.Summary(nil), r.Segments...))
	}
	item.Cuts, item.Cut = live.Touching(slices.Concat(item.Runs...))
	if len(item.Cuts) > mostCuts {
		item.Cuts = item.Cuts[:mostCuts]
		item.Cut = item.Cuts[mostCuts-1].Record
	}
	data, err := wire.Encode(item)
	for err == nil && len(data) > m.room && len(item.Runs) > 2 {
		item.Runs = item.Runs[:max(len(item.Runs)/2, 2)]
		data, err = wire.Encode(item)
	}
	for err == nil && len(data) > m.room && len(item.Cuts) > 1 {
		item.Cuts = item.Cuts[:len(item.Cuts)/2]
		item.Cut = item.Cuts[len(item.Cuts)-1].Record
		data, err = wire.Encode(item)
	}
	if err != nil {
		return err
	}
	_, err = m.js.Publish(ctx, wire.MergeSubject(m.shard), data, jetstream.WithExpectStream(wire.MergeStream))
	return err
}
