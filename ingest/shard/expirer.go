package shard

import (
	"cmp"
	"context"
	"errors"
	"time"

	"dormouse/internal/extent"
	"dormouse/internal/outage"
	"dormouse/store/tree"
)

// Keep says how long entries of some logs are kept, counted from their own time.
type Keep struct {
	Logs   string // see extent.Cut
	For    time.Duration
	Except []string // logs of which another Keep says it
}

const (
	// expireEvery is how often it is looked whether something is not kept any longer.
	expireEvery = time.Minute
	// readsLag is by how much of its time an entry may be read longer than it is kept, an hour at most.
	readsLag = 100
	// expiredPart is how much of what is kept may lie in the bucket besides, though it is expired: a fifth. Then the
	// segments are written anew which have some of it.
	expiredPart = 5
)

// expirer has what is not kept any longer cut: by a lazy cut now and then, which reads obey and which lets segments of
// which nothing is left be dropped unread, and by one that has segments written anew when a part of what is kept has
// expired.
//
// The time that counts is that of the newest entry, or of this machine's clock if that is earlier: neither a server's
// clock that jumps ahead nor this machine's has anything expire, unless both do, and a shard that nobody writes to
// keeps what it has.
type expirer struct {
	keeps  func() []Keep // as of now; nil: everything is kept
	ledger *ledger
	every  time.Duration
	record func(ctx context.Context, c extent.Cut) error
	// expires notes what keeps something from expiring, nil when all that is due has
	expires func(error)
	failing *outage.Log
}

// run looks now and then until ctx is done.
func (e *expirer) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(e.every):
		}
		if e.keeps == nil {
			continue
		}
		if err := e.look(ctx, e.keeps()); err != nil {
			return err
		}
	}
}

// look has what is due expire. What the tree has no room for waits, and shows.
func (e *expirer) look(ctx context.Context, keeps []Keep) error {
	var waits error
	for _, keep := range keeps {
		c, ok := e.due(keep, time.Now())
		if !ok {
			continue
		}
		err := e.record(ctx, c)
		if err != nil && !errors.Is(err, tree.ErrInvalid) {
			return err
		}
		waits = cmp.Or(waits, err)
	}
	if e.expires(waits); waits != nil {
		e.failing.Failed(waits)
	} else {
		e.failing.Over()
	}
	return nil
}

// due returns the cut of what is not kept any longer, if there is enough of it.
func (e *expirer) due(keep Keep, now time.Time) (c extent.Cut, ok bool) {
	live, _ := e.ledger.live()
	newest := min(now.UnixNano(), max(live.Newest(), e.ledger.newest()))
	lazy, eager := live.Kept(keep.Logs)
	c = extent.Cut{Logs: keep.Logs, UpTo: max(e.ledger.applied(), 1), Before: newest - int64(keep.For),
		Made: now.UnixNano(), Kept: true, Except: keep.Except}
	step := int64(min(keep.For/readsLag, time.Hour))
	if c.Before <= max(lazy.Before, eager.Before)+step {
		return c, false
	}
	// A tree forgets a cut of which it has nothing left.
	if last := max(eager.Before, lazy.Last); last > 0 && c.Before < last+int64(keep.For)/expiredPart {
		c.Lazy, c.Last = true, last
	}
	for p := range live.Overlapping(c.Range()) {
		if c.MayTouch(p.Segment) {
			return c, true
		}
	}
	return c, false
}
