package policies

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"dormouse/internal/outage"
	"dormouse/internal/policy"
	"dormouse/internal/retry"
)

// Watcher knows the policies in force, in one process. While it cannot read them those that it knows stay in force. It
// holds at most policy.MaxPatterns of them, and one watch.
type Watcher struct {
	js      jetstream.JetStream
	log     *slog.Logger
	reading *outage.Log // that the bucket cannot be read
	faulty  *outage.Log // that a policy in it cannot be read
	pause   time.Duration

	set   atomic.Pointer[policy.Set]
	known chan struct{} // closed once the policies were heard
	mu    struct {
		sync.Mutex
		changed chan struct{} // closed when set changes
		failed  error         // why they cannot be read now
		faults  []error       // in what was read
	}
}

const (
	// gather is how long a change waits for more, so that many of them are one.
	gather = 200 * time.Millisecond
	// anew is how often all is read again, whatever the watch says: one that has gone astray says nothing.
	anew = 5 * time.Minute
	// answerWithin bounds the wait for what there is when a watch begins.
	answerWithin = 10 * time.Second
)

// NewWatcher makes a watcher, which Run has to run.
func NewWatcher(js jetstream.JetStream, log *slog.Logger, reg prometheus.Registerer) *Watcher {
	w := &Watcher{js: js, log: log, known: make(chan struct{}), pause: anew,
		reading: outage.New(log, "the policies cannot be read; those that are known stay in force, trying again",
			"the policies are read again"),
		faulty: outage.New(log, "a policy cannot be read; nothing of its logs expires, and the flags of serve or a wider "+
			"pattern hold for the rest", "all policies can be read")}
	w.mu.changed = make(chan struct{})
	promauto.With(reg).NewGaugeFunc(prometheus.GaugeOpts{Name: "dormouse_policies",
		Help: "Policies in force in this process."}, func() float64 { return float64(w.Current().Len()) })
	return w
}

// Current returns the policies in force; nil are none.
func (w *Watcher) Current() *policy.Set { return w.set.Load() }

// Changed returns a channel that is closed when Current returns others than before the call.
func (w *Watcher) Changed() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.changed
}

// Await waits until the policies were heard for the first time, but not for longer than patience.
func (w *Watcher) Await(ctx context.Context, patience time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case <-w.known:
	case <-ctx.Done():
	}
}

// Remarks says what is wrong with the policies, for people.
func (w *Watcher) Remarks() (lines []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mu.failed != nil {
		what := "those that are known stay in force"
		if !w.isKnown() {
			what = "the flags of serve hold for all logs"
		}
		lines = append(lines, fmt.Sprintf("the policies cannot be read, %s: %s", what, outage.Short(w.mu.failed.Error())))
	}
	if n := len(w.mu.faults); n > 0 {
		lines = append(lines, fmt.Sprintf("%d policies cannot be read, nothing of their logs expires (see dormouse policy "+
			"ls): %s", n, outage.Short(w.mu.faults[0].Error())))
	}
	return lines
}

func (w *Watcher) isKnown() bool {
	select {
	case <-w.known:
		return true
	default:
		return false
	}
}

// Run keeps the policies up to date until ctx is done, with a new watch of the bucket each time that one ends. It
// returns nil then.
func (w *Watcher) Run(ctx context.Context) error {
	pause := retry.Patient()
	for {
		err := w.watch(ctx, pause.Reset)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			continue
		}
		w.fails(err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause.NextBackOff()):
		}
	}
}

// fails notes that the policies cannot be read.
func (w *Watcher) fails(err error) {
	w.reading.Failed(err)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.failed = err
	if errors.Is(err, ErrNoBucket) && !w.isKnown() { // there were never any
		close(w.known)
	}
}

var (
	errWatchEnded = errors.New("the watch ended")
	errSilent     = fmt.Errorf("the server did not tell what there is within %s", answerWithin)
)

// watch reads all policies and follows their changes, for so long that it is time to read all of them again. began is
// called when they were read.
func (w *Watcher) watch(ctx context.Context, began func()) error {
	bucket, err := Open(ctx, w.js)
	if err != nil {
		return err
	}
	watcher, err := bucket.kv.WatchAll(ctx)
	if err != nil {
		return err
	}
	defer end(watcher)
	heard := make(map[string]Kept)
	var gathered <-chan time.Time
	silent, over := time.After(answerWithin), time.After(w.pause)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-over:
			return nil
		case <-silent:
			return errSilent
		case <-gathered:
			gathered = nil
			if err := w.obey(heard); err != nil {
				return err
			}
		case entry, ok := <-watcher.Updates():
			switch {
			case !ok:
				return errWatchEnded
			case entry == nil: // all that there was has been told
				silent = nil
				if err := w.obey(heard); err != nil {
					return err
				}
				began()
				continue
			}
			if k := keptOf(entry); k.Removed {
				delete(heard, k.Key)
			} else if heard[k.Key] = k; len(heard) > policy.MaxPatterns {
				return ErrTooMany
			}
			if silent == nil && gathered == nil {
				gathered = time.After(gather)
			}
		}
	}
}

// obey puts what was heard in force.
func (w *Watcher) obey(heard map[string]Kept) error {
	all := make([]Kept, 0, len(heard))
	for _, k := range heard {
		all = append(all, k)
	}
	set, faults, err := InForce(all)
	if err != nil {
		return err
	}
	w.reading.Over()
	if len(faults) > 0 {
		w.faulty.Failed(faults[0], "policies", len(faults))
	} else {
		w.faulty.Over()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.failed, w.mu.faults = nil, faults
	if !set.Equal(w.set.Load()) {
		w.log.Info("policies are in force", "policies", set.Len())
		w.set.Store(set)
		close(w.mu.changed)
		w.mu.changed = make(chan struct{})
	}
	if !w.isKnown() { // last, for who awaits that looks at the set next
		close(w.known)
	}
	return nil
}
