package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"dormouse/internal/outage"
	"dormouse/internal/wire"
)

// check is one condition of readiness.
type check struct {
	name string
	run  func(context.Context) error
}

// The checks that concern the bucket; others see that in `dormouse status`.
var bucketChecks = []string{"archive", "puts"}

// failure is a check that failed.
type failure struct {
	check string
	error
}

func (f failure) Unwrap() error { return f.error }
func (f failure) Error() string { return f.check + ": " + f.error.Error() }

// health looks whether the process is ready. Those who ask at the same time, or soon after each other, share one look,
// so that probes cost the bucket little.
type health struct {
	checks []check

	turn chan struct{} // cap 1: held by the one that looks
	mu   struct {
		sync.Mutex
		at     time.Time // of the last look
		failed []failure
		closed bool
	}
	looks sync.WaitGroup // that nobody waits for
	end   context.CancelFunc
	ctx   context.Context
}

func newHealth(checks []check) *health {
	h := &health{checks: checks, turn: make(chan struct{}, 1)}
	h.ctx, h.end = context.WithCancel(context.Background())
	return h
}

// problem says what keeps the process from being ready.
func (h *health) problem() error {
	var errs []error
	for _, f := range h.look() {
		errs = append(errs, f)
	}
	return errors.Join(errs...)
}

// look returns what failed in a look that is at most readyCache old.
func (h *health) look() []failure {
	h.turn <- struct{}{}
	defer func() { <-h.turn }()
	if failed, ok := h.known(); ok {
		return failed
	}
	ctx, cancel := context.WithTimeout(h.ctx, readyTimeout)
	defer cancel()
	var failed []failure
	for _, c := range h.checks {
		if err := c.run(ctx); err != nil {
			failed = append(failed, failure{c.name, err})
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.at, h.mu.failed = time.Now(), failed
	return failed
}

func (h *health) known() (failed []failure, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mu.failed, !h.mu.at.IsZero() && time.Since(h.mu.at) < readyCache
}

// lookFor is look for those who cannot wait for more than that. ok is false when it takes longer: the look goes on, and
// who asks again at once after readyTimeout has what it found.
func (h *health) lookFor(wait time.Duration) (failed []failure, ok bool) {
	if failed, ok := h.known(); ok {
		return failed, true
	}
	h.mu.Lock()
	if h.mu.closed {
		h.mu.Unlock()
		return nil, false
	}
	done := make(chan struct{})
	h.looks.Go(func() { defer close(done); h.look() })
	h.mu.Unlock()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-done:
		return h.known()
	case <-timer.C:
		return nil, false
	}
}

// close ends looks that are under way.
func (h *health) close() {
	h.mu.Lock()
	h.mu.closed = true
	h.mu.Unlock()
	h.end()
	h.looks.Wait()
}

// tell fills in what a process says of its health when it is asked for its status.
func (h *health) tell(p *wire.Process) {
	failed, ok := h.lookFor(healthWait)
	p.Looking = !ok
	var bucket, other []string
	for _, f := range failed {
		if slices.Contains(bucketChecks, f.check) {
			bucket = append(bucket, inALine(f.error))
		} else {
			other = append(other, inALine(f))
		}
	}
	p.Bucket, p.NotReady = strings.Join(bucket, "; "), strings.Join(other, "; ")
}

// inALine is the text of an error, which may be several of them.
func inALine(err error) string {
	return outage.Short(strings.ReplaceAll(redact(err.Error()), "\n", "; "))
}

// healthWait is well below the time that who asks for the status waits for one more answer.
const healthWait = 100 * time.Millisecond
