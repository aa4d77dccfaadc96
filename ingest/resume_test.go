package ingest

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/extent"
	"dormouse/internal/natstest"
	"dormouse/internal/topology"
	"dormouse/internal/wire"
	"dormouse/store/manifest"
)

// archiveAll archives what is buffered of a log, and waits until a record carries that floor.
func (s *system) archiveAll(log string, floor uint64) {
	s.t.Helper()
	s.takeReady(log)
	_, extents := s.drain(log)
	if refused := s.commit("0/"+log+".sst", extents...); len(refused) > 0 {
		s.t.Fatal(refused)
	}
	s.until("the floor to be recorded", func() bool {
		m, err := manifest.Open(s.t.Context(), s.js, 0)
		if err != nil {
			s.t.Fatal(err)
		}
		last, _ := m.Last()
		return last.Floor == floor
	})
}

// remakeSource deletes the source stream and has Dormouse make it again.
func (s *system) remakeSource() {
	s.t.Helper()
	if err := s.js.DeleteStream(s.t.Context(), wire.DefaultSource); err != nil {
		s.t.Fatal(err)
	}
	_, err := backoff.Retry(s.t.Context(), func() ([]string, error) { // while the server still removes its files
		return topology.Ensure(s.t.Context(), s.js, topology.Config{RequeueAfter: time.Minute, Lease: 2 * time.Second})
	}, backoff.WithMaxElapsedTime(patience))
	if err != nil {
		s.t.Fatal(err)
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
			n := s.start("a", dir, func(c *Config) { c.Trim = TrimNever })
			n.awaitOwned()
			s.publish("logs.t.a", "1", "2")
			s.archiveAll("t.a", 2)
			n.stop()
			// What the stream lost was archived, and this record of it is left.
			m, err := manifest.Open(t.Context(), s.js, 0)
			if err != nil {
				t.Fatal(err)
			}
			last, _ := m.Last()
			then := last.Source.Time.Add(time.Microsecond)
			last.Source.Seq, last.Source.Time = 5, then
			_, err = m.Append(t.Context(), manifest.Record{Kind: manifest.Commit, Epoch: last.Epoch, Owner: "a", Floor: 5,
				Source: last.Source, Segments: []manifest.Committed{{Segment: extent.Segment{Key: "0/lost.sst", Size: 1},
					Extents: []extent.Extent{{Log: "t.a", First: 3, Last: 5, Count: 3, Bytes: 3, MinTime: then.UnixNano(),
						MaxTime: then.UnixNano()}}}}})
			if err != nil {
				t.Fatal(err)
			}
			s.publish("logs.t.a", "new 3")
			s.publish("logs.t.other", "new 4")
			if !tc.disk {
				dir = t.TempDir()
			}
			n = s.start("b", dir)
			n.awaitOwned()
			s.takeReady("t.a", "t.other")
			if entries, _ := s.drain("t.other"); payloads(entries) != "new 4" {
				t.Errorf("drained %s of a log that was not archived", payloads(entries))
			}
			entries, _ := s.drain("t.a")
			if payloads(entries) != "new 3" || entries[0].Seq <= 5 {
				t.Errorf("drained %s, want the new entry above the archive", payloads(entries))
			}
		})
	}
}

