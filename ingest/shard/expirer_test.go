package shard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"dormouse/internal/extent"
	"dormouse/store/manifest"
	"dormouse/store/tree"
)

// expiry is a shard on which an object is committed each hour, and merges and rewrites take no time. Each hour has so
// many bytes.
type expiry struct {
	t       *testing.T
	e       *expirer
	keep    Keep
	record  uint64
	written uint64 // bytes that merges and rewrites have written
	dropped int    // objects that were dropped unread
}

const hourly = 1000

func newExpiry(t *testing.T, keep time.Duration) *expiry {
	l := newLedger(nil, nil, nil)
	return &expiry{t: t, e: &expirer{ledger: l}, keep: Keep{Logs: "a.>", For: keep}}
}

func (x *expiry) become(next tree.Tree, err error) {
	x.t.Helper()
	if err == nil {
		err = next.Validate()
	}
	if err != nil {
		x.t.Fatal(err)
	}
	x.e.ledger.mu.tree = next
}

// hours is what has been written from one time to another one.
func hours(key string, from, to time.Time) extent.Summary {
	long := to.Sub(from).Hours()
	s := extent.Summarize(extent.Segment{Key: key, Size: uint64(long * hourly)}, []extent.Extent{{Log: "a.b",
		First: uint64(from.Unix()), Last: uint64(to.Unix()) - 1, Count: 2, MinTime: from.UnixNano(),
		MaxTime: to.UnixNano() - 1}})
	s.Bytes = s.Object.Size
	return s
}

// hour commits an object, merges what is to be merged, and has expire what is due.
func (x *expiry) hour(now time.Time) {
	x.t.Helper()
	x.record++
	x.become(x.e.ledger.mu.tree.Commit(x.record, []extent.Summary{hours(fmt.Sprint(x.record), now.Add(-time.Hour), now)}))
	x.e.ledger.mu.pos.Applied = uint64(now.Unix())
	if c, ok := x.e.due(x.keep, now.Add(time.Hour)); ok {
		x.record++
		x.become(x.e.ledger.mu.tree.Cut(x.record, c))
	}
	x.become(x.e.ledger.mu.tree.Settle(uint64(now.Unix()), now.Add(time.Hour)), nil) // as each record does
	for _, runs := range x.e.ledger.mu.tree.Plan(tree.Defaults, false, func(uint8) bool { return false }) {
		x.replace(tree.Inputs(runs), slices.Collect(func(yield func(extent.Summary) bool) {
			for _, r := range runs {
				for _, s := range r.Segments {
					if !yield(s) {
						return
					}
				}
			}
		}))
	}
	for u := range x.e.ledger.mu.tree.Uncut() {
		if u.Whole {
			x.dropped++
		}
		x.replace([]string{u.Segment.Object.Key}, []extent.Summary{u.Segment})
	}
}

// replace writes what the cuts leave of segments that follow each other.
func (x *expiry) replace(inputs []string, segments []extent.Summary) {
	x.t.Helper()
	live := x.e.ledger.mu.tree
	from := time.Unix(0, segments[0].MinTime)
	to := time.Unix(0, segments[len(segments)-1].MaxTime+1)
	cuts, newest := live.Touching(segments)
	for _, c := range cuts {
		from = time.Unix(0, max(from.UnixNano(), c.Before))
	}
	x.record++
	var outputs []extent.Summary
	if from.Before(to) {
		out := hours(fmt.Sprintf("m%d", x.record), from, to)
		out.Cut = newest
		outputs = []extent.Summary{out}
		x.written += out.Object.Size
	}
	next, _, err := live.Replace(tree.Replacement{Inputs: inputs, Outputs: outputs})
	x.become(next, err)
}

// TestExpiryLeavesTheBucket: what has expired is at most a quarter of what has not, what is read of it at most an
// hour's, and it costs few bytes that are written again.
func TestExpiryLeavesTheBucket(t *testing.T) {
	for _, days := range []int{7, 30} {
		t.Run(fmt.Sprint(days, " days"), func(t *testing.T) { expire(t, time.Duration(days)*24*time.Hour) })
	}
}

