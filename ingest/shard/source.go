package shard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/jsapi"
	"dormouse/internal/topology"
)

// errSource marks failures of reading the stream, which are tried again from the applied sequence.
var errSource = errors.New("reading the source stream")

// sourceStream is the source stream of a shard, and whether it is still the one that the ledger speaks of.
type sourceStream struct {
	source  topology.Source
	js      jetstream.JetStream
	stream  jetstream.Stream
	ledger  *ledger
	every   time.Duration // sourceCheck, but for tests
	advance *Advance
	log     *slog.Logger

	seen atomic.Uint64 // the stream's end, as last seen
}

// check looks whether the stream is still the one that was taken in. If it lost its end in a power failure that this
// process lived through, the sequences up to the applied one are used again, and a new claim has to begin below; if it
// was made anew, nothing that is known of it holds. The error wraps errSource only when the stream could not be asked.
func (s *sourceStream) check(ctx context.Context) error {
	pos := s.ledger.position() // before the stream is asked: what is applied meanwhile may be above its end as it was then
	info, err := s.stream.Info(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", errSource, err)
	}
	if err := s.same(info.Created); err != nil {
		return err
	}
	s.sawEnd(info.State.LastSeq)
	same := pos.Applied == info.State.LastSeq && pos.AppliedTime.Equal(info.State.LastTime)
	if !same { // not told already
		if same, err = s.has(ctx, pos.Applied, pos.AppliedTime); err != nil {
			return fmt.Errorf("%w: %w", errSource, err)
		}
	}
	if !same {
		return fmt.Errorf("the source stream lost its end while it was read (power failure before a sync?): it ends at %d, "+
			"and entry %d of what was taken in is not there any more", info.State.LastSeq, pos.Applied)
	}
	return nil
}

// same returns an error when the stream was not made at the time at which that was made which was taken in.
func (s *sourceStream) same(created time.Time) error {
	source := s.ledger.position().Source
	if created.Equal(source) {
		return nil
	}
	return fmt.Errorf("the source stream %s is another one now: it was made at %s, and what was taken in is of one "+
		"made at %s", s.source.Stream, created, source)
}

// A leader that was just elected may for a moment not know of all that was acknowledged; so that a stream lacks its end
// is believed after some looks only.
const (
	endLooks = 4
	endPause = 250 * time.Millisecond
)

// has reports whether the stream, as its leader has it now, still has the entry of that sequence and time. It does not
// when it lost its end: it ends before, or the sequence was used again. The zero time, and an entry that was trimmed or
// deleted, tell nothing.
func (s *sourceStream) has(ctx context.Context, seq uint64, at time.Time) (has bool, err error) {
	for look := range endLooks {
		if look > 0 {
			select {
			case <-ctx.Done():
				return false, ctx.Err()
			case <-time.After(endPause):
			}
		}
		if has, err = s.hasNow(ctx, seq, at); has || err != nil {
			break
		}
	}
	return has, err
}

func (s *sourceStream) hasNow(ctx context.Context, seq uint64, at time.Time) (bool, error) {
	info, err := s.stream.Info(ctx)
	if err != nil {
		return false, fmt.Errorf("reading stream %s: %w", s.source.Stream, err)
	}
	switch {
	case seq > info.State.LastSeq:
		return false, nil
	case at.IsZero() || seq < info.State.FirstSeq:
		return true, nil
	}
	msg, err := jsapi.Get(ctx, s.js, s.source.Stream, seq)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading entry %d of stream %s: %w", seq, s.source.Stream, err)
	}
	return msg.Time.Equal(at), nil
}

// sourceCheck is how often a stream of which nothing comes is looked at. If it lost its end, a consumer that waits
// above the new one is sent nothing until that is reached again; so long entries would be neither archived nor missed.
// A request in half a minute is next to nothing, also with many shards at rest.
const sourceCheck = 30 * time.Second

// watch checks the stream when no entry was taken in from one look to the next, until ctx is done.
func (s *sourceStream) watch(ctx context.Context) error {
	tick := time.NewTicker(s.every)
	defer tick.Stop()
	for seen := s.ledger.applied(); ; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if now := s.ledger.applied(); now != seen {
			seen = now
			continue
		}
		switch err := s.check(ctx); {
		case errors.Is(err, errSource):
			s.log.Debug("the source stream could not be looked at; trying again", "in", s.every, "error", err)
		case err != nil:
			return err
		case s.stream.CachedInfo().State.LastSeq > s.ledger.applied():
			s.advance.begins(Taking)
		}
	}
}

// sawEnd notes a sequence that the source stream has reached.
func (s *sourceStream) sawEnd(seq uint64) {
	for {
		seen := s.seen.Load()
		if seq <= seen || s.seen.CompareAndSwap(seen, seq) {
			return
		}
	}
}

// ahead is how many sequences the stream has above those that were taken in, as far as its end was seen: with every
// batch, and twice a minute while nothing is taken in.
func (s *sourceStream) ahead() uint64 {
	applied := s.ledger.applied()
	return max(s.seen.Load(), applied) - applied
}
