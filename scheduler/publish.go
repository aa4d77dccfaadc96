package scheduler

import (
	"context"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// publish takes batches off the outbox and publishes them until ctx is done. A batch that cannot be published goes back to
// the outbox, and the publisher pauses; the outbox itself is a list of states that exist anyway, so it needs no bound.
func (s *Scheduler) publish(ctx context.Context) error {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 50*time.Millisecond, 5*time.Second
	for {
		flight, logs := s.takeBatch()
		if len(logs) == 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-s.ready:
			}
			continue
		}
		err := s.cfg.Publish(ctx, logs)
		s.landed(flight, logs, err == nil)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			pause.Reset()
			continue
		}
		s.cfg.Metrics.failures.Inc()
		wait := pause.NextBackOff()
		s.cfg.Logger.Warn("ready logs could not be queued; trying again", "logs", len(logs), "in", wait, "error", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// takeBatch takes the logs that have waited longest off the outbox, as batch number flight.
func (s *Scheduler) takeBatch() (flight int64, logs []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.outbox.head == 0 {
		return 0, nil
	}
	s.mu.flight++
	for i := s.mu.outbox.head; i != 0 && len(logs) < s.cfg.BatchLogs; i = s.mu.outbox.head {
		l := s.mu.table.get(i)
		s.unplaceLocked(i, l)
		l.place, l.at = inFlight, s.mu.flight
		logs = append(logs, l.id)
	}
	if s.mu.outbox.head != 0 {
		signal(s.ready) // there is work for another publisher
	}
	slices.Sort(logs)
	return s.mu.flight, logs
}

// landed takes the outcome of a batch. Logs that were committed or armed again meanwhile are in another place by now and
// stay there.
func (s *Scheduler) landed(flight int64, logs []string, ok bool) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, log := range logs {
		i, known := s.mu.table.index[log]
		if !known {
			continue
		}
		l := s.mu.table.get(i)
		if l.place != inFlight || l.at != flight {
			continue
		}
		l.place, l.at = 0, 0
		if !ok {
			s.toOutboxLocked(i, l)
			continue
		}
		if l.due > 0 {
			s.cfg.Metrics.lateness.Observe(max(now.Sub(s.start)-time.Duration(l.due), 0).Seconds())
			l.due = 0
		}
		s.awaitCommitLocked(i, l, now)
	}
}
