package scheduler

import (
	"context"
	"time"

	"dormouse/internal/wire"
)

// slot is all the logs that fall due in one tick, or are to be queued again in it. One timer serves it, set when the
// slot comes into being.
type slot struct{ logs list }

// slotOf returns the slot that ends at or after a moment, nanoseconds since start.
func (c *Config) slotOf(due int64) int64 {
	tick := int64(c.Tick)
	return (due + tick - 1) / tick
}

// dueOf returns when slot k is due.
func (c *Config) dueOf(k int64) time.Duration { return time.Duration(k) * c.Tick }

// requeueSlots is into how many slots RequeueAfter is divided: nobody needs it exact, and few slots are few timers.
const requeueSlots = 64

func (s *Scheduler) requeueSlot(now time.Time) int64 {
	k := s.cfg.slotOf(int64(now.Sub(s.start) + s.cfg.RequeueAfter))
	coarse := max(s.cfg.slotOf(int64(s.cfg.RequeueAfter))/requeueSlots, 1)
	return (k + coarse - 1) / coarse * coarse
}

// placeLocked puts a log into slot k, and has a timer set if the slot is new.
func (s *Scheduler) placeLocked(i uint32, l *logState, k int64) {
	sl := s.mu.slots[k]
	if sl == nil {
		sl = &slot{}
		s.mu.slots[k] = sl
		s.mu.unset = append(s.mu.unset, k)
		signal(s.arm)
	}
	l.place, l.at = inSlot, k
	s.mu.table.push(&sl.logs, i)
}

// takeSlotLocked moves the logs of a slot that want to go into the outbox, after looking at most at so many of them. It
// returns how many it looked at.
func (s *Scheduler) takeSlotLocked(sl *slot, most int, want func(*logState) bool) (looked int) {
	for i := sl.logs.head; i != 0 && looked < most; looked++ {
		l := s.mu.table.get(i)
		next := l.next
		if want(l) {
			s.mu.table.unlink(&sl.logs, i)
			if !s.mu.stats.move(l, armed, queued) {
				l.due = 0
				s.answeredLocked()
				s.cfg.Metrics.requeued.Inc()
			}
			l.place, l.at = inOutbox, 0
			s.mu.table.push(&s.mu.outbox, i)
		}
		i = next
	}
	if s.mu.outbox.head != 0 {
		signal(s.ready) // a publisher that leaves something behind wakes the next
	}
	return looked
}

// BoardShare says how early logs board: those that fall due within the next BoardShare-th of their delay go with a slot
// that is due. A drain, a request and an object then follow the time, and not each log that wakes up; and a bound on
// how long entries wait is still one.
const BoardShare = 5

// boardLogs bounds how many logs a slot has with those that board, and how many are looked at for it: more than a
// worker drains at once would gain nothing, and come in bursts.
const boardLogs = wire.MaxDrainLogs

// boardLocked has logs go with so many others that are due in slot k.
func (r *slotRunner) boardLocked(k int64, due int) {
	room := boardLogs - due
	for _, g := range r.s.mu.grids {
		for next := (k/g.step + 1) * g.step; next <= k+g.board && room > 0; next += g.step {
			if sl := r.s.mu.slots[next]; sl != nil {
				room -= r.s.takeSlotLocked(sl, room, func(l *logState) bool { return r.boardsLocked(l, next-k) })
			}
		}
	}
}

// boardsLocked reports whether a log that falls due so many slots ahead boards.
func (r *slotRunner) boardsLocked(l *logState, ahead int64) bool {
	return l.state == armed && (!r.s.mu.delays ||
		ahead <= r.s.cfg.slotOf(int64(r.s.delayLocked(l)/BoardShare)))
}

// serveLogs is how many logs are served before the publishers have their turn at the lock: those of a big slot begin to
// publish while the rest is being served.
const serveLogs = 1024

// serveDue empties a slot that is due, or returns how long it is until then if that is more than half a tick: the wheel
// goes by the wall clock, which may have been moved a little.
func (r *slotRunner) serveDue(k int64) (left time.Duration) {
	for {
		if left, more := r.serveSome(k); !more {
			return left
		}
	}
}

func (r *slotRunner) serveSome(k int64) (left time.Duration, more bool) {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	sl := r.s.mu.slots[k]
	if sl == nil {
		return 0, false
	}
	if left := r.s.cfg.dueOf(k) - time.Since(r.s.start); left > r.s.cfg.Tick/2 {
		return left, false
	}
	served := r.s.takeSlotLocked(sl, serveLogs, func(*logState) bool { return true })
	if sl.logs.head != 0 {
		return 0, true
	}
	delete(r.s.mu.slots, k)
	if served > 0 {
		r.boardLocked(k, served)
	}
	return 0, false
}

// overdueLocked returns the slots that are overdue by more than bound.
func (r *slotRunner) overdueLocked(bound time.Duration) (overdue []int64) {
	now := time.Since(r.s.start)
	for k := range r.s.mu.slots {
		if now-r.s.cfg.dueOf(k) > bound {
			overdue = append(overdue, k)
		}
	}
	return overdue
}

// slotRunner serves the slots, in one goroutine.
type slotRunner struct{ s *Scheduler }

// run sets timers and serves the slots whose timers fire, under a supervisor's eyes, until ctx is done.
func (r *slotRunner) run(ctx context.Context) error {
	clock := newClock(r.s)
	defer func() { clock.stop() }()
	bound := max(time.Second, 10*r.s.cfg.Tick)
	supervise := time.NewTimer(bound)
	defer supervise.Stop()
	watching, excused, watched := true, false, time.Now() // watched is when supervise was set
	watch := func() {
		supervise.Reset(bound)
		watched = time.Now()
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.s.arm:
			clock.set(r.takeUnset())
			if !watching {
				watch()
				watching = true
			}
		case <-clock.fired:
			for _, k := range clock.takeFired() {
				if left := r.serveDue(k); left > 0 { // a far slot on its way, or a clock that jumped ahead
					clock.set([]int64{k})
				}
			}
		case <-supervise.C:
			if excused = !excused && time.Since(watched) > bound+bound/2; excused {
				watch() // the whole process stood still, and the wheel with it: it may catch up
				continue
			}
			var stuck, more bool
			if clock, stuck, more = r.supervise(clock, bound); stuck {
				r.s.cfg.Logger.Error("the timing wheel was stuck or its clock was set back: replaced it", "bound", bound)
			}
			if watching = more; more {
				watch()
			}
		}
	}
}

func (r *slotRunner) takeUnset() []int64 {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	unset := r.s.mu.unset
	r.s.mu.unset = nil
	return unset
}

// supervise serves slots that are overdue by more than bound, by the monotonic clock, and then does not trust the wheel
// any more: a new one takes over all slots. more reports whether there are slots left to watch.
func (r *slotRunner) supervise(c *clock, bound time.Duration) (now *clock, stuck, more bool) {
	r.s.mu.Lock()
	overdue := r.overdueLocked(bound)
	r.s.mu.Unlock()
	if len(overdue) > 0 {
		r.s.cfg.Metrics.rebuilds.Inc()
		for _, k := range overdue {
			r.serveDue(k)
		}
		c.abandon()
		c = newClock(r.s)
	}
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	if len(overdue) > 0 {
		all := make([]int64, 0, len(r.s.mu.slots))
		for k := range r.s.mu.slots {
			all = append(all, k)
		}
		r.s.mu.unset = nil
		c.set(all)
	}
	return c, len(overdue) > 0, len(r.s.mu.slots) > 0
}