func expire(t *testing.T, keep time.Duration) {
	x := newExpiry(t, keep)
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var worst float64
	hours := 8 * int(keep.Hours())
	for n := range hours {
		now = now.Add(time.Hour)
		x.hour(now)
		live := x.e.ledger.mu.tree
		if n < int(keep.Hours())+24 {
			continue
		}
		_, bytes := live.Segments()
		worst = max(worst, float64(bytes)/(keep.Hours()*hourly))
		expired := now.Add(-keep - time.Hour - time.Minute)
		if !live.Cuts().Have("a.b", uint64(expired.Unix()), expired.UnixNano()) {
			t.Fatalf("after %d hours what is older than a week and an hour is read", n)
		}
		kept := now.Add(-keep + time.Minute)
		if live.Cuts().Have("a.b", uint64(kept.Unix()), kept.UnixNano()) {
			t.Fatalf("after %d hours what is younger than a week is not read", n)
		}
		if len(live.Cuts()) > 2 {
			t.Fatalf("there are %d cuts", len(live.Cuts()))
		}
	}
	amplification := float64(x.written) / float64(hours*hourly)
	t.Logf("space amplification %.2f at most; written again %.2f times; %d objects were dropped unread", worst,
		amplification, x.dropped)
	if worst > 1.3 || amplification > 4 {
		t.Errorf("space amplification %.2f, written again %.2f times", worst, amplification)
	}
}

// TestExpiryAndClocks: neither a clock that is ahead nor rest lets anything expire, and one that is behind less.
func TestExpiryAndClocks(t *testing.T) {
	x := newExpiry(t, 10*time.Hour)
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 20 {
		at := begin.Add(time.Duration(i) * time.Hour)
		x.record++
		x.become(x.e.ledger.mu.tree.Commit(x.record, []extent.Summary{hours(fmt.Sprint(i), at, at.Add(time.Hour))}))
	}
	end := begin.Add(20 * time.Hour)
	x.e.ledger.mu.pos.Applied = uint64(end.Unix())
	for name, tc := range map[string]struct{ now, before time.Time }{
		"in time":     {end, end.Add(-10 * time.Hour)},
		"years ahead": {end.AddDate(9, 0, 0), end.Add(-10 * time.Hour)},
		"behind":      {end.Add(-5 * time.Hour), end.Add(-15 * time.Hour)},
	} {
		c, ok := x.e.due(x.keep, tc.now)
		if got := time.Unix(0, c.Before+1).UTC(); !ok || got.Sub(tc.before).Abs() > time.Second || c.Lazy || !c.Kept {
			t.Errorf("%s: %+v before %s, want %s", name, c, got, tc.before)
		}
	}
	if c, ok := x.e.due(x.keep, begin.Add(5*time.Hour)); ok {
		t.Errorf("nothing is so old, and cut is %+v", c)
	}
	c, _ := x.e.due(x.keep, end)
	x.record++
	x.become(x.e.ledger.mu.tree.Cut(x.record, c))
	if c, ok := x.e.due(x.keep, end.Add(48*time.Hour)); ok {
		t.Errorf("nothing was written since, and cut is %+v", c)
	}
	if c, ok := x.e.due(Keep{Logs: "b.>", For: time.Hour}, end); ok {
		t.Errorf("there is no such log, and cut is %+v", c)
	}
}

// TestWhatCannotExpireShows, keeps nothing else from expiring, and is over when there is room.
func TestWhatCannotExpireShows(t *testing.T) {
	x := newExpiry(t, 10*time.Hour)
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 20 {
		at := begin.Add(time.Duration(i) * time.Hour)
		x.record++
		x.become(x.e.ledger.mu.tree.Commit(x.record, []extent.Summary{hours(fmt.Sprint(i), at, at.Add(time.Hour))}))
	}
	x.e.ledger.mu.pos.Applied = uint64(begin.Add(20 * time.Hour).Unix())
	full, advance := true, &Advance{}
	var cut []string
	x.e.expires, x.e.failing = advance.Expires, NewOutages(slog.New(slog.DiscardHandler)).expire
	x.e.record = func(_ context.Context, c extent.Cut) error {
		if full && c.Logs == "a.>" {
			return fmt.Errorf("%w: no room", tree.ErrInvalid)
		}
		cut = append(cut, c.Logs)
		return nil
	}
	keeps := []Keep{x.keep, {Logs: "a.b", For: time.Hour}}
	if err := x.e.look(t.Context(), keeps); err != nil || !errors.Is(advance.Unkept(), tree.ErrInvalid) ||
		!slices.Equal(cut, []string{"a.b"}) {
		t.Errorf("without room: %v, shown %v, cut %q", err, advance.Unkept(), cut)
	}
	full = false
	if err := x.e.look(t.Context(), keeps); err != nil || advance.Unkept() != nil || len(cut) != 3 {
		t.Errorf("with room: %v, shown %v, cut %q", err, advance.Unkept(), cut)
	}
	x.e.record = func(context.Context, extent.Cut) error { return manifest.ErrFenced }
	if err := x.e.look(t.Context(), keeps); !errors.Is(err, manifest.ErrFenced) {
		t.Errorf("fenced: %v", err)
	}
}
