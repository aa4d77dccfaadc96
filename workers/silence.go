package workers

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"dormouse/internal/shardid"
)

// errSilent means that the owner a work item speaks of is there, as far as the server knows, but does not answer.
var errSilent = errors.New("the owner does not answer")

const (
	maxUnanswered = 2    // requests of one batch, one after the other, after which its owner counts as silent
	silentFor     = 4    // request time-outs for which it is not asked then
	maxSilent     = 1024 // owners that are remembered
)

// ownerID names who owns a shard in one epoch.
type ownerID struct {
	shard shardid.Shard
	epoch uint64
}

// silence remembers for a while which owners did not answer, so that each of their items does not cost a worker the
// time-outs anew: a process that is frozen keeps its subscriptions, and its items come back until the queue drops them.
// When the while is over, one batch may ask the owner again; the others are turned away until that is answered.
//
// What lost: only to put such owners last in their fetch. The workers of a pool would still all end up waiting for
// them.
type silence struct {
	lasts time.Duration

	mu struct {
		sync.Mutex
		until map[ownerID]time.Time // at most maxSilent; an owner that answers is removed
	}
}

func newSilence(lasts time.Duration) *silence {
	s := &silence{lasts: lasts}
	s.mu.until = make(map[ownerID]time.Time)
	return s
}

// begin notes that an owner did not answer, and reports whether that is news.
func (s *silence) begin(o ownerID, now time.Time) (news bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, known := s.mu.until[o]
	if !known && len(s.mu.until) >= maxSilent {
		for other, until := range s.mu.until { // owners of whom no item came any more: their epochs are over
			if until.Before(now) {
				delete(s.mu.until, other)
			}
		}
	}
	if known || len(s.mu.until) < maxSilent {
		s.mu.until[o] = now.Add(s.lasts)
	}
	return !known
}

// end notes that an owner answered, or is gone, and reports whether that is news.
func (s *silence) end(o ownerID) (news bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, news = s.mu.until[o]
	delete(s.mu.until, o)
	return news
}

// known reports whether an owner did not answer when it was last asked.
func (s *silence) known(o ownerID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, known := s.mu.until[o]
	return known
}

// turnAway reports whether a batch of an owner is to be given back without asking. For the one that may ask it is
// false.
func (s *silence) turnAway(o ownerID, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	until, known := s.mu.until[o]
	if !known || now.Before(until) {
		return known
	}
	s.mu.until[o] = now.Add(s.lasts)
	return false
}

// unanswered notes that a request of a batch was not answered in time, and returns why the batch must be given up, or
// nil if it may ask once more.
func (p *Pool) unanswered(b *batch) error {
	b.unanswered++
	if b.unanswered < maxUnanswered && !p.silence.known(b.ownerID) {
		return nil
	}
	if p.silence.begin(b.ownerID, time.Now()) {
		p.cfg.Logger.Warn("an owner does not answer: its work items are given back for a while", "shard", b.shard, "epoch",
			b.epoch)
	}
	return fmt.Errorf("%w: shard %s, epoch %d", errSilent, b.shard, b.epoch)
}
