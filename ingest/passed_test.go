package ingest

import (
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/ingest/ingesttest"
	"dormouse/internal/wire"
)

// TestDeletedEnd: the stream's last entries are gone before anybody took them in. The shard is not behind for that, and
// what comes later is taken in.
func TestDeletedEnd(t *testing.T) {
	for name, remove := range map[string]func(s *system, stream jetstream.Stream) error{
		"the last was deleted": func(s *system, stream jetstream.Stream) error {
			return stream.DeleteMsg(s.T.Context(), 4)
		},
		"the last two were deleted": func(s *system, stream jetstream.Stream) error {
			return errors.Join(stream.DeleteMsg(s.T.Context(), 3), stream.DeleteMsg(s.T.Context(), 4))
		},
		"all were purged": func(s *system, stream jetstream.Stream) error { return stream.Purge(s.T.Context()) },
		"its log was purged": func(s *system, stream jetstream.Stream) error {
			return stream.Purge(s.T.Context(), jetstream.WithPurgeSubject("logs.t.b"))
		},
		"all were too old": func(s *system, stream jetstream.Stream) error {
			cfg := stream.CachedInfo().Config
			cfg.MaxAge, cfg.Duplicates = 200*time.Millisecond, 200*time.Millisecond
			if _, err := s.JS.UpdateStream(s.T.Context(), cfg); err != nil {
				return err
			}
			s.Until("the entries to go", func() bool {
				info, err := stream.Info(s.T.Context())
				return err == nil && info.State.Msgs == 0
			})
			cfg.MaxAge = 0
			_, err := s.JS.UpdateStream(s.T.Context(), cfg)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSystem(t)
			dir := t.TempDir()
			n := s.start("a", dir)
			n.awaitOwned()
			s.Publish("logs.t.a", "1")
			s.archiveAll("t.a", 1)
			n.stop()
			s.Publish("logs.t.b", "2", "3", "4")
			stream, err := s.JS.Stream(t.Context(), wire.DefaultSource)
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
			s.Until("the owner to be at the stream's end", func() bool {
				status = n.node.Status()
				return len(status) == 1 && status[0].Applied == 4 && status[0].EntriesLeft == 0
			})
			if took := time.Since(began); took > 8*time.Second {
				t.Errorf("took %s", took)
			}
			if status[0].Entries > 0 { // else nothing is left of the log
				s.archiveAll("t.b", 4)
			}
			s.Until("the floor to be recorded", func() bool { return s.LastRecord().Floor == 4 })
			s.Publish("logs.t.b", "5")
			s.TakeReady("t.b")
			if entries, _ := s.Drain("t.b"); ingesttest.Payloads(entries) != "5" {
				t.Errorf("drained %s", ingesttest.Payloads(entries))
			}
		})
	}
}
