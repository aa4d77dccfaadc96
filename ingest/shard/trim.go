package shard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/extent"
	"dormouse/internal/outage"
	"dormouse/store/manifest"
)

// floorLog remembers when each floor became part of the manifest, since trimming may follow only after a delay:
// JetStream acks before it syncs, and after a power failure a manifest that lost its last records must find the entries
// still there.
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

// inherit puts floors before those that were recorded so far: the records of earlier owners, in the manifest's order.
// Their times are by the clocks of several servers; where they do not ascend the later one counts.
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

// floorEvery is how often at most the floor is recorded on its own, when no commit carries it.
const floorEvery = 5 * time.Second

// trimmer shortens the source stream up to the recorded floor, a delay after it was recorded, and has the floor
// recorded when it moved on without a commit after it.
type trimmer struct {
	enabled     bool // else it only has the floor recorded
	delay       time.Duration
	from        *sourceStream
	chain       *appender
	recordFloor func(context.Context) error
	shortened   func() // tells that the stream was
	outage      *outage.Log
	log         *slog.Logger
	trimmed     uint64 // sequence; run's alone
	purged      uint64 // manifest record up to whose cuts the stream was purged, which is not trimmed; run's alone
}

// errLater marks what keeps a trim from happening now, and may pass.
var errLater = errors.New("the manifest could not be looked at")

// safe returns nil when both streams still have what the floors were recorded for: servers that lost power may have
// lost their last seconds. The error wraps errSource or errLater when that cannot be told now.
func (t *trimmer) safe(ctx context.Context) error {
	err := t.chain.stillThere(ctx)
	if errors.Is(err, manifest.ErrFenced) {
		return err
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errLater, err)
	}
	return t.from.check(ctx)
}

// run trims until ctx is done or the floors do not hold.
func (t *trimmer) run(ctx context.Context) error {
	if t.enabled {
		if err := t.chain.inheritFloors(ctx, t.delay); err != nil {
			t.log.Debug("could not look since when floors are recorded; trimming later", "error", err)
		}
	}
	every := min(time.Second, max(t.delay/2, time.Millisecond))
	for {
		changed := t.chain.ledger.changed()
		more, err := t.look(ctx)
		if err != nil {
			return err
		}
		var again <-chan time.Time
		if more {
			again, changed = time.After(every), nil // under load it is closed all the time
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-again:
		}
	}
}

// look does what is due, and reports whether there will be more without a change of the ledger.
func (t *trimmer) look(ctx context.Context) (more bool, err error) {
	highest, recorded := t.chain.ledger.floor()
	behind := highest > recorded
	if behind && time.Since(t.chain.floors.last().at) >= min(floorEvery, t.delay) {
		if err := t.recordFloor(ctx); err != nil {
			return false, err
		}
	}
	if !t.enabled {
		waits, err := t.purgeCuts(ctx)
		return behind || waits, err
	}
	if floor, ok := t.chain.floors.due(time.Now().Add(-t.delay)); ok && floor > t.trimmed {
		if err := t.trim(ctx, floor); err != nil {
			return false, err
		}
	}
	return behind || t.chain.floors.last().floor > t.trimmed, nil
}

// purgeCuts takes what is cut out of a stream that is not trimmed, once the manifest has a floor that is not below:
// then nobody takes that in again, and no owner takes the gaps for a loss. It reports whether that is to come. What is
// cut by time stays there.
func (t *trimmer) purgeCuts(ctx context.Context) (waits bool, err error) {
	live, _ := t.chain.ledger.live()
	floor, ok := t.chain.floors.due(time.Now().Add(-t.delay))
	for _, c := range live.Cuts() {
		switch {
		case c.Record <= t.purged:
			continue
		case !ok || c.UpTo > floor:
			return true, nil
		}
		if done, err := t.purge(ctx, c); !done || err != nil {
			return true, err
		}
	}
	return false, nil
}

// purge takes what one cut has out of the stream. What fails and may pass is not done, and tried again at the next
// look.
func (t *trimmer) purge(ctx context.Context, c extent.Cut) (done bool, err error) {
	// A token with such a character is no wildcard, and may be taken for one by who compares subjects.
	plain := c.Logs == ">" || !strings.ContainsAny(strings.TrimSuffix(c.Logs, ".>"), "*>")
	if plain && c.Before == 0 {
		err := t.safe(ctx)
		if err == nil {
			err = t.from.stream.Purge(ctx, jetstream.WithPurgeSubject(t.from.source.Prefix+"."+c.Logs),
				jetstream.WithPurgeSequence(c.UpTo+1))
		} else if !errors.Is(err, errLater) && !errors.Is(err, errSource) {
			return false, err
		}
		if err != nil {
			t.outage.Failed(err, "deleting", c.Logs)
			return false, ctx.Err()
		}
		t.outage.Over()
	}
	t.purged = c.Record
	return true, nil
}

// trim shortens the stream. What fails and may pass is tried again at the next look.
func (t *trimmer) trim(ctx context.Context, floor uint64) error {
	err := t.safe(ctx)
	if err == nil {
		err = t.from.stream.Purge(ctx, jetstream.WithPurgeSequence(floor+1))
	} else if !errors.Is(err, errLater) && !errors.Is(err, errSource) {
		return err
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		t.outage.Failed(err, "floor", floor)
		return nil
	}
	t.outage.Over()
	t.trimmed = floor
	t.shortened()
	return nil
}
