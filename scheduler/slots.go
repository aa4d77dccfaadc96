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
func (s *Scheduler) slotOf(due int64) int64 {
	tick := int64(s.cfg.Tick)
	return (due + tick - 1) / tick
}

// dueOf returns when slot k is due.
func (s *Scheduler) dueOf(k int64) time.Duration { return time.Duration(k) * s.cfg.Tick }

// requeueSlots is into how many slots RequeueAfter is divided: nobody needs it exact, and few slots are few timers.
const requeueSlots = 64

func (s *Scheduler) requeueSlot(now time.Time) int64 {
	k := s.slotOf(int64(now.Sub(s.start) + s.cfg.RequeueAfter))
	coarse := max(s.slotOf(int64(s.cfg.RequeueAfter))/requeueSlots, 1)
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
// returns how many it moved.
func (s *Scheduler) takeSlotLocked(sl *slot, most int, want func(*logState) bool) (moved int) {
	for i := sl.logs.head; i != 0 && most > 0; most-- {
		l := s.mu.table.get(i)
		next := l.next
		if want(l) {
			moved++
			s.mu.table.unlink(&sl.logs, i)
			if !s.moveLocked(l, armed, queued) {
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
	return moved
}

// Logs board early: those that fall due within the next boardShare-th of MaxDelay go with a slot that is due, until
// there are boardLogs. A drain, a request and an object then follow the time, and not each log that wakes up; and a
// bound on how long entries wait is still one. More logs than a worker drains at once would gain nothing, and come in
// bursts.
const (
	boardShare = 5
	boardLogs  = wire.MaxDrainLogs
)

// boardLocked has logs go with so many others that are due in slot k.
func (s *Scheduler) boardLocked(k int64, due int) {
	room := boardLogs - due
	for last := k + s.slotOf(int64(s.cfg.MaxDelay/boardShare)); k < last && room > 0; {
		k++
		if sl := s.mu.slots[k]; sl != nil {
			room -= s.takeSlotLocked(sl, room, func(l *logState) bool { return l.state == armed })
		}
	}
}

// serveLogs is how many logs are served before the publishers have their turn at the lock: those of a big slot begin to
// publish while the rest is being served.
const serveLogs = 1024

// serveDue empties a slot that is due, or returns how long it is until then if that is more than half a tick: the wheel
// goes by the wall clock, which may have been moved a little.
func (s *Scheduler) serveDue(k int64) (left time.Duration) {
	for {
		if left, more := s.serveSome(k); !more {
			return left
		}
	}
}

func (s *Scheduler) serveSome(k int64) (left time.Duration, more bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sl := s.mu.slots[k]
	if sl == nil {
		return 0, false
	}
	if left := s.dueOf(k) - time.Since(s.start); left > s.cfg.Tick/2 {
		return left, false
	}
	served := s.takeSlotLocked(sl, serveLogs, func(*logState) bool { return true })
	if sl.logs.head != 0 {
		return 0, true
	}
	delete(s.mu.slots, k)
	if served > 0 {
		s.boardLocked(k, served)
	}
	return 0, false
}

// overdueLocked returns the slots that are overdue by more than bound.
func (s *Scheduler) overdueLocked(bound time.Duration) (overdue []int64) {
	now := time.Since(s.start)
	for k := range s.mu.slots {
		if now-s.dueOf(k) > bound {
			overdue = append(overdue, k)
		}
	}
	return overdue
}

// runSlots sets timers and serves the slots whose timers fire, under a supervisor's eyes, until ctx is done.
func (s *Scheduler) runSlots(ctx context.Context) error {
	clock := s.newClock()
	defer func() { clock.stop() }()
	bound := max(time.Second, 10*s.cfg.Tick)
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
		case <-s.arm:
			clock.set(s.takeUnset())
			if !watching {
				watch()
				watching = true
			}
		case <-clock.fired:
			for _, k := range clock.takeFired() {
				if left := s.serveDue(k); left > 0 { // a far slot on its way, or a clock that jumped ahead
					clock.set([]int64{k})
				}
			}
		case <-supervise.C:
			if excused = !excused && time.Since(watched) > bound+bound/2; excused {
				watch() // the whole process stood still, and the wheel with it: it may catch up
				continue
			}
			var stuck, more bool
			if clock, stuck, more = s.supervise(clock, bound); stuck {
				s.cfg.Logger.Error("the timing wheel was stuck or its clock was set back: replaced it", "bound", bound)
			}
			if watching = more; more {
				watch()
			}
		}
	}
}

func (s *Scheduler) takeUnset() []int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	unset := s.mu.unset
	s.mu.unset = nil
	return unset
}

// supervise serves slots that are overdue by more than bound, by the monotonic clock, and then does not trust the wheel
// any more: a new one takes over all slots. more reports whether there are slots left to watch.
func (s *Scheduler) supervise(c *clock, bound time.Duration) (now *clock, stuck, more bool) {
	s.mu.Lock()
	overdue := s.overdueLocked(bound)
	s.mu.Unlock()
	if len(overdue) > 0 {
		s.cfg.Metrics.rebuilds.Inc()
		for _, k := range overdue {
			s.serveDue(k)
		}
		c.abandon()
		c = s.newClock()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(overdue) > 0 {
		all := make([]int64, 0, len(s.mu.slots))
		for k := range s.mu.slots {
			all = append(all, k)
		}
		s.mu.unset = nil
		c.set(all)
	}
	return c, len(overdue) > 0, len(s.mu.slots) > 0
}
