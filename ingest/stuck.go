package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/jsapi"
	"dormouse/internal/outage"
	"dormouse/internal/wire"
)

// concern is what a shard can be held up at.
type concern int

const (
	taking   concern = iota // entries in from the source stream
	claiming                // the shard
	committing
	concerns
)

var concernNames = [concerns]string{"taking entries in", "claiming the shard", "committing what is archived"}

// advance says whether a shard gets on at this node, over all its turns as the owner. Idle, back-pressure and another
// node's turn are no trouble. It costs nothing at rest: who works on the shard tells it what happens.
type advance struct {
	mu struct {
		sync.Mutex
		since    [concerns]time.Time // it has been held up; zero: it is not
		why      [concerns]error     // the last failure, if there was one
		claimed  uint64              // the highest manifest record that a claim has come to
		full     bool                // the buffer is at its limit
		reported *wire.Stuck         // what was said of it, nil while it gets on
	}
}

// begins notes that the concern has something to do from now on, unless it has had already.
func (a *advance) begins(c concern) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.beginsLocked(c)
}

func (a *advance) beginsLocked(c concern) {
	if a.mu.since[c].IsZero() && !(c == taking && a.mu.full) {
		a.mu.since[c] = time.Now()
	}
}

// moves notes that a part of it was done; what failed before may still be undone.
func (a *advance) moves(c concern) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.mu.since[c].IsZero() {
		a.mu.since[c] = time.Now()
	}
}

// fails notes that it was tried in vain.
func (a *advance) fails(c concern, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.beginsLocked(c)
	a.mu.why[c] = err
}

// done notes that it got on, or has nothing left to do.
func (a *advance) done(c concern) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.doneLocked(c)
}

func (a *advance) doneLocked(c concern) {
	a.mu.since[c], a.mu.why[c] = time.Time{}, nil
}

// claimedTo notes how far into the manifest a claim has come. One that fails there again and again does not get on.
func (a *advance) claimedTo(record uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if record > a.mu.claimed {
		a.mu.claimed = record
		if !a.mu.since[claiming].IsZero() {
			a.mu.since[claiming] = time.Now()
		}
	}
}

// reset notes that the shard is none of this node's business.
func (a *advance) reset() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for c := range concerns {
		a.doneLocked(c)
	}
	a.mu.full = false
}

// setFull notes whether the owner waits for room in its buffer.
func (a *advance) setFull(full bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.mu.full = full
	a.doneLocked(taking)
	if !full {
		a.beginsLocked(taking) // perhaps there is nothing any more: that shows
	}
}

func (a *advance) isFull() bool {
	if a == nil { // of a shard that is not run
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.mu.full
}

// forgive takes a time out of account in which this process stood still itself: frozen, or without a processor.
func (a *advance) forgive(d time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for c, since := range a.mu.since {
		if !since.IsZero() {
			a.mu.since[c] = since.Add(d)
		}
	}
}

// heldUp returns the concern that has been held up longest, if that is longer than patience.
func (a *advance) heldUp(patience time.Duration) (c concern, since time.Time, why error, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, at := range a.mu.since {
		if !at.IsZero() && time.Since(at) > patience && (!ok || at.Before(since)) {
			c, since, why, ok = concern(i), at, a.mu.why[i], true
		}
	}
	return c, since, why, ok
}

func (a *advance) report(s *wire.Stuck) (before *wire.Stuck) {
	a.mu.Lock()
	defer a.mu.Unlock()
	before, a.mu.reported = a.mu.reported, s
	return before
}

// stuck returns what was last reported, nil if the shard got on since.
func (a *advance) stuck() *wire.Stuck {
	if a == nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, since := range a.mu.since {
		if a.mu.reported != nil && since.Equal(a.mu.reported.Since) {
			return a.mu.reported
		}
	}
	return nil
}

// watchAdvance looks several times in a lease whether the shard gets on, until ctx is done. It asks JetStream only for
// one that does not.
func (r *shardRunner) watchAdvance(ctx context.Context) {
	lease := r.node.cfg.Lease
	tick := time.NewTicker(lease / 4)
	defer tick.Stop()
	defer func() {
		r.advance.report(nil)
		r.outages.heldUp.Over()
	}()
	for looked := time.Now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if pause := time.Since(looked); pause > lease/2 {
			r.advance.forgive(pause)
		}
		now := r.lookAtAdvance(ctx, lease)
		if ctx.Err() != nil {
			return
		}
		tellAdvance(r.log, r.outages.heldUp, r.advance.report(now), now)
		looked = time.Now()
	}
}

// lookAtAdvance returns what the shard does not get past, nil if it gets on.
func (r *shardRunner) lookAtAdvance(ctx context.Context, patience time.Duration) *wire.Stuck {
	c, since, why, ok := r.advance.heldUp(patience)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s := &wire.Stuck{Since: since, Reason: concernNames[c], Suspect: why == nil}
	if why != nil {
		s.Reason = fmt.Sprintf("%s: %v", concernNames[c], why)
	}
	var at aheadError
	if errors.As(why, &at) {
		s.Seq, s.Subject, s.Suspect = at.seq, at.subject, true
		return s
	}
	if c == claiming { // no entry is looked at before it is done: none is at fault
		return s
	}
	first, err := r.firstWaiting(ctx, c)
	switch {
	case err == nil:
		s.Seq, s.Subject = first.Sequence, first.Subject
	case errors.Is(err, jetstream.ErrMsgNotFound) && c == taking: // its end was deleted, or archived by another owner
		r.advance.done(taking)
		return nil
	}
	return s
}

// firstWaiting returns the first message of the stream that the shard waits with.
func (r *shardRunner) firstWaiting(ctx context.Context, c concern) (jsapi.Message, error) {
	pos, err := r.node.cfg.DB.Position(r.source.Shard)
	if err != nil {
		return jsapi.Message{}, err
	}
	above := pos.Applied
	if c == committing {
		above = pos.Floor
	}
	return jsapi.GetNext(ctx, r.node.cfg.JS, r.source.Stream, ">", above+1)
}

// tellAdvance logs what has changed. A message that may be at fault needs an operator, and gets lines of its own. What
// fails whatever the message, as without NATS, is an outage that all shards share.
func tellAdvance(log *slog.Logger, away *outage.Log, before, now *wire.Stuck) {
	if now == nil || now.Suspect {
		away.Over()
	}
	told := before != nil && before.Suspect
	switch {
	case now == nil && told:
		log.Info("the shard gets on again", "held_up", time.Since(before.Since).Round(time.Millisecond),
			"sequence", before.Seq)
	case now == nil:
	case !now.Suspect:
		args := []any{"since", now.Since, "reason", now.Reason}
		if now.Seq > 0 {
			args = append(args, "sequence", now.Seq)
		}
		away.Failed(nil, args...)
	case !told || before.Seq != now.Seq:
		message := "the shard does not get on"
		if now.Seq > 0 {
			message = "the shard does not get past a sequence; if it is that message's fault, " +
				"dormouse provision --skip puts it aside"
			log = log.With("sequence", now.Seq, "subject", now.Subject)
		}
		log.Error(message, "since", now.Since, "reason", now.Reason)
	}
}

// aheadError is a failure at a certain message.
type aheadError struct {
	seq     uint64
	subject string
	error
}

func (e aheadError) Unwrap() error { return e.error }

// stuckError is how readiness puts it.
func stuckError(shard wire.Shard, s *wire.Stuck) error {
	return fmt.Errorf("shard %s has been stuck%s for %s: %s%s", shard, s.At(), time.Since(s.Since).Round(time.Second),
		s.Reason, s.Try(shard))
}
