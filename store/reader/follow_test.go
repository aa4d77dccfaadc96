package reader

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"dormouse/internal/entry"
)

// follow reads from m until a time, which lies ahead: a synctest bubble begins in the year 2000.
func follow(ctx context.Context, m *model, tail Tail, to time.Time) (got []entry.Entry, err error) {
	err = (&Reader{Owner: m, Segments: m, Tail: tail}).Read(ctx, Query{Log: theLog, Follow: true, ToTime: to},
		func(e entry.Entry) error {
			got = append(got, e)
			return nil
		})
	return got, err
}

// TestSeamFollowingUntilATime is TestSeamFollowing for a read that ends when an entry shows that its time is over.
// Where times do not ascend, it may end before later entries that it wants, but never lacks one before others.
func TestSeamFollowingUntilATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for seed := range uint64(seeds) {
			m := newModel(seed)
			if seed%2 == 1 {
				m.skew = 5
			}
			to := timeOf(m.rand.Uint64N(60))
			ctx, cancel := context.WithCancel(t.Context())
			got, err := follow(ctx, m, &impatient{model: m, cancel: cancel}, to)
			cancel()
			isLate := func(e entry.Entry) bool { return e.Time.After(to) }
			mayEnd := slices.ContainsFunc(m.log, isLate)
			mustEnd := slices.ContainsFunc(m.log, func(e entry.Entry) bool { return isLate(e) && !m.lost[e.Seq] })
			must := len(m.log) // up to where it may lack nothing
			if err == nil && m.skew > 0 {
				must = slices.IndexFunc(m.log, isLate)
			}
			if err == nil && mayEnd || errors.Is(err, context.Canceled) && !mustEnd {
				err = m.judge(got, must, func(e entry.Entry) bool { return !isLate(e) })
			} else {
				err = fmt.Errorf("the read ended with %w", err)
			}
			if err != nil {
				t.Fatalf("seed %d, until %s: %v\ngot %v of %v, up to index %d\n%v", seed, to, err, seqs(got), seqs(m.log), must,
					m.trace)
			}
		}
	})
}

// still is a model in which nothing happens by itself.
func still(seed uint64, times ...time.Time) *model {
	m := emptyModel(seed, 2)
	m.calm = true
	for _, at := range times {
		m.last++
		m.log = append(m.log, entry.Entry{Log: theLog, Seq: m.last, Time: at})
	}
	return m
}

// TestFollowEndsAfterWhatIsThere: the stream's times go back once, and the entry behind the one that is too late is
// wanted.
func TestFollowEndsAfterWhatIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for seed := range uint64(100) {
			m := still(seed, timeOf(1), timeOf(9), timeOf(2), timeOf(9))
			if got, err := follow(t.Context(), m, m, timeOf(3)); err != nil || !slices.Equal(seqs(got), []uint64{1, 3}) {
				t.Fatalf("seed %d: got %v, %v", seed, got, err)
			}
		}
	})
}

// quiet is a Tail on which nothing comes while it is waited for.
type quiet struct {
	*model
	end func() // the wait is over
}

func (q quiet) Fetch(ctx context.Context, log string, after uint64, wait bool) ([]entry.Entry, error) {
	if len(q.log) > 0 && q.log[len(q.log)-1].Seq > after || !wait {
		return q.model.Fetch(ctx, log, after, wait)
	}
	<-ctx.Done()
	q.end()
	return nil, fmt.Errorf("waiting: %w", ctx.Err())
}

// TestFollowEndsAtItsTime: nothing comes, and the read ends when its time has passed, with what came at the last
// moment.
func TestFollowEndsAtItsTime(t *testing.T) {
	for name, atLast := range map[string]bool{"nothing": false, "an entry at the last moment": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := still(1, time.Now())
				to := time.Now().Add(time.Hour)
				want := []uint64{1}
				tail := quiet{m, func() {}}
				if atLast {
					want = append(want, 2)
					tail.end = func() {
						m.last = max(m.last+1, 2)
						m.log = append(m.log, entry.Entry{Log: theLog, Seq: m.last, Time: to})
						want[1] = m.last
						m.owner = modelOwner{applied: m.last, buffered: m.log}
					}
				}
				got, err := follow(t.Context(), m, tail, to)
				if err != nil || !slices.Equal(seqs(got), want) || time.Now().Before(to) || time.Since(to) > time.Second {
					t.Fatalf("got %v, want %v, ended %s after its time, %v", got, want, time.Since(to), err)
				}
			})
		})
	}
}

// TestFollowIsInterrupted: that a wait may end with the query's time hides no interrupt.
func TestFollowIsInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		m := still(1, time.Now())
		got, err := follow(ctx, m, quiet{m, func() {}}, time.Now().Add(time.Hour))
		if !errors.Is(err, context.DeadlineExceeded) || len(got) != 1 {
			t.Fatalf("got %v, %v", got, err)
		}
	})
}

// TestTimesBeyondNanoseconds: a bound may be a year that Unix nanoseconds cannot express.
func TestTimesBeyondNanoseconds(t *testing.T) {
	m := still(1, timeOf(1), timeOf(2))
	m.sent, m.flying = m.last, m.log
	for m.owner.applied < m.last {
		m.takeIn()
	}
	m.commit()
	n := 0
	q := Query{Log: theLog, FromTime: time.Date(1000, 1, 1, 0, 0, 0, 0, time.UTC),
		ToTime: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)}
	err := m.reader().Read(t.Context(), q, func(entry.Entry) error { n++; return nil })
	if err != nil || n != 2 {
		t.Fatalf("%d entries, %v", n, err)
	}
}
