package shard

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"dormouse/ingest/ingesttest"
	"dormouse/internal/rejected"
	"dormouse/internal/wire"
)

// skip stores what dormouse provision --skip stores of a message.
func (s *system) skip(seq uint64, at time.Time) {
	s.T.Helper()
	m := rejected.Message{Stream: wire.DefaultSource, Subject: "logs.t.a", Seq: seq, Time: at}
	for _, msg := range m.Publications(wire.SkippedSubject(0), "skipped", 1<<20) {
		if _, err := s.JS.PublishMsg(s.T.Context(), msg); err != nil {
			s.T.Fatal(err)
		}
	}
}

// TestSkippedIsNoLoss: what an operator has put aside is told from what is lost in the same gap, and from what was put
// aside of another stream of that name.
func TestSkippedIsNoLoss(t *testing.T) {
	o := claimed(t)
	s := o.system(t)
	created := o.from.stream.CachedInfo().Created
	s.skip(2, time.Now())
	s.skip(3, created.Truncate(time.Second))
	s.skip(5, created.Add(-time.Hour)) // of another stream
	if _, err := s.JS.Publish(t.Context(), wire.SkippedSubject(0), []byte("it does not say of what")); err != nil {
		t.Fatal(err)
	}
	s.skip(6, time.Now())
	s.skip(7, time.Now()) // is not missing
	o.ledger.mu.pos.Applied = 1
	if n, err := o.intake.rejects.skippedIn(t.Context(), []span{{2, 3}, {5, 6}}); err != nil || n != 3 {
		t.Errorf("%d of two gaps were put aside, %v", n, err)
	}
	if err := o.intake.stepOver(t.Context(), 6); err != nil || o.ledger.applied() != 6 {
		t.Fatalf("applied %d, %v", o.ledger.applied(), err)
	}
	if lost, skipped := testutil.ToFloat64(o.site.Metrics.lost), testutil.ToFloat64(o.site.Metrics.rejected); lost != 2 ||
		skipped != 3 {
		t.Errorf("%v entries count as lost and %v as put aside, want 2 and 3", lost, skipped)
	}
}

// TestSkippedWhileItIsPutAside: an operator's word ends the wait for what cannot be put aside, once the message is
// gone.
func TestSkippedWhileItIsPutAside(t *testing.T) {
	o := claimed(t)
	s := o.system(t)
	var err error
	if o.intake.rejects.publisher, err = jetstream.New(s.NC); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.intake.rejects.publisher.CleanupPublisher)
	s.Publish("logs.t.a", "1", "2", "3")
	waiting := func(seq uint64, refused func(string) []outgoing) outgoing {
		return outgoing{nats.NewMsg("nobody.takes.this"), rejected.Message{Seq: seq, Subject: "logs.t.a"}, refused}
	}
	left := []outgoing{waiting(1, func(string) []outgoing { return nil }), waiting(2, nil), waiting(3, nil)}
	if rest, dropped := o.intake.rejects.withoutSkipped(t.Context(), left); len(rest) != 3 || dropped != 0 {
		t.Errorf("nothing was put aside, and %d are left, %d dropped", len(rest), dropped)
	}
	for seq := range uint64(3) {
		s.skip(seq+1, s.Message(seq+1).Time)
	}
	for seq := range uint64(2) {
		if err := o.from.stream.DeleteMsg(t.Context(), seq+1); err != nil {
			t.Fatal(err)
		}
	}
	if rest, dropped := o.intake.rejects.withoutSkipped(t.Context(), left); len(rest) != 1 || rest[0].from.Seq != 3 ||
		dropped != 1 {
		t.Errorf("one is there, and %d are left, %d dropped", len(rest), dropped)
	}
	err = ingesttest.Ended(t, "the rest to be passed over", func() error {
		refused, err := o.intake.rejects.publish(t.Context(), left[:2])
		if refused != 1 {
			t.Errorf("%d were not published again", refused)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
