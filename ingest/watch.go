package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/ingest/shard"
	"dormouse/internal/jsapi"
	"dormouse/internal/outage"
	"dormouse/internal/shardid"
	"dormouse/internal/wire"
)

// watchAdvance looks several times in a lease whether the shard gets on, until ctx is done. It asks JetStream only for
// one that does not.
func (r *shardRunner) watchAdvance(ctx context.Context) {
	lease := r.node.cfg.Lease
	tick := time.NewTicker(lease / 4)
	defer tick.Stop()
	defer func() {
		r.advance.Report(nil)
		r.outages.HeldUp.Over()
	}()
	for looked := time.Now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if pause := time.Since(looked); pause > lease/2 {
			r.advance.Forgive(pause)
		}
		now := r.lookAtAdvance(ctx, lease)
		if ctx.Err() != nil {
			return
		}
		tellAdvance(r.log, r.outages.HeldUp, r.advance.Report(now), now)
		looked = time.Now()
	}
}

// lookAtAdvance returns what the shard does not get past, nil if it gets on.
func (r *shardRunner) lookAtAdvance(ctx context.Context, patience time.Duration) *wire.Stuck {
	c, since, why, ok := r.advance.HeldUp(patience)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s := &wire.Stuck{Since: since, Reason: c.String(), Suspect: why == nil}
	if why != nil {
		s.Reason = fmt.Sprintf("%s: %v", c, why)
	}
	var at shard.AheadError
	if errors.As(why, &at) {
		s.Seq, s.Subject, s.Suspect = at.Seq, at.Subject, true
		return s
	}
	if c == shard.Claiming { // no entry is looked at before it is done: none is at fault
		return s
	}
	first, err := r.firstWaiting(ctx, c)
	switch {
	case err == nil:
		s.Seq, s.Subject = first.Sequence, first.Subject
	case errors.Is(err, jetstream.ErrMsgNotFound) && c == shard.Taking:
		// Its end was deleted, or archived by another owner.
		r.advance.Done(shard.Taking)
		return nil
	}
	return s
}

// firstWaiting returns the first message of the stream that the shard waits with.
func (r *shardRunner) firstWaiting(ctx context.Context, c shard.Concern) (jsapi.Message, error) {
	pos, err := r.node.cfg.DB.Position(r.source.Shard)
	if err != nil {
		return jsapi.Message{}, err
	}
	above := pos.Applied
	if c == shard.Committing {
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

// stuckError is how readiness puts it.
func stuckError(of shardid.Shard, s *wire.Stuck) error {
	return fmt.Errorf("shard %s has been stuck%s for %s: %s%s", of, s.At(), time.Since(s.Since).Round(time.Second),
		s.Reason, s.Try(of))
}
