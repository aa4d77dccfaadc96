package shard

import (
	"context"
	"errors"
	"testing"
	"time"

	"dormouse/internal/natstest"
	"dormouse/internal/wire"
)

// TestPassOver moves only over what the stream's leader does not have either, and knows of.
func TestPassOver(t *testing.T) {
	o := claimed(t)
	s := o.system(t)
	s.Publish("logs.t.a", "1", "2", "3")
	for name, passed := range map[string]uint64{"an entry that is there": 2, "above the stream's end": 4} {
		err := o.intake.passOver(t.Context(), passed)
		if o.ledger.applied() > 0 || passed == 2 && !errors.Is(err, errSource) || passed == 4 && err != nil {
			t.Errorf("%s: applied %d, %v", name, o.ledger.applied(), err)
		}
	}
	for seq := uint64(1); seq <= 2; seq++ {
		if err := o.from.stream.DeleteMsg(t.Context(), seq); err != nil {
			t.Fatal(err)
		}
	}
	js, refuse := s.Refusing("STREAM.MSG.GET." + wire.DefaultSource)
	refuse.Store(true)
	o.asksBy(js)
	if err := o.intake.passOver(t.Context(), 2); !errors.Is(err, errSource) || o.ledger.applied() != 0 {
		t.Errorf("the leader does not say what it has: applied %d, %v", o.ledger.applied(), err)
	}
	refuse.Store(false)
	o.ledger.mu.pos.AppliedTime = time.Now()
	for range 2 { // the second time there is nothing to do
		if err := o.intake.passOver(t.Context(), 2); err != nil || o.ledger.applied() != 2 ||
			!o.ledger.mu.pos.AppliedTime.IsZero() {
			t.Errorf("applied %d of %s, %v", o.ledger.applied(), o.ledger.mu.pos.AppliedTime, err)
		}
	}
	natstest.MakeAnew(t, s.JS, wire.DefaultSource)
	s.Publish("logs.t.a", "1", "2", "3")
	if err := o.intake.passOver(t.Context(), 3); err == nil || errors.Is(err, errSource) || o.ledger.applied() != 2 {
		t.Errorf("of another stream: applied %d, %v", o.ledger.applied(), err)
	}
}

// TestNoMessageIsAnEmptyBatch: the owner looks around while it waits.
func TestNoMessageIsAnEmptyBatch(t *testing.T) {
	o := claimed(t)
	in, err := o.intake.readBatch(t.Context(), &announcing{sent: true})
	if err != nil || in.came > 0 {
		t.Errorf("%d messages, %v", in.came, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := o.intake.readBatch(ctx, &announcing{sent: true}); !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
}
