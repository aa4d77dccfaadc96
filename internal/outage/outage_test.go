package outage

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// lines is a log without times and levels.
type lines struct{ bytes.Buffer }

func (b *lines) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(&b.Buffer, &slog.HandlerOptions{ReplaceAttr: func(_ []string,
		a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

func (b *lines) expect(t *testing.T, want ...string) {
	t.Helper()
	if got := strings.TrimSuffix(b.String(), "\n"); got != strings.Join(want, "\n") {
		t.Errorf("logged:\n%s\nwant:\n%s", got, strings.Join(want, "\n"))
	}
	b.Reset()
}

var errDown = errors.New("down")

func TestBeginningMinutesAndEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lines
		l := New(log.logger(), "it fails", "it works")
		l.Over()
		log.expect(t, "")
		for range 250 { // every half second, for a little more than two minutes
			l.Failed(errDown, "shard", 3)
			time.Sleep(500 * time.Millisecond)
		}
		l.Over()
		l.Over()
		log.expect(t,
			`level=WARN msg="it fails" shard=3 error=down`,
			`level=WARN msg="it fails" shard=3 lasts=1m0s failures=120 error=down`,
			`level=WARN msg="it fails" shard=3 lasts=2m0s failures=120 error=down`,
			`level=INFO msg="it works" lasted=2m5s failures=9`)
	})
}

// TestEveryOtherTime: a service that answers every other time gets a line a minute, and no failure is left out of the
// count.
func TestEveryOtherTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lines
		l := New(log.logger(), "it fails", "it works")
		for range 90 {
			l.Failed(errDown)
			time.Sleep(time.Second)
			l.Over()
		}
		log.expect(t,
			`level=WARN msg="it fails" error=down`,
			`level=INFO msg="it works" lasted=1s`,
			`level=WARN msg="it fails" failures=60 error=down`,
			`level=INFO msg="it works" lasted=1s`)
	})
}

// TestTwoWithinAMinute: the second one is told of at its end, if it was more than a hitch.
func TestTwoWithinAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lines
		l := New(log.logger(), "it fails", "it works")
		for _, lasts := range []time.Duration{3 * time.Second, 4 * time.Second, 12 * time.Second} {
			l.Failed(errDown)
			time.Sleep(lasts)
			l.Over()
		}
		log.expect(t, `level=WARN msg="it fails" error=down`, `level=INFO msg="it works" lasted=3s`,
			`level=INFO msg="it works" lasted=12s failures=2`)
	})
}

// TestNobodyEndsIt: of what is never said to be over, a failure long after the last one is news.
func TestNobodyEndsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lines
		l := New(log.logger(), "it fails", "")
		l.Failed(nil)
		time.Sleep(time.Hour)
		l.Failed(errDown)
		time.Sleep(5 * time.Minute)
		l.Failed(errDown)
		log.expect(t, `level=WARN msg="it fails"`, `level=WARN msg="it fails" error=down`,
			`level=WARN msg="it fails" lasts=5m0s error=down`)
	})
}

func TestManyTryTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lines
		l := New(log.logger(), "it fails", "it works")
		var all sync.WaitGroup
		for range 16 {
			all.Go(func() {
				for range 30 {
					l.Failed(errDown)
					time.Sleep(time.Second)
				}
			})
		}
		all.Wait()
		l.Over()
		log.expect(t, `level=WARN msg="it fails" error=down`, `level=INFO msg="it works" lasted=30s failures=479`)
	})
}

func TestLongErrorsKeepBothEnds(t *testing.T) {
	const begins, ends = "operation error S3: PutObject, https response error StatusCode: 503",
		"api error SlowDown: Please reduce your request rate"
	long := begins + strings.Repeat(", tried again, größer", 60) + ": " + ends
	short := Short(long)
	if !strings.HasPrefix(short, begins) || !strings.HasSuffix(short, ends) || len(short) > mostText+40 ||
		!utf8.ValidString(short) {
		t.Errorf("%d bytes: %s", len(short), short)
	}
	if Short(begins) != begins {
		t.Error("a short one was changed")
	}
	var log lines
	New(log.logger(), "it fails", "").Failed(errors.New(long))
	if log.Len() > mostText+100 {
		t.Errorf("the line has %d bytes: %s", log.Len(), log.String())
	}
}

// TestParts: several that fail together are one outage, which begins with the first and is over with the last.
func TestParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got lines
		whole := New(got.logger(), "away", "back")
		a, b, c := whole.Part("shard", 0), whole.Part("shard", 1), whole.Part("shard", 2)
		c.Over() // it never failed
		a.Failed(errors.New("no"))
		b.Failed(errors.New("no"))
		a.Failed(errors.New("no"))
		time.Sleep(20 * time.Second)
		a.Over()
		a.Over()
		if !b.Lasts() || a.Lasts() || c.Lasts() {
			t.Errorf("which lasts: %v, %v, %v", a.Lasts(), b.Lasts(), c.Lasts())
		}
		if n := strings.Count(got.String(), "\n"); n != 1 || !strings.Contains(got.String(), "away") ||
			!strings.Contains(got.String(), "shard=0") {
			t.Errorf("while one still fails it says\n%s", &got)
		}
		b.Over()
		if text := got.String(); strings.Count(text, "\n") != 2 || !strings.Contains(text, "back") ||
			!strings.Contains(text, "lasted=20s") || !strings.Contains(text, "failures=2") {
			t.Errorf("at the end it says\n%s", &got)
		}
		b.Failed(errors.New("no"))
		if !b.Lasts() {
			t.Error("the next outage does not begin")
		}
	})
}
