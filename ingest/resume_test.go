package ingest

import (
	"strings"
	"testing"
	"time"

	"github.com/cenkalti/backoff/v5"

	"dormouse/ingest/ingesttest"
	"dormouse/ingest/shard"
	"dormouse/internal/extent"
	"dormouse/internal/natstest"
	"dormouse/internal/topology"
	"dormouse/internal/wire"
	"dormouse/store/manifest"
)

// archiveAll archives what is buffered of a log, and waits until a record carries that floor.
func (s *system) archiveAll(log string, floor uint64) {
	s.T.Helper()
	s.TakeReady(log)
	_, extents := s.Drain(log)
	if refused := s.Commit("0/"+log+".sst", extents...); len(refused) > 0 {
		s.T.Fatal(refused)
	}
	s.Until("the floor to be recorded", func() bool {
		m, err := manifest.Open(s.T.Context(), s.JS, 0)
		if err != nil {
			s.T.Fatal(err)
		}
		last, _ := m.Last()
		return last.Floor == floor
	})
}

// remakeSource deletes the source stream and has Dormouse make it again.
func (s *system) remakeSource() {
	s.T.Helper()
	if err := s.JS.DeleteStream(s.T.Context(), wire.DefaultSource); err != nil {
		s.T.Fatal(err)
	}
	_, err := backoff.Retry(s.T.Context(), func() ([]string, error) { // while the server still removes its files
		return topology.Ensure(s.T.Context(), s.JS, topology.Config{RequeueAfter: time.Minute, Lease: 2 * time.Second})
	}, backoff.WithMaxElapsedTime(ingesttest.Patience))
	if err != nil {
		s.T.Fatal(err)
	}
}

// TestFloorAboveTheStreamsEnd: a power failure takes the end of the source stream, but not the record of what was
// archived of it. What is published under those sequences later is neither skipped nor trimmed.
func TestFloorAboveTheStreamsEnd(t *testing.T) {
	for _, tc := range []struct {
		name string
		disk bool
	}{{"the owner has its disk", true}, {"the owner has an empty disk", false}} {
		t.Run(tc.name, func(t *testing.T) {
			s := newSystem(t)
			dir := t.TempDir()
			n := s.start("a", dir, func(c *Config) { c.Trim = shard.TrimNever })
			n.awaitOwned()
			s.Publish("logs.t.a", "1", "2")
			s.archiveAll("t.a", 2)
			n.stop()
			// What the stream lost was archived, and this record of it is left.
			m, err := manifest.Open(t.Context(), s.JS, 0)
			if err != nil {
				t.Fatal(err)
			}
			last, _ := m.Last()
			then := last.Source.Time.Add(time.Microsecond)
			last.Source.Seq, last.Source.Time = 5, then
			_, err = m.Append(t.Context(), manifest.Record{Kind: manifest.Commit, Epoch: last.Epoch, Owner: "a", Floor: 5,
				Source: last.Source, Segments: s.Segment("0/lost.sst", extent.Extent{Log: "t.a", First: 3, Last: 5, Count: 3,
					Bytes: 3, MinTime: then.UnixNano(), MaxTime: then.UnixNano()})})
			if err != nil {
				t.Fatal(err)
			}
			s.Publish("logs.t.a", "new 3")
			s.Publish("logs.t.other", "new 4")
			if !tc.disk {
				dir = t.TempDir()
			}
			n = s.start("b", dir)
			n.awaitOwned()
			s.TakeReady("t.a", "t.other")
			if entries, _ := s.Drain("t.other"); ingesttest.Payloads(entries) != "new 4" {
				t.Errorf("drained %s of a log that was not archived", ingesttest.Payloads(entries))
			}
			entries, _ := s.Drain("t.a")
			if ingesttest.Payloads(entries) != "new 3" || entries[0].Seq <= 5 {
				t.Errorf("drained %s, want the new entry above the archive", ingesttest.Payloads(entries))
			}
		})
	}
}

// TestShardAfterItsSourceWasMadeAnew: the source stream was deleted and made again. Made by Dormouse it begins above
// what is archived; any other one would use sequences twice, and is refused.
func TestShardAfterItsSourceWasMadeAnew(t *testing.T) {
	begin := func(t *testing.T) *system {
		s := newSystem(t)
		n := s.start("a", t.TempDir(), func(c *Config) { c.Trim = shard.TrimNever })
		n.awaitOwned()
		s.Publish("logs.t.a", "1", "2", "3")
		s.archiveAll("t.a", 3)
		n.stop()
		return s
	}
	t.Run("by Dormouse", func(t *testing.T) {
		s := begin(t)
		s.remakeSource()
		if seqs := s.Publish("logs.t.a", "4"); seqs[0] != 4 {
			t.Fatalf("the stream begins at %d", seqs[0])
		}
		n := s.start("b", t.TempDir())
		n.awaitOwned()
		s.TakeReady("t.a")
		if entries, _ := s.Drain("t.a"); ingesttest.Payloads(entries) != "4" {
			t.Fatalf("drained %s", ingesttest.Payloads(entries))
		}
	})
	t.Run("from sequence 1", func(t *testing.T) {
		s := begin(t)
		natstest.MakeAnew(t, s.JS, wire.DefaultSource)
		s.Publish("logs.t.a", "another 1")
		n := s.start("b", t.TempDir())
		stream, err := s.JS.Stream(t.Context(), wire.DefaultSource)
		if err != nil {
			t.Fatal(err)
		}
		s.Until("the shard to be refused", func() bool { return n.metric("dormouse_claims_failed_total") > 0 })
		s.Until("readiness to say why", func() bool {
			err := n.node.Ready()
			return err != nil && strings.Contains(err.Error(), "forget the archive")
		})
		if n.metric("dormouse_shards_owned") > 0 {
			t.Error("it is owned")
		}
		if info, err := stream.Info(t.Context()); err != nil || info.State.Msgs != 1 {
			t.Errorf("the stream has %d messages (%v), want the one that nobody has archived", info.State.Msgs, err)
		}
	})
}

// TestPurgeOfAnotherStream: an owner that is about to trim finds another stream under the name, and steps down.
func TestPurgeOfAnotherStream(t *testing.T) {
	s := newSystem(t)
	n := s.start("a", t.TempDir(), func(c *Config) { c.TrimDelay = time.Second })
	n.awaitOwned()
	s.Publish("logs.t.a", "1", "2", "3")
	s.archiveAll("t.a", 3)
	stream, err := s.JS.Stream(t.Context(), wire.DefaultSource)
	if err != nil {
		t.Fatal(err)
	}
	natstest.MakeAnew(t, s.JS, wire.DefaultSource)
	s.Publish("logs.t.a", "another 1")
	s.Until("the owner to step down", func() bool { return n.metric("dormouse_owner_stepdowns_total") > 0 })
	msg, err := stream.GetMsg(t.Context(), 1)
	if err != nil || string(msg.Data) != "another 1" {
		t.Errorf("it is gone: %v", err)
	}
}
