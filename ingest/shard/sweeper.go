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
	"github.com/prometheus/client_golang/prometheus"

	"dormouse/internal/extent"
	"dormouse/internal/outage"
	"dormouse/internal/shardid"
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
// last look whether an object is live is the committer's, so that no commit of it is on its way. The rules of garbage
// hold besides: the manifest has what says that an object is no part of the archive, and it cannot be lost any more.
type sweeper struct {
	shard   shardid.Shard
	bucket  Bucket
	grace   time.Duration // from an object's naming on
	delay   time.Duration // from when an object was seen not to be live on
	chain   *appender
	clock   *clock
	dead    func(ctx context.Context, keys []string) (dead []string, err error) // which of these nothing names
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
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
		_, version := s.chain.ledger.live()
		if version == swept {
			continue
		}
		err := s.sweep(ctx)
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
func (s *sweeper) sweep(ctx context.Context) error {
	garbage, err := s.list(ctx)
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

// list returns the shard's objects that are old enough and that nothing names.
func (s *sweeper) list(ctx context.Context) (garbage []extent.Segment, err error) {
	named := s.chain.ledger.named()
	prefix, listed := s.shard.String()+"/", 0
	for o, err := range s.bucket.List(ctx, prefix) {
		if err != nil {
			return nil, err
		}
		if listed++; listed%listPage == 0 {
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(listEvery):
			}
		}
		ours := s.shard.IsSegmentKey(o.Key) || s.shard.IsCheckpointKey(o.Key)
		if ours && !named[o.Key] && s.clock.olderThan(o.Key, s.grace) && len(garbage) < maxGarbage {
			garbage = append(garbage, o)
		}
	}
	return garbage, nil
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
