package scheduler

import (
	"math"
	"time"
)

// The state machine of a log. "first entry" and "rest left" take the deadline from the first unarchived entry:
//
//	           first entry            due, boards, full, Expedite
//	  idle -----------------> armed --------------------------------> queued <---+ more entries;
//	   ^                     ^  |  ^                                   |  |  |   | not committed in time:
//	   |     all committed   |  |  | more entries                      |  |  +---+ queued again
//	   +---------------------|--+--+                                   |  |
//	   |                     +------ committed, rest left, not full ---+  |
//	   +---------------------------- all committed -----------------------+

// Arrival is one entry that has become part of the buffer.
type Arrival struct {
	Log   string // LogID; may share a larger string's memory, it is cloned if it is kept
	Seq   uint64
	Bytes uint64    // payload and header bytes
	Time  time.Time // when JetStream stored it
}

// Pending is what is buffered of a log.
type Pending struct {
	First, Last uint64 // sequences
	Count       uint64 // entries
	Bytes       uint64 // payload and header bytes
}

// Append takes entries that were written to the buffer, in sequence order.
func (s *Scheduler) Append(batch []Arrival) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range batch {
		a := &batch[i]
		s.growLocked(a.Log, Pending{First: a.Seq, Last: a.Seq, Count: 1, Bytes: a.Bytes}, a.Time, now)
	}
}

// Restore takes a log that the buffer held at start. first is the time of its first entry.
func (s *Scheduler) Restore(log string, p Pending, first time.Time) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.growLocked(log, p, first, now)
}

func (s *Scheduler) growLocked(log string, p Pending, arrival, now time.Time) {
	i, known := s.mu.table.index[log]
	var l *logState
	if known {
		l = s.mu.table.get(i)
	} else {
		i, l = s.mu.table.add(log, p.First)
		s.mu.stats.Active++
	}
	l.last = p.Last
	l.count += uint32(min(p.Count, math.MaxUint32))
	l.bytes += p.Bytes
	s.mu.stats.Entries += p.Count
	s.mu.stats.Bytes += p.Bytes
	switch {
	case known && l.state == queued:
	case s.isFullLocked(l):
		s.queueLocked(i, l)
	case !known:
		s.armLocked(i, l, arrival, now)
	}
}

// Pending returns what is buffered of a log; false means that the log is idle.
func (s *Scheduler) Pending(log string) (Pending, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.mu.table.index[log]
	if !ok {
		return Pending{}, false
	}
	l := s.mu.table.get(i)
	return Pending{First: l.first, Last: l.last, Count: uint64(l.count), Bytes: l.bytes}, true
}

// Commit says that the first entries of a log were committed.
type Commit struct {
	Log   string
	Last  uint64 // sequence of the last of them
	Count uint64 // entries
	Bytes uint64 // payload and header bytes
}

// Rest returns the first entry that a log has at or above a sequence, and its time. It is called while the Scheduler
// stands still, so it must not call it, and be quick.
type Rest func(log string, from uint64) (first uint64, at time.Time, err error)

// Committed takes the commits of one manifest record in one step. A log that has more entries is armed again, or
// queued, from the first one that rest returns; the others go to sleep. An error of rest ends it, and the commits after
// it are not taken.
func (s *Scheduler) Committed(commits []Commit, rest Rest) error {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range commits {
		if err := s.committedLocked(&commits[i], rest, now); err != nil {
			return err
		}
	}
	return nil
}

func (s *Scheduler) committedLocked(c *Commit, rest Rest, now time.Time) error {
	i, ok := s.mu.table.index[c.Log]
	if !ok {
		return nil
	}
	l := s.mu.table.get(i)
	if l.last <= c.Last {
		s.sleepLocked(i, l)
		return nil
	}
	first, at, err := rest(c.Log, c.Last+1)
	if err != nil {
		return err
	}
	s.leaveLocked(i, l)
	count, bytes := min(c.Count, uint64(l.count)), min(c.Bytes, l.bytes)
	s.mu.stats.Entries -= count
	s.mu.stats.Bytes -= bytes
	l.count -= uint32(count)
	l.bytes -= bytes
	s.mu.table.setFirst(i, l, first)
	if s.isFullLocked(l) {
		s.queueLocked(i, l)
	} else {
		s.armLocked(i, l, at, now)
	}
	return nil
}

// sleepLocked forgets a log of which all is committed, also if the counts had come apart.
func (s *Scheduler) sleepLocked(i uint32, l *logState) {
	s.leaveLocked(i, l)
	s.mu.stats.Entries -= uint64(l.count)
	s.mu.stats.Bytes -= l.bytes
	s.mu.table.remove(i)
	s.mu.stats.Active--
	if s.mu.table.sparse() {
		s.compactLocked()
	}
}

