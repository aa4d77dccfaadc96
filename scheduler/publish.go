package scheduler

import (
	"cmp"
	"context"
	"encoding/binary"
	"slices"
	"strings"
	"time"

	"dormouse/internal/retry"
)

// publisher makes ready logs known to the workers. There are Config.Publishers of them, which share the outbox.
type publisher struct {
	s *Scheduler
	f flight // the batch in hand
}

// run takes batches off the outbox and publishes them until ctx is done. A batch that cannot be published goes back
// to the outbox, and the publisher pauses; the outbox itself is a list of states that exist anyway, so it needs no
// bound.
func (p *publisher) run(ctx context.Context) error {
	pause := retry.Patient()
	for {
		logs := p.takeBatch()
		if len(logs) == 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-p.s.ready:
			}
			continue
		}
		err := p.s.cfg.Publish(ctx, logs)
		p.landed(err == nil)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			p.s.queueing.Over()
			pause.Reset()
			continue
		}
		p.s.cfg.Metrics.failures.Inc()
		wait := pause.NextBackOff()
		p.s.queueing.Failed(err, "logs", len(logs))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// runLogs bounds how many logs are sorted together, and with that the memory it takes, about 70 bytes for each.
const runLogs = 1 << 18

// run is logs that were taken off the outbox together and are published in the order of their LogIDs. Workers drain
// what they get one after the other, so that logs that are neighbours in the buffer should be neighbours in the queue,
// and in the archive: reading a buffer of many logs in order costs a fraction of looking for each.
type run struct {
	number int64    // of the flight
	tables int      // how many tables there had been when it was taken
	states []uint32 // of the logs, in that table
	logs   []string // in the order of states
}

// flight is a batch of a run that a publisher has, and the memory for it, which serves the publisher's next batch too.
type flight struct {
	run
	late []time.Duration // of those that had a deadline, in no order
}

// takeBatch takes the next logs of the run, or of a new run off the outbox, as the batch in hand. It returns them in
// ascending order, in memory of their own; none when there is nothing to publish, the queue is full, or another
// publisher is about to have it.
func (p *publisher) takeBatch() []string {
	p.s.mu.Lock()
	if p.s.mu.awaiting >= p.s.cfg.QueueLogs { // the next commit wakes a publisher
		p.s.mu.Unlock()
		return nil
	}
	for len(p.s.mu.run.logs) == 0 {
		if p.s.mu.outbox.head == 0 || p.s.mu.sorting {
			p.s.mu.Unlock()
			return nil
		}
		taken := p.takeRunLocked()
		p.s.mu.sorting = true
		p.s.mu.Unlock()
		taken.sort()
		p.s.mu.Lock()
		p.s.mu.run, p.s.mu.sorting = taken, false
	}
	logs := p.takeOfRunLocked()
	more := len(p.s.mu.run.logs) > 0 || p.s.mu.outbox.head != 0
	p.s.mu.Unlock()
	if more {
		signal(p.s.ready) // there is work for another publisher
	}
	return logs
}

// takeRunLocked takes the logs that have waited longest off the outbox.
func (p *publisher) takeRunLocked() run {
	p.s.mu.flight++
	r := run{number: p.s.mu.flight, tables: p.s.mu.tables}
	for i := p.s.mu.outbox.head; i != 0 && len(r.logs) < runLogs; i = p.s.mu.outbox.head {
		l := p.s.mu.table.get(i)
		p.s.unplaceLocked(i, l)
		l.place, l.at = inFlight, r.number
		r.states, r.logs = append(r.states, i), append(r.logs, l.id)
	}
	return r
}

// takeOfRunLocked takes a batch off the run, without the logs that were committed or armed again since.
func (p *publisher) takeOfRunLocked() (logs []string) {
	r, f := &p.s.mu.run, &p.f
	f.number, f.tables = r.number, r.tables
	f.states, f.logs = f.states[:0], f.logs[:0]
	n := 0
	for ; n < len(r.logs) && len(f.logs) < p.s.cfg.BatchLogs; n++ {
		if _, ok := p.inFlightLocked(r, n); ok {
			f.states, f.logs = append(f.states, r.states[n]), append(f.logs, r.logs[n])
		}
	}
	if r.states, r.logs = r.states[n:], r.logs[n:]; len(r.logs) == 0 {
		*r = run{}
	}
	return append(logs, f.logs...)
}

// inFlightLocked returns the state of log n of a run, and whether it is still in this flight: no other state is in
// flight under the run's number, whomever it belongs to by now.
func (p *publisher) inFlightLocked(r *run, n int) (i uint32, ok bool) {
	i = r.states[n]
	if r.tables != p.s.mu.tables { // compacted meanwhile: the states have moved
		if i, ok = p.s.mu.table.index[r.logs[n]]; !ok {
			return 0, false
		}
	}
	l := p.s.mu.table.get(i)
	return i, l.place == inFlight && l.at == r.number
}

// landed takes the outcome of a batch. Logs that were committed or armed again meanwhile are in another place by now
// and stay there.
func (p *publisher) landed(ok bool) {
	now := time.Now()
	f := &p.f
	f.late = f.late[:0]
	p.landLocking(ok, now)
	for _, late := range f.late { // the histogram takes longer than all the rest, and no lock
		p.s.cfg.Metrics.lateness.Observe(late.Seconds())
	}
}

func (p *publisher) landLocking(ok bool, now time.Time) {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	f, again := &p.f, p.s.requeueSlot(now)
	for n := range f.states {
		i, still := p.inFlightLocked(&f.run, n)
		if !still {
			continue
		}
		l := p.s.mu.table.get(i)
		l.place, l.at = 0, 0
		if !ok {
			p.s.toOutboxLocked(i, l)
			continue
		}
		if l.due > 0 {
			f.late = append(f.late, max(now.Sub(p.s.start)-time.Duration(l.due), 0))
			l.due = 0
		}
		p.s.awaitCommitLocked(i, l, again)
	}
}

// sort puts the run into the order of the LogIDs. They begin alike; comparing the sixteen bytes behind that as numbers
// decides nearly always, and spares following two pointers for each comparison.
func (r *run) sort() {
	type keyed struct {
		high, low uint64
		log       string
		state     uint32
	}
	alike := len(r.logs[0])
	for _, log := range r.logs[1:] {
		n := 0
		for end := min(alike, len(log)); n < end && log[n] == r.logs[0][n]; n++ {
		}
		alike = n
	}
	all := make([]keyed, len(r.logs))
	for i, log := range r.logs {
		var key [16]byte
		copy(key[:], log[alike:])
		all[i] = keyed{binary.BigEndian.Uint64(key[:8]), binary.BigEndian.Uint64(key[8:]), log, r.states[i]}
	}
	slices.SortFunc(all, func(a, b keyed) int {
		if c := cmp.Compare(a.high, b.high); c != 0 {
			return c
		}
		if c := cmp.Compare(a.low, b.low); c != 0 {
			return c
		}
		return strings.Compare(a.log, b.log) // one may be longer, or end in zeros
	})
	for i := range all {
		r.logs[i], r.states[i] = all[i].log, all[i].state
	}
}
