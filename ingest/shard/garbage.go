package shard

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"dormouse/internal/extent"
	"dormouse/internal/outage"
	"dormouse/store/bucket"
	"dormouse/store/manifest"
)

const (
	// readersGrace is how long a segment that was merged stays in the bucket: readers that are under way may still be told
	// of it, and one that comes too late asks again.
	readersGrace = time.Minute
	// maxGarbage bounds what an owner remembers. What is beyond stays in the bucket.
	maxGarbage = 1 << 16
	// deleteEvery paces deletes, so that they do not take the bucket from the workers.
	deleteEvery = 5 * time.Millisecond
)

// garbage deletes the segments that merges have replaced.
//
// An object goes only when its replacement was in the manifest for as long as the servers may lose in a power failure,
// and the manifest still has this owner's last record. Then no owner to come can take it for live.
type garbage struct {
	bucket  Bucket
	grace   time.Duration // from the replacement on; above the servers' sync interval
	chain   *appender
	count   prometheus.Counter
	bytes   prometheus.Counter
	failing *outage.Log

	mu struct {
		sync.Mutex
		objects []waste       // in the order in which they were replaced
		added   chan struct{} // cap 1: there is something
	}
}

// waste is an object that no tree names any more.
type waste struct {
	object   extent.Segment
	replaced time.Time
}

// add takes over objects that are live no more.
func (g *garbage) add(replaced []extent.Summary, at time.Time) {
	if len(replaced) == 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range replaced {
		if len(g.mu.objects) < maxGarbage {
			g.mu.objects = append(g.mu.objects, waste{s.Object, at})
		}
	}
	select {
	case g.mu.added <- struct{}{}:
	default:
	}
}

// due returns the objects whose grace is over, and when the next one's is; the zero time without any.
func (g *garbage) due(now time.Time) (due []extent.Segment, next time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, w := range g.mu.objects {
		if at := w.replaced.Add(g.grace); now.Before(at) {
			return due, at
		}
		due = append(due, w.object)
	}
	return due, time.Time{}
}

// done forgets the first n objects.
func (g *garbage) done(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mu.objects = append([]waste(nil), g.mu.objects[n:]...)
}

// run deletes until ctx is done, or the manifest turns out to be another owner's.
func (g *garbage) run(ctx context.Context) error {
	for {
		due, next := g.due(time.Now())
		deleted, err := g.delete(ctx, due)
		if errors.Is(err, manifest.ErrFenced) {
			return err
		}
		g.done(deleted)
		var timer <-chan time.Time
		switch {
		case err != nil && ctx.Err() == nil:
			g.failing.Failed(err)
			timer = time.After(g.grace)
		case !next.IsZero():
			timer = time.After(time.Until(next))
		}
		if err == nil && len(due) > 0 {
			g.failing.Over()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer:
		case <-g.mu.added:
		}
	}
}

// delete deletes objects, and returns how many of them are gone.
func (g *garbage) delete(ctx context.Context, due []extent.Segment) (deleted int, err error) {
	if len(due) == 0 {
		return 0, nil
	}
	if err := g.chain.stillThere(ctx); err != nil {
		return 0, err
	}
	for _, object := range due {
		if err := g.bucket.Delete(ctx, object.Key); err != nil && !errors.Is(err, bucket.ErrNotFound) {
			return deleted, err
		}
		deleted++
		g.count.Inc()
		g.bytes.Add(float64(object.Size))
		select {
		case <-ctx.Done():
			return deleted, ctx.Err()
		case <-time.After(deleteEvery):
		}
	}
	return deleted, nil
}
