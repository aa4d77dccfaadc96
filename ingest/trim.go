package ingest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/store/manifest"
)

// floorLog remembers when each floor became part of the manifest, since trimming may follow only after a delay: JetStream
// acks before it syncs, and after a power failure a manifest that lost its last records must find the entries still there.
type floorLog struct {
	mu      sync.Mutex
	samples []floorSample // ascending in both
}

type floorSample struct {
	floor uint64
	at    time.Time
}

// maxFloorSamples bounds the log; above it, neighbours are merged, which only trims a little later.
const maxFloorSamples = 1024

// recorded notes that a manifest record with this floor was acked.
func (l *floorLog) recorded(floor uint64, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(l.samples)
	if n > 0 && l.samples[n-1].floor >= floor {
		return
	}
	if n >= maxFloorSamples {
		for i := range n / 2 {
			l.samples[i] = l.samples[2*i+1]
		}
		l.samples = l.samples[:n/2]
	}
	l.samples = append(l.samples, floorSample{floor, at})
}

// inherit puts floors before those that were recorded so far: the records of earlier owners, in the manifest's order. Their times
// are by the clocks of several servers; where they do not ascend the later one counts.
func (l *floorLog) inherit(earlier []floorSample) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []floorSample
	for _, s := range earlier {
		if n := len(all); n > 0 && s.floor <= all[n-1].floor {
			continue
		} else if n > 0 && s.at.Before(all[n-1].at) {
			s.at = all[n-1].at
		}
		all = append(all, s)
	}
	own := l.samples
	for len(own) > 0 && len(all) > 0 && own[0].floor <= all[len(all)-1].floor {
		own = own[1:] // recorded before
	}
	for i := range all {
		if len(own) > 0 && all[i].at.After(own[0].at) {
			all[i].at = own[0].at // a higher floor holds since then
		}
	}
	l.samples = append(all, own...)
}

// due returns the highest floor that was recorded at or before the given moment, and forgets the lower ones.
func (l *floorLog) due(before time.Time) (floor uint64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for n < len(l.samples) && !l.samples[n].at.After(before) {
		floor, ok = l.samples[n].floor, true
		n++
	}
	l.samples = append(l.samples[:0], l.samples[max(n-1, 0):]...)
	return floor, ok
}

// last returns the highest floor and when it was recorded.
func (l *floorLog) last() floorSample {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.samples) == 0 {
		return floorSample{}
	}
	return l.samples[len(l.samples)-1]
}

// inheritFloors looks since when the floors of earlier owners are recorded, so that the delay does not begin anew with each
// takeover: from the last record before the claim back to one that is as old as the delay. What cannot be read is trimmed later.
func (o *owner) inheritFloors(ctx context.Context) {
	var earlier []floorSample // descending
	r, ok, err := o.before, o.before.ID != "", error(nil)
	for ok && err == nil && len(earlier) < maxFloorSamples {
		now := time.Now()
		age := leastAge(r.Stored, o.manifest.Opened(), now)
		earlier = append(earlier, floorSample{r.Floor, now.Add(-age)})
		if age > o.cfg.TrimDelay {
			break
		}
		after := r
		r, ok, err = o.manifest.Before(ctx, after)
		ok = ok && r.Floor <= after.Floor && r.Source.Created.Equal(after.Source.Created) // else an owner found that floors did not hold
	}
	if err != nil {
		o.log.Debug("could not look since when floors are recorded; trimming later", "error", err)
	}
	slices.Reverse(earlier)
	o.floors.inherit(earlier)
}

// leastAge returns how old a record is whose time is the stream's server's, by what that server's clock says now and by this
// machine's: the less of both, so that one clock that jumps trims nothing early.
func leastAge(stored, serverNow, ownNow time.Time) time.Duration {
	if stored.IsZero() {
		return 0
	}
	return max(0, min(serverNow.Sub(stored), ownNow.Sub(stored)))
}

// floorEvery is how often at most the floor is recorded on its own, when no commit carries it.
const floorEvery = 5 * time.Second

// trim shortens the source stream up to the recorded floor, TrimDelay after it was recorded, and has the floor recorded
// when it moved on without a commit after it. It runs until ctx is done.
func (o *owner) trim(ctx context.Context) error {
	enabled := o.cfg.Trim == TrimAlways || o.cfg.Trim == TrimAuto && o.source.Managed
	every := min(time.Second, max(o.cfg.TrimDelay/2, time.Millisecond))
	if enabled {
		o.inheritFloors(ctx)
	}
	var trimmed uint64
	look := time.After(0) // nil when nothing is left to do until the floor moves
	for {
		moved := o.moved
		if look != nil {
			moved = nil // under load it would fire all the time
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-moved:
		case <-look:
		}
		o.mu.Lock()
		behind := o.floorLocked() > o.pos.Floor
		o.mu.Unlock()
		if behind && time.Since(o.floors.last().at) >= min(floorEvery, o.cfg.TrimDelay) {
			offer(o.nudges, struct{}{})
		}
		if look = nil; behind || enabled && o.floors.last().floor > trimmed {
			look = time.After(every)
		}
		floor, ok := o.floors.due(time.Now().Add(-o.cfg.TrimDelay))
		if !enabled || !ok || floor <= trimmed {
			continue
		}
		err := o.stillInManifest(ctx)
		if err == nil {
			if err = o.checkSource(ctx); err != nil && !errors.Is(err, errSource) {
				return err
			}
		}
		switch {
		case errors.Is(err, manifest.ErrFenced):
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			o.outages.trim.Failed(err, "floor", floor)
			continue
		}
		if err := o.stream.Purge(ctx, jetstream.WithPurgeSequence(floor+1)); ctx.Err() != nil {
			return ctx.Err()
		} else if err != nil {
			o.outages.trim.Failed(err, "floor", floor)
			continue
		}
		o.outages.trim.Over()
		trimmed = floor
		o.trims.Add(1)
	}
}
