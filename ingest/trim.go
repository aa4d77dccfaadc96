package ingest

import (
	"context"
	"errors"
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

// floorEvery is how often at most the floor is recorded on its own, when no commit carries it.
const floorEvery = 5 * time.Second

// trim shortens the source stream up to the recorded floor, TrimDelay after it was recorded, and has the floor recorded
// when it moved on without a commit after it. It runs until ctx is done.
func (o *owner) trim(ctx context.Context) error {
	enabled := o.cfg.Trim == TrimAlways || o.cfg.Trim == TrimAuto && o.source.Managed
	every := min(time.Second, max(o.cfg.TrimDelay/2, time.Millisecond))
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
