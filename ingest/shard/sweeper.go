package shard

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
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
//
// The rules of garbage hold besides: the manifest has what says that an object is no part of the archive, and it cannot
// be lost any more. And nobody else may have claimed the shard: a later owner may have committed in time what this one
// does not know, and takes it for old garbage when it goes on after a freeze. One that claims after that look accepts
// none of the objects.
type sweeper struct {
	shard  shardid.Shard
	bucket Bucket
	grace  time.Duration // from an object's naming on
	delay  time.Duration // from when an object was seen not to be live on
	chain  *appender
	js     jetstream.JetStream
	epoch  uint64
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

// sweep deletes what is garbage now. The steps, and what a crash after each leaves: (1) listed, looked at by the
// committer, and waited: nothing has happened; (2) the manifest looked at, and deleted, some of them: the next one
// deletes the others.
//
// The wait is after the committer's look, not before: else a segment could be committed and replaced during the wait,
// and go before that was safe.
func (s *sweeper) sweep(ctx context.Context, young bool) error {
	garbage, _, err := s.list(ctx, young)
	if err != nil {
		return err
	}
	dead, err := s.condemn(ctx, garbage)
	if err != nil || len(dead) == 0 {
		return err
	}
	select { // what was live a moment ago was replaced a moment ago
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(s.delay):
	}
	for batch := range slices.Chunk(dead, sweepBatch) {
		if err := s.delete(ctx, batch); err != nil {
			return err
		}
	}
	return nil
}

// condemn returns the objects that nothing names, nor ever will.
func (s *sweeper) condemn(ctx context.Context, objects []extent.Segment) (dead []extent.Segment, err error) {
	for batch := range slices.Chunk(objects, sweepBatch) {
		sizes := make(map[string]uint64)
		for _, o := range batch {
			sizes[o.Key] = o.Size
		}
		keys, err := s.dead(ctx, slices.Collect(maps.Keys(sizes)))
		if err != nil {
			return nil, err
		}
		for _, key := range keys {
			dead = append(dead, extent.Segment{Key: key, Size: sizes[key]})
		}
	}
	return dead, nil
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
	offer(s.asked, young && s.mayBeYoung())
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

// unrivaled returns an error that wraps manifest.ErrFenced when somebody else may have committed what this owner does
// not know.
func (s *sweeper) unrivaled(ctx context.Context) error {
	if err := s.chain.stillThere(ctx); err != nil {
		return err
	}
	_, epoch, err := manifest.Head(ctx, s.js, s.shard)
	if err == nil && epoch != s.epoch {
		err = fmt.Errorf("%w: shard %s is in epoch %d", manifest.ErrFenced, s.shard, epoch)
	}
	return err
}

// delete deletes objects that were condemned.
func (s *sweeper) delete(ctx context.Context, objects []extent.Segment) error {
	if err := s.unrivaled(ctx); err != nil {
		return err
	}
	for _, o := range objects {
		if err := s.bucket.Delete(ctx, o.Key); err != nil {
			return err
		}
		s.count.Inc()
		s.bytes.Add(float64(o.Size))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(deleteEvery):
		}
	}
	return nil
}