// TestShardAfterItsSourceWasMadeAnew: the source stream was deleted and made again. Made by Dormouse it begins above
// what is archived; any other one would use sequences twice, and is refused.
func TestShardAfterItsSourceWasMadeAnew(t *testing.T) {
	begin := func(t *testing.T) *system {
		s := newSystem(t)
		n := s.start("a", t.TempDir(), func(c *Config) { c.Trim = TrimNever })
		n.awaitOwned()
		s.publish("logs.t.a", "1", "2", "3")
		s.archiveAll("t.a", 3)
		n.stop()
		return s
	}
	t.Run("by Dormouse", func(t *testing.T) {
		s := begin(t)
		s.remakeSource()
		if seqs := s.publish("logs.t.a", "4"); seqs[0] != 4 {
			t.Fatalf("the stream begins at %d", seqs[0])
		}
		n := s.start("b", t.TempDir())
		n.awaitOwned()
		s.takeReady("t.a")
		if entries, _ := s.drain("t.a"); payloads(entries) != "4" {
			t.Fatalf("drained %s", payloads(entries))
		}
	})
	t.Run("from sequence 1", func(t *testing.T) {
		s := begin(t)
		natstest.MakeAnew(t, s.js, wire.DefaultSource)
		s.publish("logs.t.a", "another 1")
		n := s.start("b", t.TempDir())
		stream, err := s.js.Stream(t.Context(), wire.DefaultSource)
		if err != nil {
			t.Fatal(err)
		}
		s.until("the shard to be refused", func() bool { return n.metric("dormouse_claims_failed_total") > 0 })
		s.until("readiness to say why", func() bool {
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

// TestResume: from which floor a new owner goes on, and of which stream, by what the last record says and what the
// stream has: entries 3 and 4, since 1 and 2 were trimmed.
func TestResume(t *testing.T) {
	var log logBuffer
	o := claimed(t, func(c *Config) { c.Logger = slog.New(slog.NewJSONHandler(&log, nil)) })
	const madeAnew = "the source stream was made anew and goes on where the old one ended: what the old one held beyond " +
		"the archive is gone"
	if lines := log.lines(t, madeAnew); len(lines) > 0 {
		t.Errorf("the first owner says %v", lines)
	}
	s := &system{t: t, nc: o.cfg.NC, js: o.cfg.JS}
	s.publish("logs.t.a", "1", "2", "3", "4")
	at := s.message(4).Time
	if err := o.from.stream.Purge(t.Context(), jetstream.WithPurgeSequence(3)); err != nil {
		t.Fatal(err)
	}
	if _, err := o.from.stream.Info(t.Context()); err != nil {
		t.Fatal(err)
	}
	made := o.from.stream.CachedInfo().Created
	anew := manifest.Source{Created: made, Seq: 2}
	for name, tc := range map[string]struct {
		last   manifest.Record
		floor  uint64
		source manifest.Source
		err    error
	}{
		"its first owner": {manifest.Record{}, 2, anew, nil},
		"as it was": {manifest.Record{Epoch: 1, Floor: 3, Source: manifest.Source{Created: made, Seq: 4, Time: at}},
			3, manifest.Source{Created: made, Seq: 4, Time: at}, nil},
		"it lost its end": {manifest.Record{Epoch: 1, Floor: 5,
			Source: manifest.Source{Created: made, Seq: 5, Time: at}}, 2, anew, nil},
		"it has another end": {manifest.Record{Epoch: 1, Floor: 4,
			Source: manifest.Source{Created: made, Seq: 4, Time: at.Add(1)}}, 2, anew, nil},
		"it lost what was never archived": {manifest.Record{Epoch: 1, Floor: 1,
			Source: manifest.Source{Created: made, Seq: 5, Time: at}}, 1, anew, nil},
		"made anew above what was taken in": {manifest.Record{Epoch: 1, Floor: 1,
			Source: manifest.Source{Created: made.Add(-1), Seq: 2, Time: at}}, 2, anew, nil},
		"made anew below it": {manifest.Record{Epoch: 1, Floor: 1,
			Source: manifest.Source{Created: made.Add(-1), Seq: 3, Time: at}}, 0, manifest.Source{}, errAnotherSource},
	} {
		floor, source, err := o.resume(t.Context(), tc.last)
		if floor != tc.floor || source.Seq != tc.source.Seq || !source.Created.Equal(tc.source.Created) ||
			!source.Time.Equal(tc.source.Time) || !errors.Is(err, tc.err) {
			t.Errorf("%s: from %d of %+v, %v, want %d of %+v", name, floor, source, err, tc.floor, tc.source)
		}
	}
}

// TestPurgeOfAnotherStream: an owner that is about to trim finds another stream under the name, and steps down.
func TestPurgeOfAnotherStream(t *testing.T) {
	s := newSystem(t)
	n := s.start("a", t.TempDir(), func(c *Config) { c.TrimDelay = time.Second })
	n.awaitOwned()
	s.publish("logs.t.a", "1", "2", "3")
	s.archiveAll("t.a", 3)
	stream, err := s.js.Stream(t.Context(), wire.DefaultSource)
	if err != nil {
		t.Fatal(err)
	}
	natstest.MakeAnew(t, s.js, wire.DefaultSource)
	s.publish("logs.t.a", "another 1")
	s.until("the owner to step down", func() bool { return n.metric("dormouse_owner_stepdowns_total") > 0 })
	msg, err := stream.GetMsg(t.Context(), 1)
	if err != nil || string(msg.Data) != "another 1" {
		t.Errorf("it is gone: %v", err)
	}
}
