package ingest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/nats-io/nats.go"

	"dormouse/internal/wire"
	"dormouse/store/cache"
	"dormouse/store/cache/buffer"
	"dormouse/store/manifest"
)

// noSync: the database is a cache, see package store.
var noSync = pebble.NoSync

// commitCall is one worker's commit on its way to the manifest.
type commitCall struct {
	msg     *nats.Msg
	request wire.CommitRequest
	refused []wire.Refusal
	err     error // set when the request is no commit at all
}

// lastCommit is how long a commit may go on after the end.
const lastCommit = time.Second

// Bounds of one manifest record: it must fit into max_payload, which its zstd form does with room to spare.
const (
	groupCalls   = 64
	groupPayload = 3 // quarters of max_payload that the requests of one record may have in all
)

// serveCommits is the only one that appends to the manifest and removes from the buffer. It takes what is waiting as one
// group: one record, one Pebble batch.
//
// A group in hand when ctx ends is still committed, if JetStream answers soon: the work is done, and whoever takes the shard
// over would have it done again.
func (o *owner) serveCommits(ctx context.Context) error {
	late, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(lastCommit, cancel) })()
	var next *commitCall // taken from the queue, but too large for the group before
	for {
		if next == nil {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case call := <-o.taken:
				err := o.commitSnapshot(ctx, call.snapshot)
				if call.done <- err; err != nil {
					return err
				}
				continue
			case <-o.nudges:
			case call := <-o.commits:
				next = &call
			}
		}
		var group []commitCall // none: the trimmer wishes to have the floor recorded
		if next != nil {
			group, next = o.collect(*next)
		}
		if err := o.commitGroup(late, group); err != nil {
			return err
		}
	}
}

// collect adds what else waits to a commit; carried is one that did not fit.
func (o *owner) collect(first commitCall) (group []commitCall, carried *commitCall) {
	group = []commitCall{first}
	size := len(first.msg.Data)
	limit := int(o.cfg.NC.MaxPayload()) / 4 * groupPayload
	for len(group) < groupCalls {
		select {
		case call := <-o.commits:
			if size += len(call.msg.Data); size > limit {
				return group, &call
			}
			group = append(group, call)
		default:
			return group, nil
		}
	}
	return group, nil
}

// commitGroup commits the extents of a group that are valid and answers every call. The steps, and what a crash after
// each leaves: (1) validated: nothing has happened, the segments are orphans; (2) appended to the manifest: committed for
// good, and the next owner applies the record before it does anything else; (3) applied to Pebble; (4) answered.
func (o *owner) commitGroup(ctx context.Context, group []commitCall) error {
	accepted, err := o.validate(ctx, group)
	if err != nil {
		o.answer(group, wire.StatusOf(err))
		return fmt.Errorf("looking a commit over: %w", err)
	}
	record := manifest.Record{Kind: manifest.Commit, Epoch: o.epoch, Owner: o.cfg.NodeID, Segments: accepted}
	if len(record.Segments) == 0 {
		record.Kind = manifest.Floor
	}
	o.mu.Lock()
	record.Floor = o.floorLocked()
	recorded := o.pos.Floor
	o.mu.Unlock()

	if record.Kind == manifest.Commit || record.Floor > recorded {
		if err := o.append(ctx, record); err != nil {
			o.answer(group, wire.StatusOf(commitError(err)))
			return err
		}
	}
	o.answer(group, wire.Status{})
	return nil
}

// append makes a record part of the manifest and then of the local state. What fails after the first is found again by
// the next owner.
func (o *owner) append(ctx context.Context, record manifest.Record) error {
	before, _ := o.manifest.Last()
	o.mu.Lock()
	record.Source = o.sourceLocked(before.Source)
	o.mu.Unlock()
	seq, err := o.manifest.Append(ctx, record)
	if err != nil {
		return err
	}
	o.advance.done(committing)
	record, _ = o.manifest.Last() // with what Append has set
	if err := o.applyRecord(seq, record); err != nil {
		return err
	}
	o.floors.recorded(record.Floor, time.Now())
	return nil
}

func commitError(err error) error {
	if errors.Is(err, manifest.ErrFenced) {
		return fmt.Errorf("%w: %w", wire.ErrNotOwner, err)
	}
	return err
}

func (o *owner) answer(group []commitCall, status wire.Status) {
	for _, call := range group {
		if call.err != nil {
			o.reply(call.msg, wire.CommitReply{Status: wire.StatusOf(call.err)})
			continue
		}
		if status.Code != wire.OK {
			o.reply(call.msg, wire.CommitReply{Status: status})
			continue
		}
		o.metrics.refused.Add(float64(len(call.refused)))
		o.reply(call.msg, wire.CommitReply{Refused: call.refused})
	}
}

// applyRecord applies one manifest record to Pebble and the log states, in one batch. It serves the committer and, before
// the owner runs, recovery; applying a record to a state that has it already changes nothing.
func (o *owner) applyRecord(seq uint64, record manifest.Record) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	batch := o.cfg.DB.NewBatch()
	defer batch.Close()
	pos := o.pos
	pos.ManifestSeq, pos.ManifestID = seq, record.ID
	pos.Floor, pos.Highest = record.Floor, max(pos.Highest, record.Highest())
	for _, s := range record.Segments {
		o.segments.add(s.Segment.Key)
		for _, e := range s.Extents {
			if err := o.catalog.Put(batch, e, s.Segment); err != nil {
				return err
			}
		}
		if err := o.buffer.Remove(batch, s.Extents); err != nil {
			return err
		}
	}
	pos.TailRecords++
	pos.TailExtents += record.Extents()
	if err := cache.SetPosition(batch, o.source.Shard, pos); err != nil {
		return err
	}
	if err := batch.Commit(noSync); err != nil {
		return fmt.Errorf("applying manifest record %d: %w", seq, err)
	}
	o.moveLocked(pos)
	if o.longTailLocked() {
		offer(o.grown, struct{}{})
	}
	return o.settleLocked(record)
}

// settleLocked moves the states of the committed logs: asleep when nothing is left, armed again for what came meanwhile.
func (o *owner) settleLocked(record manifest.Record) (err error) {
	if record.Epoch != o.epoch || len(record.Segments) == 0 {
		return nil // recovery: the states are restored from the buffer afterwards
	}
	var cursor *buffer.Cursor // made for the first log that has more: most have not
	defer func() {
		if cursor != nil {
			_ = cursor.Close() // read errors have shown in Seek
		}
	}()
	now := time.Now()
	var entries uint64
	for _, s := range record.Segments {
		for _, e := range s.Extents {
			var rest uint64
			var at time.Time
			if pending, ok := o.sched.Pending(e.Log); ok && pending.Last > e.Last {
				if cursor == nil {
					if cursor, err = o.buffer.Iter(); err != nil {
						return err
					}
				}
				var found bool
				if rest, at, found, err = cursor.Seek(e.Log, e.Last+1); err != nil {
					return err
				} else if !found {
					return fmt.Errorf("buffer of %s ends at %d, its state says %d", e.Log, e.Last, pending.Last)
				}
			}
			o.sched.Committed(e.Log, e.Count, e.Bytes, rest, at)
			entries += e.Count
			o.metrics.syncDelay.Observe(now.Sub(time.Unix(0, e.MinTime)).Seconds())
		}
	}
	o.metrics.synced.Add(float64(entries))
	o.metrics.segments.Add(float64(len(record.Segments)))
	offer(o.roomy, struct{}{})
	return nil
}
