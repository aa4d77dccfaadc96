package shard

import (
	"context"
	"errors"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/streamreader"
	"dormouse/internal/wire"
)

// TestNothingIsPassedBeforeItIsPutAside: the position moves when all that goes elsewhere is acked, and entries show no
// earlier.
func TestNothingIsPassedBeforeItIsPutAside(t *testing.T) {
	o := claimed(t)
	s := o.system(t)
	var err error
	if o.intake.rejects.publisher, err = jetstream.New(s.NC,
		jetstream.WithPublishAsyncTimeout(rejectTimeout)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.intake.rejects.publisher.CleanupPublisher)
	s.Publish("logs.t.a", "1")
	s.Publish("logs.x", "no log token")
	callOff := s.Silence()
	published := make(chan struct{}, 10)
	if _, err := s.NC.Subscribe(wire.RejectedSubjects, func(*nats.Msg) { offer(published, struct{}{}) }); err != nil {
		t.Fatal(err)
	}
	batch := func() *batch {
		in := o.intake.newBatch()
		for seq := uint64(1); seq <= 2; seq++ {
			m := s.Message(seq)
			if err := in.take(streamreader.Message{Subject: m.Subject, Sequence: seq, Time: m.Time, Data: m.Data}); err != nil {
				t.Fatal(err)
			}
		}
		return in
	}
	ctx, cancel := context.WithCancel(t.Context())
	in, done := batch(), make(chan error, 1)
	go func() { done <- o.intake.apply(ctx, in) }()
	<-published
	is := func(when string, applied uint64) {
		t.Helper()
		pos, err := o.site.DB.Position(0)
		_, active := o.sched.Pending("t.a")
		if err != nil || pos.Applied != applied || o.ledger.applied() != applied || active != (applied > 0) {
			t.Errorf("%s: applied %d, on disk %d, the log is active: %v, %v", when, o.ledger.applied(), pos.Applied, active, err)
		}
	}
	is("not acked", 0)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
	is("given up", 0)
	callOff()
	if err := o.intake.apply(t.Context(), batch()); err != nil {
		t.Fatal(err)
	}
	is("acked", 2)
}