// Drained notes that a worker has just fetched the logs: it has RequeueAfter from now to commit them.
func (s *Scheduler) Drained(logs []string) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	again := s.requeueSlot(now)
	for _, log := range logs {
		if i, ok := s.mu.table.index[log]; ok {
			if l := s.mu.table.get(i); l.state == queued && l.place == inSlot {
				s.leaveLocked(i, l)
				s.awaitCommitLocked(i, l, again)
			}
		}
	}
}

// Expedite makes every armed log ready now.
func (s *Scheduler) Expedite() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.stats.Armed == 0 {
		return
	}
	for _, sl := range s.mu.slots {
		s.takeSlotLocked(sl, math.MaxInt, func(l *logState) bool { return l.state == armed })
	}
}

// Collect has logs that are overdue when they are armed wait for more entries, at most their delay, instead of being
// ready at once, until Release. It is for catching up with a backlog: a log's entries lie all over it, and every time
// that a log is drained costs an extent.
func (s *Scheduler) Collect() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.collecting = true
}

// Release makes the logs ready that wait because of Collect.
func (s *Scheduler) Release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.collecting = false
	if s.mu.collected == 0 {
		return
	}
	s.mu.collected = 0
	for _, sl := range s.mu.slots {
		s.takeSlotLocked(sl, math.MaxInt, func(l *logState) bool { return l.state == armed && l.collected })
	}
}

// move changes the state of a log from one to another, or reports false and changes nothing: this is what keeps a log
// from being queued twice. from is 0 for a log that is in no state yet, or has just left one.
func (st *Stats) move(l *logState, from, to state) bool {
	if l.state != from {
		return false
	}
	l.state = to
	st.count(from, -1)
	st.count(to, 1)
	return true
}

func (st *Stats) count(s state, by int) {
	switch s {
	case armed:
		st.Armed += by
	case queued:
		st.Queued += by
	}
}

// leaveLocked takes a log out of its place and its state. The caller gives it new ones.
func (s *Scheduler) leaveLocked(i uint32, l *logState) {
	s.unplaceLocked(i, l)
	s.mu.stats.move(l, l.state, 0)
}

// unplaceLocked takes a log off whatever list it is on.
func (s *Scheduler) unplaceLocked(i uint32, l *logState) {
	switch l.place {
	case inSlot:
		sl := s.mu.slots[l.at]
		s.mu.table.unlink(&sl.logs, i)
		if l.state == queued {
			s.answeredLocked()
		}
		// The slot stays until its timer fires: its number may be armed again, and a timer must not be set twice.
	case inOutbox:
		s.mu.table.unlink(&s.mu.outbox, i)
	}
	l.place, l.at = 0, 0
}

// armLocked gives a log that is in no place its deadline.
func (s *Scheduler) armLocked(i uint32, l *logState, arrival, now time.Time) {
	if !s.mu.stats.move(l, 0, armed) {
		return
	}
	// The arrival's clock may be ahead of ours, or have been stepped: never wait longer than the delay from now. An
	// arrival long ago is due at once.
	delay := s.delayLocked(l)
	wait := min(max(delay-now.Sub(arrival.Round(0)), 0), delay)
	if l.collected = wait == 0 && s.mu.collecting; l.collected {
		wait = delay
		s.mu.collected++
	}
	l.due, l.odd = max(int64(now.Sub(s.start)+wait), 1), s.mu.odd
	s.placeLocked(i, l, s.dueSlotLocked(l, delay, now))
}

// queueLocked makes an idle or armed log ready.
func (s *Scheduler) queueLocked(i uint32, l *logState) {
	if l.state == armed {
		l.due = 0
	}
	s.unplaceLocked(i, l)
	if s.mu.stats.move(l, 0, queued) || s.mu.stats.move(l, armed, queued) {
		s.toOutboxLocked(i, l)
	}
}

func (s *Scheduler) toOutboxLocked(i uint32, l *logState) {
	l.place = inOutbox
	s.mu.table.push(&s.mu.outbox, i)
	signal(s.ready)
}

// awaitCommitLocked puts a log that the workers know of where it is found again if they never commit
// it: slot again, see requeueSlot.
func (s *Scheduler) awaitCommitLocked(i uint32, l *logState, again int64) {
	if l.state != queued {
		s.mu.stats.move(l, l.state, queued)
	}
	s.placeLocked(i, l, again)
	s.mu.awaiting++
}

// answeredLocked counts a log that no longer awaits its commit.
func (s *Scheduler) answeredLocked() {
	if s.mu.awaiting--; s.mu.outbox.head != 0 || len(s.mu.run.logs) > 0 {
		signal(s.ready)
	}
}
