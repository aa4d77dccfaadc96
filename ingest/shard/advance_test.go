package shard

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"dormouse/internal/streamreader"
	"dormouse/internal/wire"
	"dormouse/store/manifest"
)

// TestAdvance: the clock of what is held up begins when there is something to do, and again with every part that gets
// done; what is tried again and again does not set it back.
func TestAdvance(t *testing.T) {
	const step = time.Second
	failed := errors.New("failed")
	for name, tc := range map[string]struct {
		happens func(a *Advance, wait func())
		steps   int // since when it is held up; -1: it is not
		c       Concern
		why     error
	}{
		"nothing":             {func(*Advance, func()) {}, -1, 0, nil},
		"begun once":          {func(a *Advance, wait func()) { a.begins(Taking) }, 1, Taking, nil},
		"begun again":         {func(a *Advance, wait func()) { a.begins(Taking); wait(); a.begins(Taking) }, 2, Taking, nil},
		"fails without begin": {func(a *Advance, wait func()) { a.Fails(Claiming, failed) }, 1, Claiming, failed},
		"fails again": {func(a *Advance, wait func()) {
			a.Fails(Claiming, nil)
			wait()
			a.Fails(Claiming, failed)
		}, 2, Claiming, failed},
		"a part was done": {func(a *Advance, wait func()) {
			a.Fails(Taking, failed)
			wait()
			a.moves(Taking)
		}, 1, Taking, failed},
		"nothing to be done": {func(a *Advance, wait func()) { a.moves(Taking) }, -1, 0, nil},
		"done": {func(a *Advance, wait func()) {
			a.Fails(Taking, failed)
			wait()
			a.Done(Taking)
		}, -1, 0, nil},
		"done and begun": {func(a *Advance, wait func()) {
			a.Fails(Taking, failed)
			a.Done(Taking)
			wait()
			a.begins(Taking)
		}, 1, Taking, nil},
		"another node's": {func(a *Advance, wait func()) {
			a.Fails(Taking, failed)
			a.Fails(Claiming, failed)
			a.Reset()
		}, -1, 0, nil},
		"two, by age": {func(a *Advance, wait func()) {
			a.begins(Committing)
			wait()
			a.Fails(Taking, failed)
		}, 2, Committing, nil},
		"two, the other way": {func(a *Advance, wait func()) {
			a.Fails(Taking, failed)
			wait()
			a.begins(Committing)
		}, 2, Taking, failed},
		"the claim gets on": {func(a *Advance, wait func()) {
			a.begins(Claiming)
			wait()
			a.claimedTo(7)
		}, 1, Claiming, nil},
		"the claim gets as far again": {func(a *Advance, wait func()) {
			a.claimedTo(7)
			a.begins(Claiming)
			wait()
			a.claimedTo(7)
		}, 2, Claiming, nil},
		"the claim gets less far": {func(a *Advance, wait func()) {
			a.claimedTo(7)
			a.begins(Claiming)
			wait()
			a.claimedTo(6)
		}, 2, Claiming, nil},
		"no claim": {func(a *Advance, wait func()) { a.claimedTo(7) }, -1, 0, nil},
		"full": {func(a *Advance, wait func()) {
			a.begins(Taking)
			a.setFull(true)
			a.begins(Taking)
		}, -1, 0, nil},
		"full, and fails to commit": {func(a *Advance, wait func()) {
			a.setFull(true)
			a.Fails(Committing, failed)
		}, 1, Committing, failed},
		"full no more": {func(a *Advance, wait func()) {
			a.begins(Taking)
			a.setFull(true)
			wait()
			a.setFull(false)
		}, 1, Taking, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var a Advance
				tc.happens(&a, func() { time.Sleep(step) }) // of the bubble's clock
				began := time.Now()
				if _, _, _, ok := a.HeldUp(max(0, time.Duration(tc.steps-1)*step)); ok {
					t.Error("it is held up before its time")
				}
				time.Sleep(step)
				c, since, why, ok := a.HeldUp(0) // the longest of all
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

// TestWhatGetsOn: a claim ends what held commits up, and a record does not hide that nothing is taken in; an entry in
// the stream that does not come is seen without one that does.
func TestWhatGetsOn(t *testing.T) {
	o := claimed(t)
	s := o.system(t)
	heldUp := func(when string, want bool, concern Concern) {
		t.Helper()
		if c, _, _, ok := o.site.Advance.HeldUp(0); ok != want || c != concern {
			t.Errorf("%s: held up: %v, concern %d", when, ok, c)
		}
	}
	o.site.Advance.Fails(Committing, errors.New("failed"))
	if _, err := o.claim.begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	heldUp("claimed", false, 0)
	o.site.Advance.begins(Taking)
	if err := o.claim.chain.append(t.Context(),
		manifest.Record{Kind: manifest.Floor, Epoch: o.epoch, Owner: "a"}, accepted{}); err != nil {
		t.Fatal(err)
	}
	heldUp("a record was appended", true, Taking)
	s.Publish("logs.t.a", "1")
	in := o.intake.newBatch()
	if err := in.take(streamreader.Message{Subject: "logs.t.a", Sequence: 1, Time: s.Message(1).Time}); err != nil {
		t.Fatal(err)
	}
	if err := o.intake.apply(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	heldUp("an entry was taken in", false, 0)

	s.Publish("logs.t.a", "2")
	o.from.every = time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- o.from.watch(ctx) }()
	s.Until("the entry that does not come to be seen", func() bool { _, _, _, ok := o.site.Advance.HeldUp(0); return ok })
	heldUp("an entry does not come", true, Taking)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestReportIsOver: what was reported counts until that very concern got on.
func TestReportIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a Advance
		a.begins(Committing)
		time.Sleep(time.Second)
		a.begins(Taking)
		_, since, _, _ := a.HeldUp(0)
		report := &wire.Stuck{Since: since}
		a.Report(report)
		if a.Stuck() != report {
			t.Error("it is not told")
		}
		a.moves(Committing)
		if got := a.Stuck(); got != nil {
			t.Errorf("it got on, and %+v is told", got)
		}
		if before := a.Report(nil); before != report || a.Stuck() != nil {
			t.Errorf("taken back was %+v", before)
		}
	})
}

// TestAdvanceForgives: the time in which the process itself stood still counts for nothing; TestFrozenOwner has it
// frozen.
func TestAdvanceForgives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const patience = 2 * time.Second
		var a Advance
		a.begins(Taking)
		time.Sleep(3 * time.Second)
		a.Forgive(2 * time.Second)
		if _, _, _, stuck := a.HeldUp(patience); stuck {
			t.Error("held up for a second, and called stuck")
		}
		time.Sleep(patience)
		if c, since, _, stuck := a.HeldUp(patience); !stuck || c != Taking || time.Since(since) != 3*time.Second {
			t.Errorf("stuck %v at %v since %s ago, want true, taking, 3s", stuck, c, time.Since(since))
		}
		a.Done(Taking)
		a.Forgive(time.Hour)
		if _, since, _, stuck := a.HeldUp(0); stuck {
			t.Errorf("what is done is held up since %s", since)
		}
	})
}
