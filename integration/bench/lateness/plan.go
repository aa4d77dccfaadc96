package lateness

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"
)

// plan is the deadlines of a measurement, and the observer that is called when they are served. All of its memory is
// there before the measurement begins: the observer allocates nothing, and leaves all that can wait to lateness.
type plan struct {
	names  []string        // LogIDs in the order of arming; each ends in its number
	offset []time.Duration // in the order of arming: deadline after first
	order  []int           // by number: position in the order of arming
	lead   time.Duration
	spread time.Duration
	first  time.Time // the first deadline, set by begin

	calls  []call        // in the order of the observer's calls
	called atomic.Int64  // calls in use, or more if a log was served twice
	served chan struct{} // closed when all calls are
}

// call is one log that the observer was called with.
type call struct {
	log string
	at  time.Duration // after the first deadline
}

// nameDigits is the length of the number that a LogID ends in.
const nameDigits = 9

func newPlan(logs int, spread time.Duration) *plan {
	p := &plan{
		names: make([]string, logs), offset: make([]time.Duration, logs), order: make([]int, logs),
		lead: leadBase + time.Duration(logs)*leadPerLog, spread: spread,
		calls: make([]call, logs), served: make(chan struct{}),
	}
	for i, n := range shuffled(logs) {
		p.names[i] = fmt.Sprintf("tenant%03d.log%0*d", n%1000, nameDigits, n)
		p.offset[i] = time.Duration(float64(spread) * float64(i) / float64(logs))
		p.order[n] = i
	}
	return p
}

// begin fixes the deadlines and returns the moment from which they count.
func (p *plan) begin() time.Time {
	now := time.Now()
	p.first = now.Add(p.lead)
	return now
}

// due returns the deadline of the log that is armed as number i.
func (p *plan) due(i int) time.Time { return p.first.Add(p.offset[i]) }

// serve is the observer: it takes logs that became ready at the moment now. It may be called by many at a time.
func (p *plan) serve(now time.Time, logs ...string) {
	at := now.Sub(p.first)
	end := int(p.called.Add(int64(len(logs))))
	for i, log := range logs {
		if slot := end - len(logs) + i; slot < len(p.calls) {
			p.calls[slot] = call{log, at}
		}
	}
	if end >= len(p.calls) && end-len(logs) < len(p.calls) {
		close(p.served)
	}
}

// wait returns when all logs were served. armed is when the last one had been armed.
func (p *plan) wait(ctx context.Context, armed time.Time) error {
	if over := armed.Sub(p.first); over > 0 {
		return fmt.Errorf("arming ended %s after the first deadline", over)
	}
	giveUp := time.NewTimer(time.Until(p.first) + p.spread + patience)
	defer giveUp.Stop()
	select {
	case <-p.served:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-giveUp.C:
		return fmt.Errorf("there were %d calls for %d logs", p.called.Load(), len(p.calls))
	}
}

// lateness returns how late each log was, in no order. It is called when the design has ended, so that a second call
// for the last log is seen too.
func (p *plan) lateness() ([]time.Duration, error) {
	if n := p.called.Load(); n != int64(len(p.calls)) {
		return nil, fmt.Errorf("there were %d calls for %d logs", n, len(p.calls))
	}
	late := make([]time.Duration, 0, len(p.calls))
	seen := make([]bool, len(p.calls))
	for _, c := range p.calls {
		n, err := strconv.Atoi(c.log[len(c.log)-nameDigits:])
		if err != nil {
			return nil, fmt.Errorf("served %q, which was never armed: %w", c.log, err)
		}
		if seen[n] {
			return nil, errors.New("a log was served twice")
		}
		seen[n] = true
		late = append(late, c.at-p.offset[p.order[n]])
	}
	return late, nil
}
