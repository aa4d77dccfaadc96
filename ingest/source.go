package ingest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/jsapi"
)

// errSource marks failures of reading the stream, which are tried again from the applied sequence.
var errSource = errors.New("reading the source stream")

// checkSource looks whether the stream is still the one that was taken in. If it lost its end in a power failure that this
// process lived through, the sequences up to the applied one are used again, and a new claim has to begin below; if it was
// made anew, nothing that is known of it holds. The error wraps errSource only when the stream could not be asked.
func (o *owner) checkSource(ctx context.Context) error {
	pos := o.ledger.position() // before the stream is asked: what is applied meanwhile may be above its end as it was then
	info, err := o.stream.Info(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", errSource, err)
	}
	if err := o.sameStream(info.Created); err != nil {
		return err
	}
	o.sawEnd(info.State.LastSeq)
	same := pos.Applied == info.State.LastSeq && pos.AppliedTime.Equal(info.State.LastTime)
	if !same { // not told already
		if same, err = o.hasEntry(ctx, pos.Applied, pos.AppliedTime); err != nil {
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
	source := o.ledger.position().Source
	if created.Equal(source) {
		return nil
	}
	return fmt.Errorf("the source stream %s is another one now: it was made at %s, and what was taken in is of one made at %s",
		o.source.Stream, created, source)
}

// A leader that was just elected may for a moment not know of all that was acknowledged; so that a stream lacks its end is
// believed after some looks only.
const (
	endLooks = 4
	endPause = 250 * time.Millisecond
)

// hasEntry reports whether the stream, as its leader has it now, still has the entry of that sequence and time. It does not when
// it lost its end: it ends before, or the sequence was used again. The zero time, and an entry that was trimmed or deleted, tell
// nothing.
func (o *owner) hasEntry(ctx context.Context, seq uint64, at time.Time) (has bool, err error) {
	for look := range endLooks {
		if look > 0 {
			select {
			case <-ctx.Done():
				return false, ctx.Err()
			case <-time.After(endPause):
			}
		}
		if has, err = o.hasEntryNow(ctx, seq, at); has || err != nil {
			break
		}
	}
	return has, err
}

func (o *owner) hasEntryNow(ctx context.Context, seq uint64, at time.Time) (bool, error) {
	info, err := o.stream.Info(ctx)
	if err != nil {
		return false, fmt.Errorf("reading stream %s: %w", o.source.Stream, err)
	}
	switch {
	case seq > info.State.LastSeq:
		return false, nil
	case at.IsZero() || seq < info.State.FirstSeq:
		return true, nil
	}
	msg, err := jsapi.Get(ctx, o.cfg.JS, o.source.Stream, seq)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading entry %d of stream %s: %w", seq, o.source.Stream, err)
	}
	return msg.Time.Equal(at), nil
}

// sourceCheck is how often a stream of which nothing comes is looked at. If it lost its end, a consumer that waits above the
// new one is sent nothing until that is reached again; so long entries would be neither archived nor missed. A request in
// half a minute is next to nothing, also with many shards at rest.
const sourceCheck = 30 * time.Second

// watchSource checks the stream when no entry was taken in from one look to the next, until ctx is done.
func (o *owner) watchSource(ctx context.Context) error {
	tick := time.NewTicker(o.sourceCheck)
	defer tick.Stop()
	for seen := o.ledger.applied(); ; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if now := o.ledger.applied(); now != seen {
			seen = now
			continue
		}
		switch err := o.checkSource(ctx); {
		case errors.Is(err, errSource):
			o.log.Debug("the source stream could not be looked at; trying again", "in", o.sourceCheck, "error", err)
		case err != nil:
			return err
		case o.stream.CachedInfo().State.LastSeq > o.ledger.applied():
			o.advance.begins(taking)
		}
	}
}
