package shard

import (
	"context"
	"time"

	"dormouse/internal/extent"
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
// The time that counts is that of the newest entry, or of this machine's clock if that is earlier: no clock that jumps
// ahead has anything expire, and a shard that nobody writes to keeps what it has.
type expirer struct {
	keeps  func() []Keep // as of now; nil: everything is kept
	ledger *ledger
	every  time.Duration
	record func(ctx context.Context, c extent.Cut) error
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
		for _, keep := range e.keeps() {
			if c, ok := e.due(keep, time.Now()); ok {
				if err := e.record(ctx, c); err != nil {
					return err
				}
			}
		}
	}
}

// due returns the cut of what is not kept any longer, if there is enough of it.
func (e *expirer) due(keep Keep, now time.Time) (c extent.Cut, ok bool) {
	live, _ := e.ledger.live()
	newest := min(now.UnixNano(), max(live.Newest(), e.ledger.newest()))
	lazy, eager := live.Kept(keep.Logs)
	c = extent.Cut{Logs: keep.Logs, UpTo: max(e.ledger.applied(), 1), Before: newest - int64(keep.For),
		Made: now.UnixNano(), Kept: true, Except: keep.Except}
	step := int64(min(keep.For/readsLag, time.Hour))
	if c.Before <= max(lazy.Before, eager.Before)+step || len(live.Cuts()) >= tree.MaxCuts {
		return c, false
	}
	c.Lazy = eager.Before > 0 && c.Before < eager.Before+int64(keep.For)/expiredPart
	for p := range live.Overlapping(c.Range()) {
		if c.MayTouch(p.Segment) {
			return c, true
		}
	}
	return c, false
}
