package ingest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/natstest"
	"dormouse/internal/wire"
)

// TestDeletedEnd: the stream's last entries are gone before anybody took them in. The shard is not behind for that, and
// what comes later is taken in.
func TestDeletedEnd(t *testing.T) {
	for name, remove := range map[string]func(s *system, stream jetstream.Stream) error{
		"the last was deleted": func(s *system, stream jetstream.Stream) error {
			return stream.DeleteMsg(s.t.Context(), 4)
		},
		"the last two were deleted": func(s *system, stream jetstream.Stream) error {
			return errors.Join(stream.DeleteMsg(s.t.Context(), 3), stream.DeleteMsg(s.t.Context(), 4))
		},
		"all were purged": func(s *system, stream jetstream.Stream) error { return stream.Purge(s.t.Context()) },
		"its log was purged": func(s *system, stream jetstream.Stream) error {
			return stream.Purge(s.t.Context(), jetstream.WithPurgeSubject("logs.t.b"))
		},
		"all were too old": func(s *system, stream jetstream.Stream) error {
			cfg := stream.CachedInfo().Config
			cfg.MaxAge, cfg.Duplicates = 200*time.Millisecond, 200*time.Millisecond
			if _, err := s.js.UpdateStream(s.t.Context(), cfg); err != nil {
				return err
			}
			s.until("the entries to go", func() bool {
				info, err := stream.Info(s.t.Context())
				return err == nil && info.State.Msgs == 0
			})
			cfg.MaxAge = 0
			_, err := s.js.UpdateStream(s.t.Context(), cfg)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSystem(t)
			dir := t.TempDir()
			n := s.start("a", dir)
			n.awaitOwned()
			s.publish("logs.t.a", "1")
			s.archiveAll("t.a", 1)
			n.stop()
			s.publish("logs.t.b", "2", "3", "4")
			stream, err := s.js.Stream(t.Context(), wire.DefaultSource)
			if err != nil {
				t.Fatal(err)
			}
			if err := remove(s, stream); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			n = s.start("b", dir)
			n.awaitOwned()
			var status []wire.ShardStatus
			s.until("the owner to be at the stream's end", func() bool {
				status = n.node.Status()
				return len(status) == 1 && status[0].Applied == 4 && status[0].EntriesLeft == 0
			})
			if took := time.Since(began); took > 8*time.Second {
				t.Errorf("took %s", took)
			}
			if status[0].Entries > 0 { // else nothing is left of the log
				s.archiveAll("t.b", 4)
			}
			s.until("the floor to be recorded", func() bool { return s.lastRecord().Floor == 4 })
			s.publish("logs.t.b", "5")
			s.takeReady("t.b")
			if entries, _ := s.drain("t.b"); payloads(entries) != "5" {
				t.Errorf("drained %s", payloads(entries))
			}
		})
	}
}

// TestPassOver moves only over what the stream's leader does not have either, and knows of.
func TestPassOver(t *testing.T) {
	o := claimed(t)
	s := &system{t: t, nc: o.cfg.NC, js: o.cfg.JS}
	s.publish("logs.t.a", "1", "2", "3")
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
	js, refuse := s.refusing("STREAM.MSG.GET." + wire.DefaultSource)
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
	natstest.MakeAnew(t, s.js, wire.DefaultSource)
	s.publish("logs.t.a", "1", "2", "3")
	if err := o.intake.passOver(t.Context(), 3); err == nil || errors.Is(err, errSource) || o.ledger.applied() != 2 {
		t.Errorf("of another stream: applied %d, %v", o.ledger.applied(), err)
	}
}

// TestNoMessageIsAnEmptyBatch: the owner looks around while it waits.
func TestNoMessageIsAnEmptyBatch(t *testing.T) {
	o := claimed(t)
	in, err := o.intake.gather(t.Context(), &announcing{sent: true})
	if err != nil || in.came > 0 {
		t.Errorf("%d messages, %v", in.came, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := o.intake.gather(ctx, &announcing{sent: true}); !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
}
