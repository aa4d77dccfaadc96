package ingest

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"dormouse/internal/wire"
)

// TestAdvance: the clock of what is held up begins when there is something to do, and again with every part that gets done; what is
// tried again and again does not set it back.
func TestAdvance(t *testing.T) {
	const step = time.Second
	failed := errors.New("failed")
	for name, tc := range map[string]struct {
		happens func(a *advance, wait func())
		steps   int // since when it is held up; -1: it is not
		c       concern
		why     error
	}{
		"nothing":             {func(*advance, func()) {}, -1, 0, nil},
		"begun once":          {func(a *advance, wait func()) { a.begins(taking) }, 1, taking, nil},
		"begun again":         {func(a *advance, wait func()) { a.begins(taking); wait(); a.begins(taking) }, 2, taking, nil},
		"fails without begin": {func(a *advance, wait func()) { a.fails(claiming, failed) }, 1, claiming, failed},
		"fails again":         {func(a *advance, wait func()) { a.fails(claiming, nil); wait(); a.fails(claiming, failed) }, 2, claiming, failed},
		"a part was done":     {func(a *advance, wait func()) { a.fails(taking, failed); wait(); a.moves(taking) }, 1, taking, failed},
		"nothing to be done":  {func(a *advance, wait func()) { a.moves(taking) }, -1, 0, nil},
		"done":                {func(a *advance, wait func()) { a.fails(taking, failed); wait(); a.done(taking) }, -1, 0, nil},
		"done and begun":      {func(a *advance, wait func()) { a.fails(taking, failed); a.done(taking); wait(); a.begins(taking) }, 1, taking, nil},
		"another node's":      {func(a *advance, wait func()) { a.fails(taking, failed); a.fails(claiming, failed); a.reset() }, -1, 0, nil},
		"two, by age": {func(a *advance, wait func()) {
			a.begins(committing)
			wait()
			a.fails(taking, failed)
		}, 2, committing, nil},
		"two, the other way": {func(a *advance, wait func()) {
			a.fails(taking, failed)
			wait()
			a.begins(committing)
		}, 2, taking, failed},
		"the claim gets on":           {func(a *advance, wait func()) { a.begins(claiming); wait(); a.claimedTo(7) }, 1, claiming, nil},
		"the claim gets as far again": {func(a *advance, wait func()) { a.claimedTo(7); a.begins(claiming); wait(); a.claimedTo(7) }, 2, claiming, nil},
		"the claim gets less far":     {func(a *advance, wait func()) { a.claimedTo(7); a.begins(claiming); wait(); a.claimedTo(6) }, 2, claiming, nil},
		"no claim":                    {func(a *advance, wait func()) { a.claimedTo(7) }, -1, 0, nil},
		"full":                        {func(a *advance, wait func()) { a.begins(taking); a.setFull(true); a.begins(taking) }, -1, 0, nil},
		"full, and fails to commit":   {func(a *advance, wait func()) { a.setFull(true); a.fails(committing, failed) }, 1, committing, failed},
		"full no more":                {func(a *advance, wait func()) { a.begins(taking); a.setFull(true); wait(); a.setFull(false) }, 1, taking, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var a advance
				tc.happens(&a, func() { time.Sleep(step) }) // of the bubble's clock
				began := time.Now()
				if _, _, _, ok := a.heldUp(max(0, time.Duration(tc.steps-1)*step)); ok {
					t.Error("it is held up before its time")
				}
				time.Sleep(step)
				c, since, why, ok := a.heldUp(max(0, time.Duration(tc.steps-1)*step))
				if ok != (tc.steps > 0) || c != tc.c || why != tc.why {
					t.Errorf("held up: %v, concern %d, %v", ok, c, why)
				}
				if want := began.Add(step - time.Duration(tc.steps)*step); ok && !since.Equal(want) {
					t.Errorf("held up since %s, want %s", since, want)
				}
			})
		})
	}
}

// TestReportIsOver: what was reported counts until that very concern got on.
func TestReportIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a advance
		a.begins(committing)
		time.Sleep(time.Second)
		a.begins(taking)
		_, since, _, _ := a.heldUp(0)
		report := &wire.Stuck{Since: since}
		a.report(report)
		if a.stuck() != report {
			t.Error("it is not told")
		}
		a.moves(committing)
		if got := a.stuck(); got != nil {
			t.Errorf("it got on, and %+v is told", got)
		}
		if before := a.report(nil); before != report || a.stuck() != nil {
			t.Errorf("taken back was %+v", before)
		}
	})
}
