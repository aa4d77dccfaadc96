package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"dormouse/ingest/membership"
	"dormouse/internal/ordered"
	"dormouse/internal/wire"
	"dormouse/store/manifest"
)

// TestAdvance: the clock of what is held up begins when there is something to do, and again with every part that gets
// done; what is tried again and again does not set it back.
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
		"fails again": {func(a *advance, wait func()) {
			a.fails(claiming, nil)
			wait()
			a.fails(claiming, failed)
		}, 2, claiming, failed},
		"a part was done": {func(a *advance, wait func()) {
			a.fails(taking, failed)
			wait()
			a.moves(taking)
		}, 1, taking, failed},
		"nothing to be done": {func(a *advance, wait func()) { a.moves(taking) }, -1, 0, nil},
		"done": {func(a *advance, wait func()) {
			a.fails(taking, failed)
			wait()
			a.done(taking)
		}, -1, 0, nil},
		"done and begun": {func(a *advance, wait func()) {
			a.fails(taking, failed)
			a.done(taking)
			wait()
			a.begins(taking)
		}, 1, taking, nil},
		"another node's": {func(a *advance, wait func()) {
			a.fails(taking, failed)
			a.fails(claiming, failed)
			a.reset()
		}, -1, 0, nil},
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
		"the claim gets on": {func(a *advance, wait func()) {
			a.begins(claiming)
			wait()
			a.claimedTo(7)
		}, 1, claiming, nil},
		"the claim gets as far again": {func(a *advance, wait func()) {
			a.claimedTo(7)
			a.begins(claiming)
			wait()
			a.claimedTo(7)
		}, 2, claiming, nil},
		"the claim gets less far": {func(a *advance, wait func()) {
			a.claimedTo(7)
			a.begins(claiming)
			wait()
			a.claimedTo(6)
		}, 2, claiming, nil},
		"no claim": {func(a *advance, wait func()) { a.claimedTo(7) }, -1, 0, nil},
		"full": {func(a *advance, wait func()) {
			a.begins(taking)
			a.setFull(true)
			a.begins(taking)
		}, -1, 0, nil},
		"full, and fails to commit": {func(a *advance, wait func()) {
			a.setFull(true)
			a.fails(committing, failed)
		}, 1, committing, failed},
		"full no more": {func(a *advance, wait func()) {
			a.begins(taking)
			a.setFull(true)
			wait()
			a.setFull(false)
		}, 1, taking, nil},
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
				c, since, why, ok := a.heldUp(0) // the longest of all
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

// idleRunner tends an owner's shard, and does nothing by itself.
func idleRunner(o *owner) *shardRunner {
	log := slog.New(slog.DiscardHandler)
	return &shardRunner{node: &Node{cfg: o.cfg, shards: newShardStates()}, source: o.source,
		log: log, outages: newOutages(log), advance: o.advance}
}

// TestTurnsThatEnd: what another node has is none of this one's trouble; what keeps this one from it is.
func TestTurnsThatEnd(t *testing.T) {
	failed := errors.New("failed")
	for name, tc := range map[string]struct {
		err     error
		concern concern
		heldUp  bool
	}{
		"handed over":       {errHandedOver, 0, false},
		"another's lease":   {&membership.HeldError{Owner: "b"}, 0, false},
		"fenced":            {fmt.Errorf("committing: %w", manifest.ErrFenced), 0, false},
		"could not claim":   {notOwned{failed}, claiming, true},
		"could not go on":   {failed, taking, true},
		"the process ended": {context.Canceled, committing, true},
	} {
		o := &owner{advance: &advance{}}
		o.advance.begins(committing)
		r := idleRunner(o)
		if tc.concern != committing && tc.heldUp {
			o.advance.done(committing)
		}
		r.note(tc.err)
		if c, _, _, ok := o.advance.heldUp(-1); ok != tc.heldUp || c != tc.concern {
			t.Errorf("%s: held up: %v, concern %d", name, ok, c)
		}
		r.standBy(membership.Placement{Holder: "b"})
		if _, _, _, ok := o.advance.heldUp(-1); ok {
			t.Errorf("%s: held up while another node has the shard", name)
		}
	}
}

// TestWhatIsHeldUp: the first message that was not taken in, or that no record covers. Without one there is nothing to
// take in.
func TestWhatIsHeldUp(t *testing.T) {
	o := claimed(t)
	s := &system{t: t, nc: o.cfg.NC, js: o.cfg.JS}
	s.publish("logs.t.a", "1", "2", "3")
	o.ledger.mu.pos.Applied, o.ledger.mu.pos.Floor = 2, 1
	if err := o.ledger.store(o.ledger.mu.pos); err != nil {
		t.Fatal(err)
	}
	r := idleRunner(o)
	is := func(what string, seq uint64) {
		t.Helper()
		if got := r.lookAtAdvance(t.Context(), time.Minute); got == nil && seq > 0 || got != nil &&
			(got.Seq != seq || got.Subject != "logs.t.a") {
			t.Errorf("%s: %+v, want sequence %d", what, got, seq)
		}
	}
	is("nothing", 0)
	r.advance.mu.since[committing] = time.Now().Add(-time.Hour)
	is("committing", 2)
	r.advance.done(committing)
	r.advance.mu.since[taking] = time.Now().Add(-time.Hour)
	is("taking in", 3)
	if err := o.from.stream.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	is("taking in what is gone", 0)
	if _, _, _, ok := r.advance.heldUp(-1); ok {
		t.Error("held up with nothing to take in")
	}
	report := &wire.Stuck{Since: time.Now()}
	r.advance.report(report)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r.watchAdvance(ctx)
	if before := r.advance.report(nil); before != nil {
		t.Errorf("after the end %+v is reported", before)
	}
}

// TestWhatGetsOn: a claim ends what held commits up, and a record does not hide that nothing is taken in; an entry in
// the stream that does not come is seen without one that does.
func TestWhatGetsOn(t *testing.T) {
	o := claimed(t)
	s := &system{t: t, nc: o.cfg.NC, js: o.cfg.JS}
	heldUp := func(when string, want bool, concern concern) {
		t.Helper()
		if c, _, _, ok := o.advance.heldUp(0); ok != want || c != concern {
			t.Errorf("%s: held up: %v, concern %d", when, ok, c)
		}
	}
	o.advance.fails(committing, errors.New("failed"))
	if err := o.claim(t.Context()); err != nil {
		t.Fatal(err)
	}
	heldUp("claimed", false, 0)
	o.advance.begins(taking)
	if err := o.append(t.Context(), manifest.Record{Kind: manifest.Floor, Epoch: o.epoch, Owner: "a"}); err != nil {
		t.Fatal(err)
	}
	heldUp("a record was appended", true, taking)
	s.publish("logs.t.a", "1")
	in := o.intake.newBatch()
	if err := in.take(ordered.Message{Subject: "logs.t.a", Sequence: 1, Time: s.message(1).Time}); err != nil {
		t.Fatal(err)
	}
	if err := o.intake.apply(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	heldUp("an entry was taken in", false, 0)

	s.publish("logs.t.a", "2")
	o.from.every = time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- o.from.watch(ctx) }()
	s.until("the entry that does not come to be seen", func() bool { _, _, _, ok := o.advance.heldUp(0); return ok })
	heldUp("an entry does not come", true, taking)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
