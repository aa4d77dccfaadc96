package ingest

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"dormouse/ingest/shard"
	"dormouse/internal/wire"
)

func (n *node) awaitStuck(at string) {
	n.s.T.Helper()
	n.awaitMetric("dormouse_shard_stuck", 1)
	if err := n.node.Ready(); err == nil || !strings.Contains(err.Error(), at) {
		n.s.T.Errorf("readiness says %v, want %q", err, at)
	}
	if s := n.node.Status()[0].Stuck; s == nil || s.Since.IsZero() {
		n.s.T.Errorf("the status says %+v", s)
	}
}

func (n *node) awaitMoving() {
	n.s.T.Helper()
	n.awaitMetric("dormouse_shard_stuck", 0)
	n.s.Until("readiness", func() bool { return n.node.Ready() == nil })
}

// TestStuck: whatever keeps a shard from getting on shows after a lease, with the message that it does not get past,
// and is over when that is.
func TestStuck(t *testing.T) {
	t.Run("a message cannot be put aside", func(t *testing.T) {
		t.Parallel()
		s := newSystem(t)
		callOff := s.Silence()
		s.Publish("logs.t.a", "1")
		s.Publish("logs.x", "no log token")
		n := s.start("a", t.TempDir())
		n.awaitStuck(`sequence 2 ("logs.x")`)
		callOff()
		n.awaitMoving()
	})
	t.Run("no consumer", func(t *testing.T) {
		t.Parallel()
		s := newSystem(t)
		js, refuse := s.Refusing("CONSUMER.CREATE." + wire.DefaultSource)
		refuse.Store(true)
		s.Publish("logs.t.a", "1")
		n := s.start("a", t.TempDir(), func(c *Config) { c.JS = js })
		n.awaitStuck(`sequence 1 ("logs.t.a")`)
		if err := n.node.Ready(); err == nil || strings.Contains(err.Error(), "--skip") {
			t.Errorf("a consumer that is refused is blamed on a message: %v", err)
		}
		refuse.Store(false)
		n.awaitMoving()
	})
	t.Run("claims fail", func(t *testing.T) {
		t.Parallel()
		s := newSystem(t)
		js, refuse := s.Refusing("STREAM.INFO." + wire.DefaultSource)
		refuse.Store(true)
		s.Publish("logs.t.a", "1")
		n := s.start("a", t.TempDir(), func(c *Config) { c.JS = js })
		n.awaitStuck("claiming the shard")
		if err := n.node.Ready(); err == nil || strings.Contains(err.Error(), "--skip") ||
			strings.Contains(err.Error(), "sequence") {
			t.Errorf("a claim that fails is blamed on a message: %v", err)
		}
		refuse.Store(false)
		n.awaitMoving()
	})
	t.Run("the manifest takes no record", func(t *testing.T) {
		t.Parallel()
		s := newSystem(t)
		n := s.start("a", t.TempDir())
		n.awaitOwned()
		limit := func(bytes int64) {
			manifest, err := s.JS.Stream(t.Context(), wire.ManifestStream)
			if err != nil {
				t.Fatal(err)
			}
			cfg := manifest.CachedInfo().Config
			cfg.MaxMsgSize = int32(bytes)
			if _, err := s.JS.UpdateStream(t.Context(), cfg); err != nil {
				t.Fatal(err)
			}
		}
		limit(10)
		s.Publish("logs.x", "no log token") // moves the floor
		n.awaitStuck("committing what is archived")
		limit(-1)
		n.awaitMoving()
	})
}

// TestNotStuck: what has nothing to do, or waits for workers, is not stuck.
func TestNotStuck(t *testing.T) {
	t.Parallel()
	const lease = time.Second
	short := func(c *Config) { c.Lease = lease }
	s := newSystem(t)
	n := s.start("a", t.TempDir(), short)
	n.awaitOwned()
	looks := func(what string) {
		t.Helper()
		tick := time.NewTicker(lease / 4)
		defer tick.Stop()
		for range 12 { // three leases
			<-tick.C
			if n.metric("dormouse_shard_stuck") != 0 {
				t.Fatalf("%s: %v", what, n.node.Ready())
			}
		}
	}
	looks("idle")
	stream, err := s.JS.Stream(t.Context(), wire.DefaultSource)
	if err != nil {
		t.Fatal(err)
	}
	n.stop()
	s.Publish("logs.t.a", strings.Repeat("x", 1000), strings.Repeat("x", 1000), "deleted")
	if err := stream.DeleteMsg(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	n = s.start("a", t.TempDir(), short, func(c *Config) { c.BufferLimit = 1500 })
	n.awaitMetric("dormouse_entries_ingested_total", 2)
	looks("at the limit of the buffer")
	s.Publish("logs.t.a", "not taken in")
	looks("at the limit of the buffer, with more in the stream")
	if lines := strings.Join(n.node.Remarks(), "\n"); !strings.Contains(lines, "buffer is at its limit") {
		t.Errorf("it remarks %q", lines)
	}
	s.archiveAll("t.a", 2)
	looks("when all is archived")
}

// TestOutageOfManyShards: what keeps all shards from getting on whatever their messages is said once and over once; a
// message that may be at fault has lines of its own.
func TestOutageOfManyShards(t *testing.T) {
	var said bytes.Buffer
	log := slog.New(slog.NewTextHandler(&said, nil))
	all := shard.NewOutages(log)
	away := &wire.Stuck{Since: time.Now(), Reason: "no leader"}
	shards := []shard.Outages{all.Of("shard", "0"), all.Of("shard", "1"), all.Of("shard", "2")}
	for _, o := range shards {
		tellAdvance(log, o.HeldUp, nil, away)
		tellAdvance(log, o.HeldUp, away, away)
	}
	for _, o := range shards {
		tellAdvance(log, o.HeldUp, away, nil)
		tellAdvance(log, o.HeldUp, nil, nil)
	}
	if got := said.String(); strings.Count(got, "does not get on") != 1 ||
		strings.Count(got, "all shards get on again") != 1 ||
		strings.Count(got, "\n") != 2 {
		t.Errorf("of three shards held up by one outage the log says\n%s", got)
	}
	said.Reset()
	bad := &wire.Stuck{Since: time.Now(), Seq: 7, Subject: "logs.x", Suspect: true}
	for range 2 {
		tellAdvance(log, shards[0].HeldUp, nil, bad)
		tellAdvance(log, shards[0].HeldUp, bad, bad)
		tellAdvance(log, shards[0].HeldUp, bad, nil)
	}
	if got := said.String(); strings.Count(got, "sequence=7 subject=logs.x") != 2 ||
		strings.Count(got, "the shard gets on again") != 2 {
		t.Errorf("of a message that may be at fault the log says\n%s", got)
	}
}
