package shard

import (
	"context"
	"errors"
	"fmt"

	"dormouse/internal/extent"
	"dormouse/internal/outage"
	"dormouse/internal/shardid"
	"dormouse/internal/wire"
	"dormouse/scheduler"
	"dormouse/store/cache/buffer"
	"dormouse/store/identity"
	"dormouse/store/manifest"
)

// maxSegment bounds the size that a commit may tell of its segment: above all that --segment-bytes allows.
const maxSegment = 4 << 30

// judge looks workers' commits over. It trusts none of them. What it cannot know is what is in the segments: reading
// them would cost more than all the rest.
type judge struct {
	ledger    *ledger
	shard     shardid.Shard
	accepts   func(ctx context.Context, bucketID string) error // see Config
	malformed *outage.Log
	elsewhere *outage.Log
}

// judgement decides on the extents of one group of commits.
type judgement struct {
	ledger  *ledger
	latest  int64             // no entry was taken in that is later, Unix nanoseconds
	inGroup map[string]string // LogID -> key of the segment that this group commits it with
	cursor  *buffer.Cursor    // made for the first extent that is not a whole log: most are
}

// decide decides on every extent of a group and returns what is to be committed.
func (g *judge) decide(ctx context.Context, group []*commitCall) (accepted []manifest.Committed, err error) {
	j := &judgement{ledger: g.ledger, latest: g.ledger.newest(), inGroup: make(map[string]string)}
	defer func() {
		if j.cursor != nil {
			err = errors.Join(err, j.cursor.Close())
		}
	}()
	used := make(map[string]bool)   // keys of segments, in this group
	asked := make(map[string]error) // by bucket: one look for all of a group, while floors and snapshots wait
	for _, call := range group {
		if call.err = g.decode(call); call.err != nil {
			g.malformed.Failed(call.err)
			continue
		}
		if call.err = g.inOurBucket(ctx, call.request.Bucket, asked); call.err != nil {
			g.elsewhere.Failed(call.err, "segment", call.request.Segment.Key)
			continue
		}
		key := call.request.Segment.Key
		extents, err := j.call(call, used[key] || g.ledger.known(key))
		if err != nil {
			return nil, err
		}
		if len(extents) > 0 {
			used[key] = true
			accepted = append(accepted, manifest.Committed{Segment: call.request.Segment, Extents: extents})
		}
	}
	return accepted, nil
}

// decode reads a request. The segment must be one that a worker of this shard can have put.
func (g *judge) decode(call *commitCall) error {
	if err := decodeRequest(call.msg, &call.request); err != nil {
		return err
	}
	if s := call.request.Segment; !g.shard.IsSegmentKey(s.Key) || s.Size == 0 || s.Size > maxSegment {
		return fmt.Errorf("%w: %.100q with %d bytes is no segment of shard %s", wire.ErrBadRequest, s.Key, s.Size, g.shard)
	}
	return nil
}

// inOurBucket returns nil when a commit's segment is where the readers of this system look. asked has what was found
// out for this group of commits; nothing more is asked for it once JetStream did not answer.
func (g *judge) inOurBucket(ctx context.Context, bucketID string, asked map[string]error) error {
	const away = "no answer" // no ID has a space
	err, known := asked[bucketID]
	if !known {
		err, known = asked[away]
	}
	if known {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	err = g.accepts(ctx, bucketID)
	switch {
	case errors.Is(err, identity.ErrRefused):
		err = fmt.Errorf("%w: %w", wire.ErrBadRequest, err)
		asked[bucketID] = err
	case err != nil:
		asked[away] = err
	default:
		asked[bucketID] = nil
	}
	return err
}

// call returns the extents of one request that are to be committed, and notes which are refused. A segment that was
// committed already has no more to commit: another one has its name.
func (j *judgement) call(call *commitCall, committed bool) (extents []extent.Extent, err error) {
	extents = make([]extent.Extent, 0, len(call.request.Extents))
	for _, e := range call.request.Extents {
		again, reason, err := j.judge(e, call.request.Segment)
		if err != nil {
			return nil, err
		}
		if reason == "" && !again && committed {
			reason = "the segment was committed by another request"
		}
		switch {
		case reason != "":
			call.refused = append(call.refused, wire.Refusal{Log: e.Log, Reason: reason})
		case !again:
			extents = append(extents, e)
		}
	}
	for _, e := range extents {
		j.inGroup[e.Log] = call.request.Segment.Key
	}
	return extents, nil
}

// judge accepts an extent only if it is what is buffered of the log, from its first entry on. So extents of a log
// follow each other without a gap and without an overlap. again is true for an extent that is committed with this very
// segment: the worker asks again since the answer was lost.
func (j *judgement) judge(e extent.Extent, s extent.Segment) (again bool, reason string, err error) {
	if key, ok := j.inGroup[e.Log]; ok {
		if key == s.Key {
			return true, "", nil
		}
		return false, "overlaps an extent that is being committed", nil
	}
	pending, active := j.ledger.pending(e.Log)
	if active && e.First >= pending.First {
		same, err := j.isBuffered(e, pending)
		if err != nil || same {
			return false, "", err
		}
		return false, fmt.Sprintf("the log has %d entries of %d bytes buffered from %d to %d, the extent %d of %d bytes "+
			"from %d to %d", pending.Count, pending.Bytes, pending.First, pending.Last, e.Count, e.Bytes, e.First, e.Last), nil
	}
	committed, ok, err := j.ledger.disk.catalog.Covering(e.Log, e.First)
	if err != nil {
		return false, "", err
	}
	if ok && committed.Extent == e && committed.Segment == s {
		return true, "", nil
	}
	return false, "stale: the log is archived beyond the extent's first entry", nil
}

// isBuffered reports whether an extent begins with the log's first buffered entry and is what is buffered from there
// on. The sums in memory tell it of a whole log, but for its times, which are only held to be possible: a look at each
// entry for them would make commits nearly twice as dear. It takes one for a part of a log.
func (j *judgement) isBuffered(e extent.Extent, pending scheduler.Pending) (bool, error) {
	if e.First != pending.First || e.MaxTime > j.latest || e.Count == 1 && e.MinTime != e.MaxTime {
		return false, nil
	}
	if e.Last >= pending.Last {
		return e.Last == pending.Last && e.Count == pending.Count && e.Bytes == pending.Bytes, nil
	}
	if j.cursor == nil {
		var err error
		if j.cursor, err = j.ledger.disk.buffer.Iter(); err != nil {
			return false, err
		}
	}
	has, err := j.cursor.Measure(e.Log, e.First, e.Last)
	return has == e, err
}
