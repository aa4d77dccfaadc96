package shard

import (
	"sync"
	"time"

	"dormouse/internal/wire"
)

// Concern is what a shard can be held up at.
type Concern int

// The concerns.
const (
	Taking     Concern = iota // entries in from the source stream
	Claiming                  // the shard
	Committing                // what is archived
	concerns
)

// String names it as a log line and readiness do.
func (c Concern) String() string { return concernNames[c] }

var concernNames = [concerns]string{"taking entries in", "claiming the shard", "committing what is archived"}

// Advance says whether a shard gets on at this node, over all its turns as the owner. Idle, back-pressure and another
// node's turn are no trouble. It costs nothing at rest: who works on the shard tells it what happens.
type Advance struct {
	mu struct {
		sync.Mutex
		since    [concerns]time.Time // it has been held up; zero: it is not
		why      [concerns]error     // the last failure, if there was one
		claimed  uint64              // the highest manifest record that a claim has come to
		full     bool                // the buffer is at its limit
		reported *wire.Stuck         // what was said of it, nil while it gets on
		unkept   error               // why something does not expire that is kept no longer
	}
}

// Expires notes what keeps something from expiring; nil: nothing does.
func (a *Advance) Expires(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.mu.unkept = err
}

// Unkept returns what keeps something from expiring, nil if nothing does.
func (a *Advance) Unkept() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.mu.unkept
}

// begins notes that the concern has something to do from now on, unless it has had already.
func (a *Advance) begins(c Concern) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.beginsLocked(c)
}

func (a *Advance) beginsLocked(c Concern) {
	if a.mu.since[c].IsZero() && !(c == Taking && a.mu.full) {
		a.mu.since[c] = time.Now()
	}
}

// moves notes that a part of it was done; what failed before may still be undone.
func (a *Advance) moves(c Concern) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.mu.since[c].IsZero() {
		a.mu.since[c] = time.Now()
	}
}

// Fails notes that it was tried in vain.
func (a *Advance) Fails(c Concern, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.beginsLocked(c)
	a.mu.why[c] = err
}

// Done notes that it got on, or has nothing left to do.
func (a *Advance) Done(c Concern) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.doneLocked(c)
}

func (a *Advance) doneLocked(c Concern) {
	a.mu.since[c], a.mu.why[c] = time.Time{}, nil
}

// claimedTo notes how far into the manifest a claim has come. One that fails there again and again does not get on.
func (a *Advance) claimedTo(record uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if record > a.mu.claimed {
		a.mu.claimed = record
		if !a.mu.since[Claiming].IsZero() {
			a.mu.since[Claiming] = time.Now()
		}
	}
}

// Reset notes that the shard is none of this node's business.
func (a *Advance) Reset() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for c := range concerns {
		a.doneLocked(c)
	}
	a.mu.full = false
}

// setFull notes whether the owner waits for room in its buffer.
func (a *Advance) setFull(full bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.mu.full = full
	a.doneLocked(Taking)
	if !full {
		a.beginsLocked(Taking) // perhaps there is nothing any more: that shows
	}
}

// IsFull reports whether the owner waits for room in its buffer.
func (a *Advance) IsFull() bool {
	if a == nil { // of a shard that is not run
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.mu.full
}

// Forgive takes a time out of account in which this process stood still itself: frozen, or without a processor.
func (a *Advance) Forgive(d time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for c, since := range a.mu.since {
		if !since.IsZero() {
			a.mu.since[c] = since.Add(d)
		}
	}
}

// HeldUp returns the concern that has been held up longest, if that is longer than patience.
func (a *Advance) HeldUp(patience time.Duration) (c Concern, since time.Time, why error, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, at := range a.mu.since {
		if !at.IsZero() && time.Since(at) > patience && (!ok || at.Before(since)) {
			c, since, why, ok = Concern(i), at, a.mu.why[i], true
		}
	}
	return c, since, why, ok
}

// Report notes what is said of the shard, nil when it gets on, and returns what was said before.
func (a *Advance) Report(s *wire.Stuck) (before *wire.Stuck) {
	a.mu.Lock()
	defer a.mu.Unlock()
	before, a.mu.reported = a.mu.reported, s
	return before
}

// Stuck returns what was last reported, nil if the shard got on since.
func (a *Advance) Stuck() *wire.Stuck {
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

// AheadError is a failure at a certain message of the source stream.
type AheadError struct {
	Seq     uint64
	Subject string
	Err     error
}

func (e AheadError) Error() string { return e.Err.Error() }

func (e AheadError) Unwrap() error { return e.Err }
