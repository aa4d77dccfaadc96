package bucket

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

const (
	failingPuts = 3               // in a row, after which puts count as failing: one or two are a hiccup
	failingFor  = 5 * time.Minute // after the last of them; who has something to put tries again far sooner
)

// Puts knows how the puts of a process fare: a bucket may answer every question and refuse every put. It is for any
// number of goroutines.
type Puts struct {
	failures prometheus.Counter

	mu struct {
		sync.Mutex
		inRow       int // failures since the last success
		since, last time.Time
		err         error // of the last
	}
}

// NewPuts makes it with its metrics, and registers those; with a nil Registerer they are kept but not exposed.
func NewPuts(reg prometheus.Registerer) *Puts {
	p := &Puts{}
	f := promauto.With(reg)
	p.failures = f.NewCounter(prometheus.CounterOpts{Name: "dormouse_put_failures_total",
		Help: "Puts into the bucket, of segments and checkpoints, that failed; they are tried again."})
	f.NewGaugeFunc(prometheus.GaugeOpts{Name: "dormouse_puts_failing",
		Help: "1 while the bucket takes nothing: the last puts failed, see /readyz."}, func() float64 {
		if p.Failing() != nil {
			return 1
		}
		return 0
	})
	return p
}

// Note hears how a put ended. One that was called off says nothing of the bucket.
func (p *Puts) Note(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case err == nil:
		p.mu.inRow = 0
	case !errors.Is(err, context.Canceled):
		p.failures.Inc()
		p.mu.last, p.mu.err = time.Now(), err
		if p.mu.inRow++; p.mu.inRow == 1 {
			p.mu.since = p.mu.last
		}
	}
}

// Failing returns nil, or what is wrong when the last puts have failed.
func (p *Puts) Failing() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.inRow < failingPuts || time.Since(p.mu.last) > failingFor {
		return nil
	}
	return fmt.Errorf("nothing is archived: the last %d puts failed, since %s: %w", p.mu.inRow,
		p.mu.since.UTC().Format(time.RFC3339), p.mu.err)
}
