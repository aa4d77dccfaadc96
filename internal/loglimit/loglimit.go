// Package loglimit keeps a log readable, and its disk free, while something repeats itself: so many warnings and errors
// in a second, and then one line that says how many were left out.
//
// It does not look at what the lines say. For one thing that fails and is tried again, something that knows when that
// is over says more with less.
package loglimit

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// window is the time in which so many lines may be logged.
const window = time.Second

type handler struct {
	slog.Handler
	*state
}

// state is shared by all handlers that come from one.
type state struct {
	most int
	out  slog.Handler // where the number of lines left out goes

	mu    sync.Mutex
	began time.Time // of the window
	lines int       // logged in the window
	left  int       // left out in the window; above 0 a timer is set for its end
}

// New returns a handler that passes most lines in a second on to out, and all that are below a warning.
func New(out slog.Handler, most int) slog.Handler {
	return &handler{out, &state{most: most, out: out}}
}

func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelWarn && !h.admit(time.Now()) {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &handler{h.Handler.WithAttrs(attrs), h.state}
}

func (h *handler) WithGroup(name string) slog.Handler {
	return &handler{h.Handler.WithGroup(name), h.state}
}

// admit reports whether a line may be logged now.
func (s *state) admit(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left == 0 && now.Sub(s.began) >= window {
		s.began, s.lines = now, 0
	}
	if s.lines < s.most {
		s.lines++
		return true
	}
	if s.left++; s.left == 1 {
		time.AfterFunc(window-now.Sub(s.began), s.end)
	}
	return false
}

// end ends a window in which lines were left out, and says how many.
func (s *state) end() {
	s.mu.Lock()
	left := s.left
	s.left, s.lines, s.began = 0, 0, time.Now()
	s.mu.Unlock()
	slog.New(s.out).Warn("messages like the last ones were left out", "count", left)
}
