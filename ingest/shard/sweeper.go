package shard

import (
	"context"
	"errors"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"dormouse/internal/extent"
	"dormouse/internal/outage"
	"dormouse/internal/shardid"
	"dormouse/internal/wire"
	"dormouse/store/manifest"
)

const (
	// sweepBatch is how many objects are looked at and deleted at a time.
	sweepBatch = 256
	// listEvery paces the list of a shard's objects, one page of a thousand at a time as a rule.
	listEvery = 50 * time.Millisecond
	listPage  = 1000
)

// sweeper deletes what nobody names: segments that were put and never committed, what merges have replaced and an owner
// did not live to delete, and checkpoints before the newest.
//
// An object that was named less than a grace ago may still be committed; one that was named more than half of it ago is
// not accepted any more, by a clock that never goes back, or by another owner's that is less than half a grace off. The
// last look whether an object is live is the committer's, so that no commit of it is on its way, and none that comes
// later in this epoch is accepted. Commits of other epochs come to nobody. So when something was cut, the segments that
// nothing names can go at once, in which some of it may be: whoever would have committed them drains their logs again.
// The rules of garbage hold besides: the manifest has what says that an object is no part of the archive, and it cannot
// be lost any more.
type sweeper struct {
	shard  shardid.Shard
	bucket Bucket
	grace  time.Duration // from an object's naming on
	delay  time.Duration // from when an object was seen not to be live on
	chain  *appender
	clock  *clock
	// which of these nothing names, nor ever will
	dead    func(ctx context.Context, keys []string) (dead []string, err error)
	asked   chan bool // cap 1; at once, and whether the young ones as well
	count   prometheus.Counter
	bytes   prometheus.Counter
	failing *outage.Log
}

// clock tells how old objects are, by their names. It never goes back, so that what was too old once stays so.
type clock struct {
	mu     sync.Mutex
	latest time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.After(c.latest) {
		c.latest = now
	}
	return c.latest
}

// olderThan reports whether an object was named longer ago than that. One whose name does not tell is not.
func (c *clock) olderThan(key string, age time.Duration) bool {
	id, err := uuid.Parse(strings.TrimSuffix(path.Base(key), path.Ext(key)))
	if err != nil || id.Version() != 7 {
		return false
	}
	return c.now().Sub(time.Unix(id.Time().UnixTime())) > age
}

// run sweeps now and then, until ctx is done, while the shard's tree changes: a shard at rest makes no garbage.
func (s *sweeper) run(ctx context.Context) error {
	every := max(s.grace/2, time.Second)
	var swept uint64
	for timer := time.NewTimer(every / 2); ; timer.Reset(every) {
		young, asked := false, false
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case young = <-s.asked:
			asked = true
		case <-timer.C:
		}
		_, version := s.chain.ledger.live()
		if version == swept && !asked {
			continue
		}
		err := s.sweep(ctx, young)
		switch {
		case errors.Is(err, manifest.ErrFenced) || ctx.Err() != nil:
			return err
		case err != nil:
			s.failing.Failed(err)
		default:
			s.failing.Over()
			swept = version
		}
	}
}

// sweep deletes what is garbage now. The steps, and what a crash after each leaves: (1) listed, and waited; (2) looked
// at by the committer, and the manifest looked at: nothing has happened; (3) deleted, some of them: the next one
// deletes the others.
func (s *sweeper) sweep(ctx context.Context, young bool) error {
	garbage, _, err := s.list(ctx, young)
	if err != nil || len(garbage) == 0 {
		return err
	}
	select { // what was live a moment ago was replaced a moment ago
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(s.delay):
	}
	for len(garbage) > 0 {
		n := min(sweepBatch, len(garbage))
		if err := s.delete(ctx, garbage[:n]); err != nil {
			return err
		}
		garbage = garbage[n:]
	}
	return nil
}

// list returns the shard's objects that are old enough, or segments of any age if young is set, and that nothing names;
// and how many others nothing names.
func (s *sweeper) list(ctx context.Context, young bool) (garbage []extent.Segment, others uint64, err error) {
	named := s.chain.ledger.named()
	prefix, listed := s.shard.String()+"/", 0
	for o, err := range s.bucket.List(ctx, prefix) {
		if err != nil {
			return nil, 0, err
		}
		if listed++; listed%listPage == 0 {
			select {
			case <-ctx.Done():
				return nil, 0, ctx.Err()
			case <-time.After(listEvery):
			}
		}
		segment := s.shard.IsSegmentKey(o.Key)
		switch {
		case named[o.Key] || !segment && !s.shard.IsCheckpointKey(o.Key):
		case len(garbage) < maxGarbage && (young && segment || s.clock.olderThan(o.Key, s.grace)):
			garbage = append(garbage, o)
		default:
			others++
		}
	}
	return garbage, others, nil
}

// ask has a sweep begun at once, if none that was asked for waits; young ones go only if something was cut.
func (s *sweeper) ask(young bool) {
	young = young && s.mayBeYoung()
	for !offer(s.asked, young) && young { // one that waits may be for less
		select {
		case <-s.asked:
		default:
		}
	}
}

// mayBeYoung reports whether something was cut, so that segments of any age may go.
func (s *sweeper) mayBeYoung() bool {
	live, _ := s.chain.ledger.live()
	return len(live.Cuts()) > 0
}

// answer says what a sweep would delete, or does now.
func (s *sweeper) answer(ctx context.Context, msg *nats.Msg) wire.SweepReply {
	var req wire.SweepRequest
	if err := decodeRequest(msg, &req); err != nil {
		return wire.SweepReply{Status: wire.StatusOf(err)}
	}
	garbage, others, err := s.list(ctx, req.Young && s.mayBeYoung())
	if err != nil {
		return wire.SweepReply{Status: wire.StatusOf(err)}
	}
	reply := wire.SweepReply{Objects: uint64(len(garbage)), Waiting: others}
	for _, o := range garbage {
		reply.Bytes += o.Size
	}
	live, _ := s.chain.ledger.live()
	for range live.Uncut() {
		reply.Uncut++
	}
	if !req.DryRun {
		s.ask(req.Young)
	}
	return reply
}

// delete deletes the objects that nothing names.
func (s *sweeper) delete(ctx context.Context, objects []extent.Segment) error {
	sizes := make(map[string]uint64)
	for _, o := range objects {
		sizes[o.Key] = o.Size
	}
	dead, err := s.dead(ctx, slices.Collect(maps.Keys(sizes)))
	if err == nil {
		err = s.chain.stillThere(ctx)
	}
	if err != nil {
		return err
	}
	for _, key := range dead {
		if err := s.bucket.Delete(ctx, key); err != nil {
			return err
		}
		s.count.Inc()
		s.bytes.Add(float64(sizes[key]))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(deleteEvery):
		}
	}
	return nil
}
