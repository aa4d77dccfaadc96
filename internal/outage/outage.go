// Package outage keeps the log short while something fails that is tried again and again: a line when it begins, one a
// minute while it lasts, and one when it is over.
//
// It tries nothing itself and starts no goroutine: whoever tries says how each try went. A failure that happens once,
// or for which somebody has to act, is logged by its own line instead.
package outage

import (
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
	"unicode/utf8"
)

const (
	every = time.Minute // the most often that an outage is spoken of
	// forgotten is how long after its last failure an outage that nobody ended is another one.
	forgotten = 10 * every
	// long is an outage that gets a line at its end even if there was none when it began.
	long = 10 * time.Second
)

// Log speaks of one thing that may fail. Its methods may be called from any goroutine, by several that try the same
// thing.
type Log struct {
	log           *slog.Logger
	fails, passes string

	whole *Log  // that this is a part of, see Part
	args  []any // of a part: what its failures are told with

	mu struct {
		sync.Mutex
		parts  map[*Log]bool // that fail
		began  time.Time     // of the outage; zero while all is well
		last   time.Time     // of its last failure
		begun  bool          // the log has a line that it began
		spoken time.Time     // when the log last had a line that something fails
		failed int           // failures that no line has counted
	}
}

// New makes one. fails is what the log says of a failure, passes what it says when it is over.
func New(log *slog.Logger, fails, passes string) *Log {
	return &Log{log: log, fails: fails, passes: passes}
}

// Part returns the Log of one of several that fail together, such as the shards of a process when JetStream is away.
// The outage begins with the first of them and is over with the last. Its failures are told with args. Parts must be as
// few as what they are of, and each must end well or be forgotten with the whole.
func (l *Log) Part(args ...any) *Log { return &Log{whole: l, args: args} }

// Failed notes a failure; args are what slog takes. A nil error has no text of its own.
//
// What fails again within a minute of the last line gets none of its own: a service that answers every other time would
// fill the log with beginnings and ends. It is counted in the next line.
func (l *Log) Failed(err error, args ...any) {
	if l.whole != nil {
		l.whole.failing(l)
		l.whole.Failed(err, slices.Concat(l.args, args)...)
		return
	}
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.began.IsZero() || now.Sub(l.mu.last) >= forgotten {
		l.mu.began, l.mu.begun = now, false
	}
	l.mu.last = now
	l.mu.failed++
	if !l.mu.spoken.IsZero() && now.Sub(l.mu.spoken) < every {
		return
	}
	if lasts := now.Sub(l.mu.began); lasts > 0 {
		args = append(args, "lasts", rounded(lasts))
	}
	if l.mu.failed > 1 {
		args = append(args, "failures", l.mu.failed)
	}
	if err != nil {
		args = append(args, "error", Short(err.Error()))
	}
	l.mu.spoken, l.mu.begun, l.mu.failed = now, true, 0
	l.log.Warn(l.fails, args...)
}

// Over notes a success. It costs next to nothing while all is well.
func (l *Log) Over(args ...any) {
	if l.whole != nil {
		if l.whole.passed(l) {
			l.whole.Over(args...)
		}
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.began.IsZero() {
		return
	}
	lasted := time.Since(l.mu.began)
	l.mu.began = time.Time{}
	if !l.mu.begun && lasted < long {
		return // its failures are counted in the next line
	}
	args = append(args, "lasted", rounded(lasted))
	if l.mu.failed > 0 {
		args = append(args, "failures", l.mu.failed)
	}
	l.mu.failed = 0
	l.log.Info(l.passes, args...)
}

// Lasts reports whether the last try failed.
func (l *Log) Lasts() bool {
	if l.whole != nil {
		l.whole.mu.Lock()
		defer l.whole.mu.Unlock()
		return l.whole.mu.parts[l]
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.mu.began.IsZero()
}

// failing notes that a part fails.
func (l *Log) failing(part *Log) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.parts == nil {
		l.mu.parts = make(map[*Log]bool)
	}
	l.mu.parts[part] = true
}

// passed notes that a part fails no more, and reports whether it was the last of them.
func (l *Log) passed(part *Log) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.mu.parts[part] {
		return false
	}
	delete(l.mu.parts, part)
	return len(l.mu.parts) == 0
}

// rounded is a duration as people want to read it.
func rounded(d time.Duration) time.Duration {
	if d < time.Second {
		return d.Round(time.Millisecond)
	}
	return d.Round(100 * time.Millisecond)
}

// A text that is longer than mostText keeps its beginning, which says what was done, and its end, which says why it
// failed: error code, address and cause come last in what NATS and the SDKs of buckets say.
const (
	mostText = 320 // bytes
	headText = 100
)

// Short returns a text without its middle if it is longer than 320 bytes.
func Short(text string) string {
	if len(text) <= mostText {
		return text
	}
	head, tail := headText, len(text)-(mostText-headText)
	for !utf8.RuneStart(text[head]) {
		head--
	}
	for !utf8.RuneStart(text[tail]) {
		tail++
	}
	return fmt.Sprintf("%s [%d bytes left out] %s", text[:head], tail-head, text[tail:])
}
