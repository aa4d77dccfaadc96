package shard

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"dormouse/internal/extent"
	"dormouse/internal/outage"
	"dormouse/internal/shardid"
	"dormouse/internal/wire"
	"dormouse/scheduler"
	"dormouse/store/cache/buffer"
	"dormouse/store/identity"
	"dormouse/store/tree"
)

// maxSegment bounds the size that a commit may tell of its segment: above all that --segment-bytes allows.
const maxSegment = 4 << 30

// judge looks workers' commits over. It trusts none of them. What it cannot know is what is in the segments: reading
// them would cost more than all the rest.
type judge struct {
	ledger    *ledger
	shard     shardid.Shard
	accepts   func(ctx context.Context, bucketID string) error // see Config
	clock     *clock
	grace     time.Duration // half of it after a segment was named it is not accepted any more
	malformed *outage.Log
	elsewhere *outage.Log
	late      *outage.Log
}

// tooLate returns an error when a segment was named so long ago that it may be taken for garbage soon.
func (g *judge) tooLate(key string) error {
	if g.ledger.isCondemned(key) {
		return fmt.Errorf("%w: segment %s was deleted with what nothing named: it is to be put again under another name",
			wire.ErrBadRequest, key)
	}
	if !g.clock.olderThan(key, g.grace/2) {
		return nil
	}
	err := fmt.Errorf("%w: segment %s was named more than %s ago: it is to be put again under another name (or is the "+
		"clock of its worker behind?)", wire.ErrBadRequest, key, g.grace/2)
	g.late.Failed(err)
	return err
}

// condemn returns which objects the manifest does not name, and lets it never name them.
func (g *judge) condemn(keys []string) (dead []string, err error) {
	return g.ledger.condemn(keys, g.clock.now().Add(-g.grace))
}

// judgement decides on the extents of one group of commits.
type judgement struct {
	ledger  *ledger
	latest  int64             // no entry was taken in that is later, Unix nanoseconds
	inGroup map[string]bool   // LogIDs of which this group commits an extent
	used    map[string]uint64 // key -> what was offered, of segments that this group commits
	cursor  *buffer.Cursor    // made for the first extent that is not a whole log: most are
}

// decide decides on every extent of a group and returns what is to be committed.
func (g *judge) decide(ctx context.Context, group []*commitCall) (committed accepted, err error) {
	j := &judgement{ledger: g.ledger, latest: g.ledger.newest(), inGroup: make(map[string]bool),
		used: make(map[string]uint64)}
	defer func() {
		if j.cursor != nil {
			err = errors.Join(err, j.cursor.Close())
		}
	}()
	asked := make(map[string]error) // by bucket: one look for all of a group, while floors and checkpoints wait
	for _, call := range group {
		if call.err = g.decode(call); call.err != nil {
			g.malformed.Failed(call.err)
			continue
		}
		if call.err = g.inOurBucket(ctx, call.request.Bucket, asked); call.err != nil {
			g.elsewhere.Failed(call.err, "segment", call.request.Segment.Key)
			continue
		}
		if err := j.call(call, g.tooLate(call.request.Segment.Key), &committed); err != nil {
			return committed, err
		}
	}
	return committed, nil
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

// call adds the extents of one request that are to be committed, and notes which are refused. A segment that was
// committed already has no more to commit: the worker asks again since the answer was lost, or another one has its
// name.
// One that is too late has nothing to commit either, and its logs are to be drained again.
func (j *judgement) call(call *commitCall, late error, committed *accepted) error {
	s, offer := call.request.Segment, offered(call.request.Extents)
	before, known := j.used[s.Key]
	if !known {
		before, known = j.ledger.known(s.Key)
	}
	if known && (before == offer || before == 0) {
		return nil
	}
	extents := make([]extent.Extent, 0, len(call.request.Extents))
	var refused []string
	for _, e := range call.request.Extents {
		var reason string
		var err error
		switch {
		case known:
			reason = "the segment was committed by another request"
		case late != nil:
			reason = late.Error()
		default:
			reason, err = j.judge(e)
		}
		if err != nil {
			return err
		}
		if reason == "" {
			extents = append(extents, e)
			continue
		}
		call.refused = append(call.refused, wire.Refusal{Log: e.Log, Reason: reason})
		refused = append(refused, e.Log)
	}
	if len(extents) == 0 {
		return nil
	}
	for _, e := range extents {
		j.inGroup[e.Log] = true
	}
	j.used[s.Key] = offer
	committed.add(s, extents, refused, offer)
	return nil
}

// judge accepts an extent only if it is what is buffered of the log, from its first entry on. So extents of a log
// follow each other without a gap and without an overlap.
func (j *judgement) judge(e extent.Extent) (reason string, err error) {
	if j.inGroup[e.Log] {
		return "overlaps an extent that is being committed", nil
	}
	pending, active := j.ledger.pending(e.Log)
	if !active || e.First < pending.First {
		return "stale: the log is archived beyond the extent's first entry", nil
	}
	same, err := j.isBuffered(e, pending)
	if err != nil || same {
		return "", err
	}
	return fmt.Sprintf("the log has %d entries of %d bytes buffered from %d to %d, the extent %d of %d bytes "+
		"from %d to %d", pending.Count, pending.Bytes, pending.First, pending.Last, e.Count, e.Bytes, e.First, e.Last), nil
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

// merge returns nil when the outputs of a merge may take the place of its inputs: these are live neighbours, and what
// the outputs add up to is what the inputs do, or less if something of them is cut. The error wraps wire.ErrBadRequest
// if it never will be so.
func (g *judge) merge(ctx context.Context, req wire.ReplaceRequest) error {
	for _, s := range req.Outputs {
		if !g.shard.IsSegmentKey(s.Object.Key) || s.Object.Size > maxSegment {
			return fmt.Errorf("%w: %.100q with %d bytes is no segment of shard %s", wire.ErrBadRequest, s.Object.Key,
				s.Object.Size, g.shard)
		}
	}
	for _, s := range req.Outputs {
		if err := g.tooLate(s.Object.Key); err != nil {
			return err
		}
	}
	if len(req.Outputs) > 0 {
		if err := g.inOurBucket(ctx, req.Bucket, make(map[string]error)); err != nil {
			return err
		}
	}
	live, _ := g.ledger.live()
	next, inputs, err := live.Replace(tree.Replacement{Inputs: req.Inputs, Outputs: req.Outputs})
	if err == nil {
		err = next.Validate()
	}
	if err != nil {
		return fmt.Errorf("%w: %w", wire.ErrBadRequest, err)
	}
	have, want := extent.TotalOf(req.Outputs), extent.TotalOf(inputs)
	cuts, newest := live.Touching(inputs)
	if req.Cut > newest {
		return fmt.Errorf("%w: merged under the cut of record %d, the newest is that of %d", wire.ErrBadRequest, req.Cut,
			newest)
	}
	mayLack := slices.ContainsFunc(cuts, func(c extent.Cut) bool { return c.Record <= req.Cut })
	if have != want && (!mayLack || !have.Without(req.Left, want)) {
		return fmt.Errorf("%w: the outputs of a merge add up to %+v, its inputs to %+v", wire.ErrBadRequest, have, want)
	}
	return nil
}
