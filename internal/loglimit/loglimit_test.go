package loglimit

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// output is what was logged, by the timer's goroutine too.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

func TestSomeLinesASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out output
		log := slog.New(New(slog.NewTextHandler(&out, nil), 3))
		count := func(what string) int { return strings.Count(out.String(), what) }
		for range 1000 {
			log.With("a", 1).Error("again")
		}
		log.Info("chatter")
		if count("again") != 3 || count("chatter") != 1 || count("left out") != 0 {
			t.Fatalf("at first:\n%s", out.String())
		}
		time.Sleep(window)
		synctest.Wait()
		if count("left out\" count=997") != 1 {
			t.Fatalf("a second later:\n%s", out.String())
		}
		for range 10 { // as many as may be
			for range 3 {
				log.Warn("now and then")
			}
			time.Sleep(window)
		}
		if count("now and then") != 30 || count("left out") != 1 {
			t.Fatalf("later:\n%s", out.String())
		}
	})
}
