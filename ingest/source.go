package ingest

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// errSource marks failures of reading the stream, which are tried again from the applied sequence.
var errSource = errors.New("reading the source stream")

// checkSource looks whether the stream is still the one that was taken in. If it lost its end in a power failure that this
// process lived through, the sequences up to the applied one are used again, and a new claim has to begin below; if it was
// made anew, nothing that is known of it holds. The error wraps errSource only when the stream could not be asked.
func (o *owner) checkSource(ctx context.Context) error {
	o.mu.Lock()
	pos := o.pos // before the stream is asked: what is applied meanwhile may be above its end as it was then
	o.mu.Unlock()
	info, err := o.stream.Info(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", errSource, err)
	}
	if err := o.sameStream(info.Created); err != nil {
		return err
	}
	same := pos.Applied <= info.State.LastSeq
	if same && (pos.Applied < info.State.LastSeq || !pos.AppliedTime.Equal(info.State.LastTime)) { // else it is told already
		if same, err = o.sameSource(ctx, pos, info.State); err != nil {
			return fmt.Errorf("%w: %w", errSource, err)
		}
	}
	if !same {
		return fmt.Errorf("the source stream lost its end while it was read (power failure before a sync?): it ends at %d, and entry %d of what was taken in is not there any more",
			info.State.LastSeq, pos.Applied)
	}
	return nil
}

// sameStream returns an error when the stream was not made at the time at which that was made which was taken in.
func (o *owner) sameStream(created time.Time) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if created.Equal(o.pos.Source) {
		return nil
	}
	return fmt.Errorf("the source stream %s is another one now: it was made at %s, and what was taken in is of one made at %s",
		o.source.Stream, created, o.pos.Source)
}

// sourceCheck is how often a stream of which nothing comes is looked at. If it lost its end, a consumer that waits above the
// new one is sent nothing until that is reached again; so long entries would be neither archived nor missed. A request in
// half a minute is next to nothing, also with many shards at rest.
const sourceCheck = 30 * time.Second

// watchSource checks the stream when no entry was taken in from one look to the next, until ctx is done.
func (o *owner) watchSource(ctx context.Context) error {
	tick := time.NewTicker(o.sourceCheck)
	defer tick.Stop()
	for seen := o.applied(); ; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if now := o.applied(); now != seen {
			seen = now
			continue
		}
		switch err := o.checkSource(ctx); {
		case errors.Is(err, errSource):
			o.log.Debug("the source stream could not be looked at; trying again", "in", o.sourceCheck, "error", err)
		case err != nil:
			return err
		}
	}
}
