package scheduler

import (
	"context"
	"maps"
	"math/bits"
	"slices"
	"time"

	"dormouse/internal/policy"
)

// Policies are those in force. Their methods may be called from any goroutine.
type Policies interface {
	// Current returns the policies as they are now; nil are none.
	Current() *policy.Set
	// Changed returns a channel that is closed when Current returns others than before the call.
	Changed() <-chan struct{}
}

// settled is what the policies in force mean for the scheduler. Nothing of it is kept for a log: who needs it looks the
// log up.
type settled struct {
	policies *policy.Set
	delays   bool   // some logs have a delay of their own
	full     uint64 // no log with fewer bytes is full
	grids    []grid
	odd      bool // the number of changes so far is odd; see logState.odd
}

// grid is the slots of logs with delays within a factor of two.
type grid struct {
	step  int64 // every how many slots there is one, a power of two
	board int64 // how many slots ahead logs of the longest delay board
}

// gridSlots is into how many slots a delay is divided at least, once it has as many. Logs of long delays share coarse
// slots: a timer that is far away fires now and then on its way, and there must be few.
const gridSlots = 512

// stepOf returns every how many slots there is one for logs with a delay.
func (c *Config) stepOf(delay time.Duration) int64 {
	n := c.slotOf(int64(delay)) / gridSlots
	if n < 2 {
		return 1
	}
	return 1 << (bits.Len64(uint64(n)) - 1)
}

// settledBy works out what policies mean. Before they hold for all logs, those of old hold for some.
func (c *Config) settledBy(policies, old *policy.Set, odd bool) settled {
	now := settled{policies: policies, full: c.MaxBytes, odd: odd}
	board := make(map[int64]int64)
	add := func(delay time.Duration) {
		step := c.stepOf(delay)
		board[step] = max(board[step], c.slotOf(int64(delay/BoardShare)))
	}
	add(c.MaxDelay)
	for _, set := range []*policy.Set{policies, old} {
		for _, r := range set.Rules() {
			if r.Policy.MaxDelay > 0 {
				now.delays = true
				add(r.Policy.MaxDelay)
			}
			if r.Policy.MaxBytes > 0 {
				now.full = min(now.full, r.Policy.MaxBytes)
			}
		}
	}
	for _, step := range slices.Sorted(maps.Keys(board)) {
		now.grids = append(now.grids, grid{step, board[step]})
	}
	return now
}

// delayOf is the delay of a log, and isFull whether it is ready for the bytes that it has, by a set of policies.
func (c *Config) delayOf(policies *policy.Set, log string) time.Duration {
	if delay := policies.Lookup(log).MaxDelay; delay > 0 {
		return delay
	}
	return c.MaxDelay
}

func (s *Scheduler) delayLocked(l *logState) time.Duration {
	if !s.mu.settled.delays {
		return s.cfg.MaxDelay
	}
	return s.cfg.delayOf(s.mu.settled.policies, l.id)
}

func (s *Scheduler) isFullLocked(l *logState) bool {
	if l.bytes < s.mu.settled.full {
		return false
	}
	if most := s.mu.settled.policies.Lookup(l.id).MaxBytes; most > 0 {
		return l.bytes >= most
	}
	return l.bytes >= s.cfg.MaxBytes
}

// dueSlotLocked returns the slot of a log with a delay that is due at l.due. A log of a coarse grid falls due a little
// early rather than late, by less than a gridSlots-th of its delay, but not in a slot that is over.
func (s *Scheduler) dueSlotLocked(l *logState, delay time.Duration, now time.Time) int64 {
	k, step := s.cfg.slotOf(l.due), s.cfg.stepOf(delay)
	return max(k/step*step, min(k, s.cfg.slotOf(int64(now.Sub(s.start)))))
}

// follow has the policies in force obeyed until ctx is done.
func (s *Scheduler) follow(ctx context.Context) error {
	if s.cfg.Policies == nil {
		return nil
	}
	for {
		changed := s.cfg.Policies.Changed()
		s.obey(ctx, s.cfg.Policies.Current())
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// rearmStates is how many states are looked at before others have their turn at the lock.
const rearmStates = 1024

// obey makes policies those in force. Logs that are armed already get the deadline that they would have got, in slices.
// It returns early when ctx is done.
func (s *Scheduler) obey(ctx context.Context, policies *policy.Set) {
	s.mu.Lock()
	old := s.mu.settled.policies
	if policies == old {
		s.mu.Unlock()
		return
	}
	s.mu.settled = s.cfg.settledBy(policies, old, !s.mu.settled.odd)
	s.mu.Unlock()
	for at, more := (rearming{old: old, next: 1}), true; more && ctx.Err() == nil; {
		more = s.rearm(&at)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.settled = s.cfg.settledBy(policies, nil, s.mu.settled.odd)
}

// rearming is how far obey has come.
type rearming struct {
	old    *policy.Set
	next   uint32 // state; 0 is nobody
	tables int    // as in run
}

// rearm looks at the next states. Those that were armed since the change are not touched.
func (s *Scheduler) rearm(at *rearming) (more bool) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if at.tables != s.mu.tables { // compacted meanwhile: the states have moved
		at.next, at.tables = 1, s.mu.tables
	}
	for end := at.next + rearmStates; at.next < end && at.next < s.mu.table.used; at.next++ {
		l := s.mu.table.get(at.next)
		if l.state != armed || l.odd == s.mu.settled.odd {
			continue
		}
		l.odd = s.mu.settled.odd
		if s.isFullLocked(l) {
			s.queueLocked(at.next, l)
			continue
		}
		was, is := s.cfg.delayOf(at.old, l.id), s.delayLocked(l)
		if was == is {
			continue
		}
		s.unplaceLocked(at.next, l)
		l.due = max(l.due+int64(is-was), int64(now.Sub(s.start)), 1)
		s.placeLocked(at.next, l, s.dueSlotLocked(l, is, now))
	}
	return at.next < s.mu.table.used
}
