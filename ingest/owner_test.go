package ingest

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/nats-io/nats.go"

	"dormouse/ingest/ingesttest"
	"dormouse/ingest/shard"
	"dormouse/internal/extent"
	"dormouse/internal/topology"
	"dormouse/internal/wire"
	"dormouse/store/cache"
	"dormouse/store/manifest"
)

func TestWholeWay(t *testing.T) {
	s := newSystem(t)
	n := s.start("a", t.TempDir())
	n.awaitOwned()
	s.Publish("logs.acme.web", "one", "two")
	msg := nats.NewMsg("logs.acme.api")
	msg.Header.Set("Trace", "x")
	msg.Data = []byte("three")
	if _, err := s.JS.PublishMsg(t.Context(), msg); err != nil {
		t.Fatal(err)
	}
	s.TakeReady("acme.api", "acme.web")
	entries, extents := s.Drain("acme.web", "acme.api")
	if got := ingesttest.Payloads(entries); got != "three,one,two" {
		t.Fatalf("drained %s", got)
	}
	if entries[0].Headers["Trace"][0] != "x" || entries[0].Time.IsZero() || entries[0].Seq != 3 {
		t.Fatalf("headers, time or sequence lost: %+v", entries[0])
	}
	if n.metric("dormouse_logs_active") != 2 || n.metric("dormouse_buffer_entries") != 3 {
		t.Fatal("two logs with three entries must be active before the commit")
	}
	if refused := s.Commit("0/a.sst", extents...); len(refused) > 0 {
		t.Fatalf("refused: %v", refused)
	}
	if n.metric("dormouse_logs_active") != 0 || n.metric("dormouse_buffer_bytes") != 0 ||
		n.metric("dormouse_entries_synced_total") != 3 {
		t.Fatal("nothing may be active after the commit")
	}
	s.Until("the source stream to be trimmed", func() bool {
		stream, err := s.JS.Stream(t.Context(), wire.DefaultSource)
		return err == nil && stream.CachedInfo().State.Msgs == 0
	})
	if again, _ := s.Drain("acme.web", "acme.api"); len(again) > 0 {
		t.Fatalf("a duplicate work item drained %d entries", len(again))
	}
}

// TestRefusals holds invariant 2 at the commit: an extent that is stale, overlaps or leaves a gap is refused, alone.
func TestRefusals(t *testing.T) {
	s := newSystem(t)
	s.start("a", t.TempDir()).awaitOwned()
	s.Publish("logs.t.a", "1", "2", "3", "4")
	s.Publish("logs.t.b", "5")
	s.TakeReady("t.a", "t.b")
	entries, extents := s.Drain("t.a", "t.b")
	a, b := extents[0], extents[1]
	head, tail, miscounted := extent.Extent{Log: "t.a"}, extent.Extent{Log: "t.a"}, a
	for i, half := range []*extent.Extent{&head, &head, &tail, &tail} {
		half.Add(entries[i].Seq, entries[i].Time, len(entries[i].Data))
	}
	miscounted.Count = 3
	beyond := a
	beyond.Last, beyond.Count = 9, 5

	if refused := s.Commit("0/tail.sst", tail, b); !slices.Equal(refused, []string{"t.a"}) {
		t.Fatalf("an extent that leaves a gap before it: refused %v", refused)
	}
	for _, e := range []extent.Extent{miscounted, beyond} {
		if refused := s.Commit("0/x.sst", e); len(refused) != 1 {
			t.Fatalf("extent %+v was accepted", e)
		}
	}
	if refused := s.Commit("0/head.sst", head); len(refused) > 0 {
		t.Fatalf("a partial extent: refused %v", refused)
	}
	if refused := s.Commit("0/head.sst", head); len(refused) > 0 {
		t.Fatalf("the same commit again must be answered as before, refused %v", refused)
	}
	if refused := s.Commit("0/other.sst", head); len(refused) != 1 {
		t.Fatal("the same entries in another segment were accepted")
	}
	if refused := s.Commit("0/all.sst", a); len(refused) != 1 {
		t.Fatal("an extent that overlaps the archived head was accepted")
	}
	if refused := s.Commit("0/rest.sst", tail); len(refused) > 0 {
		t.Fatalf("the rest: refused %v", refused)
	}
	if got := s.Archived("t.a"); !slices.Equal(got, []uint64{1, 2, 3, 4}) {
		t.Fatalf("archived %v", got)
	}
}

func TestMalformedRequestsAreAnswered(t *testing.T) {
	s := newSystem(t)
	s.start("a", t.TempDir()).awaitOwned()
	for _, op := range []wire.Operation{wire.OpDrain, wire.OpCommit, wire.OpSegments, wire.OpList, "nonsense"} {
		msg, err := s.NC.Request(wire.OwnerSubject(0, s.Epoch(), op), []byte("garbage"), 5*time.Second)
		if err != nil {
			t.Fatalf("%s: %v", op, err)
		}
		var reply wire.CommitReply
		if err := wire.Decode(msg.Data, &reply); err != nil || !errors.Is(reply.Err(), wire.ErrBadRequest) {
			t.Errorf("%s: %v, %v, want a bad request", op, err, reply.Err())
		}
	}
}

// TestFencedOwnerStepsDown holds invariant 4: after another's claim the owner commits nothing more, and serves no one
// under the new epoch until it has claimed again itself.
func TestFencedOwnerStepsDown(t *testing.T) {
	s := newSystem(t)
	n := s.start("a", t.TempDir())
	n.awaitOwned()
	s.Publish("logs.t.a", "1")
	s.TakeReady("t.a")
	_, extents := s.Drain("t.a")
	old := s.Epoch()
	m, err := manifest.Open(t.Context(), s.JS, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Append(t.Context(), manifest.Record{Kind: manifest.Claim, Epoch: old + 1,
		Owner: "usurper"}); err != nil {
		t.Fatal(err)
	}
	var reply wire.CommitReply
	err = s.AskEpoch(old, wire.OpCommit, wire.CommitRequest{Segment: extent.Segment{Key: "0/x.sst", Size: 1},
		Extents: extents}, &reply)
	if err != nil || !errors.Is(reply.Err(), wire.ErrNotOwner) {
		t.Fatalf("commit to the fenced owner: %v, %v", err, reply.Err())
	}
	if len(s.Archived("t.a")) > 0 {
		t.Fatal("the fenced owner's commit is in the manifest")
	}
	s.Until("the node to claim again", func() bool { return s.Epoch() == old+2 })
	n.awaitOwned()
	if err := s.AskEpoch(old, wire.OpDrain, wire.DrainRequest{Logs: []string{"t.a"}, MaxBytes: 1 << 20},
		&wire.DrainReply{}); !errors.Is(err, nats.ErrNoResponders) {
		t.Fatalf("somebody still answers in the old epoch: %v", err)
	}
	s.TakeReady("t.a")
	if refused := s.Commit("0/y.sst", extents...); len(refused) > 0 {
		t.Fatalf("refused %v", refused)
	}
}

// TestDiskIsACache holds invariant 1: with the Pebble directory gone, what is archived is not archived again and what
// is not archived is all there.
func TestDiskIsACache(t *testing.T) {
	for name, wipe := range map[string]bool{"same disk": false, "empty disk": true} {
		t.Run(name, func(t *testing.T) {
			s := newSystem(t)
			dir := t.TempDir()
			n := s.start("a", dir, func(c *Config) { c.Trim = shard.TrimNever })
			n.awaitOwned()
			s.Publish("logs.t.a", "1", "2")
			s.Publish("logs.t.b", "3")
			s.Publish("logs.t.a", "4")
			s.TakeReady("t.a", "t.b")
			entries, extents := s.Drain("t.a")
			if ingesttest.Payloads(entries) != "1,2,4" {
				t.Fatalf("drained %s", ingesttest.Payloads(entries))
			}
			if refused := s.Commit("0/a.sst", extents...); len(refused) > 0 {
				t.Fatalf("refused %v", refused)
			}
			n.stop()
			s.Publish("logs.t.a", "5")
			if wipe {
				if err := os.RemoveAll(dir); err != nil {
					t.Fatal(err)
				}
			}
			n = s.start("a", dir, func(c *Config) { c.Trim = shard.TrimNever })
			n.awaitOwned()
			s.TakeReady("t.a", "t.b")
			entries, extents = s.Drain("t.a", "t.b")
			if ingesttest.Payloads(entries) != "5,3" {
				t.Fatalf("after the restart drained %s, want only what is not archived", ingesttest.Payloads(entries))
			}
			if refused := s.Commit("0/b.sst", extents...); len(refused) > 0 {
				t.Fatalf("refused %v", refused)
			}
			if got := s.Archived("t.a"); !slices.Equal(got, []uint64{1, 4, 5}) {
				t.Fatalf("archived %v", got)
			}
			if lost := n.metric("dormouse_entries_lost_total"); lost != 0 {
				t.Fatalf("%v entries counted as lost", lost)
			}
		})
	}
}

// TestCrashAfterTheManifestAppend leaves a commit in the manifest that Pebble never saw, as a kill between the two
// does.
func TestCrashAfterTheManifestAppend(t *testing.T) {
	s := newSystem(t)
	dir := t.TempDir()
	n := s.start("a", dir)
	n.awaitOwned()
	s.Publish("logs.t.a", "1", "2")
	s.Publish("logs.t.b", "3")
	s.TakeReady("t.a", "t.b")
	_, extents := s.Drain("t.a", "t.b")
	n.stop()
	m, err := manifest.Open(t.Context(), s.JS, 0)
	if err != nil {
		t.Fatal(err)
	}
	last, _ := m.Last()
	record := manifest.Record{Kind: manifest.Commit, Epoch: last.Epoch, Owner: "a", Floor: last.Floor,
		Segments: s.Segment("0/a.sst", extents[:1]...)}
	if _, err := m.Append(t.Context(), record); err != nil {
		t.Fatal(err)
	}
	n = s.start("a", dir)
	n.awaitOwned()
	s.TakeReady("t.b")
	if entries, _ := s.Drain("t.a", "t.b"); ingesttest.Payloads(entries) != "3" {
		t.Fatalf("drained %s, want only what the manifest does not have", ingesttest.Payloads(entries))
	}
	if live := s.Live(); len(live) != 1 || live[0].Extent != extents[0] {
		t.Fatalf("the archive has %+v", live)
	}
	if synced := n.metric("dormouse_entries_synced_total"); synced != 0 {
		t.Errorf("%v entries count as archived by this node", synced)
	}
	// What was taken in before the restart, and by nobody since, is archived as ever.
	_, extents = s.Drain("t.b")
	if refused := s.Commit("0/b.sst", extents...); len(refused) > 0 {
		t.Errorf("refused %v", refused)
	}
}

// TestBackPressureEndsInJetStream holds invariant 6: over its limit the buffer takes no more, whatever is published,
// and goes on when it is drained.
func TestBackPressureEndsInJetStream(t *testing.T) {
	s := newSystem(t)
	const limit = 64 << 10
	n := s.start("a", t.TempDir(), func(c *Config) { c.BufferLimit, c.MaxDelay = limit, time.Hour })
	n.awaitOwned()
	payload := strings.Repeat("x", 16<<10)
	const entries = 2000
	const batchBytes = 4 << 20 // of package shard
	var logs []string
	for i := range entries {
		log := fmt.Sprintf("t.%04d", i)
		logs = append(logs, log)
		if _, err := s.JS.PublishAsync("logs."+log, []byte(payload)); err != nil {
			t.Fatal(err)
		}
	}
	<-s.JS.PublishAsyncComplete()
	s.Until("the limit to be met", func() bool { return n.metric("dormouse_buffer_bytes") >= limit })
	s.TakeReady(logs[0]) // not due for an hour, and ready all the same, or the buffer would stay full
	for done := 0; done < entries; {
		if buffered := n.metric("dormouse_buffer_bytes"); buffered > limit+batchBytes+float64(len(payload)) {
			t.Fatalf("%v bytes buffered with a limit of %d and batches of %d", buffered, limit, batchBytes)
		}
		var extents []extent.Extent
		s.Until("log "+logs[done], func() bool {
			_, extents = s.Drain(slices.Clone(logs[done:min(done+32, entries)])...)
			return len(extents) > 0 && len(s.Commit("0/"+logs[done]+".sst", extents...)) == 0
		})
		done += len(extents)
	}
	n.awaitMetric("dormouse_logs_active", 0)
}

// TestSmallBufferLimit: one entry is more than the limit, and when it is archived the next one comes.
func TestSmallBufferLimit(t *testing.T) {
	s := newSystem(t)
	n := s.start("a", t.TempDir(), func(c *Config) { c.BufferLimit = 50 })
	n.awaitOwned()
	for i := range 3 {
		s.Publish("logs.t.a", fmt.Sprint(i))
		n.awaitMetric("dormouse_entries_ingested_total", float64(i+1))
		s.TakeReady("t.a")
		_, extents := s.Drain("t.a")
		if refused := s.Commit(fmt.Sprintf("0/%d.sst", i), extents...); len(refused) > 0 {
			t.Fatalf("refused %q", refused)
		}
	}
}

// TestSourceThatLostItsEnd restarts on a stream that was made anew without the last entries, as after a power failure:
// what is published under the used sequences must not be taken for what was there before.
func TestSourceThatLostItsEnd(t *testing.T) {
	s := newSystem(t)
	dir := t.TempDir()
	n := s.start("a", dir, func(c *Config) { c.Trim = shard.TrimNever })
	n.awaitOwned()
	s.Publish("logs.t.a", "1", "2")
	n.awaitMetric("dormouse_entries_ingested_total", 2)
	n.stop()
	s.ForgetEnd(dir)
	s.Publish("logs.t.a", "new 3") // takes a sequence that the cache says was applied
	n = s.start("a", dir, func(c *Config) { c.Trim = shard.TrimNever })
	n.awaitOwned()
	n.awaitMetric("dormouse_entries_ingested_total", 3)
	s.TakeReady("t.a")
	if entries, _ := s.Drain("t.a"); ingesttest.Payloads(entries) != "1,2,new 3" {
		t.Fatalf("drained %s", ingesttest.Payloads(entries))
	}
}

// TestPositionThatLeadsNowhere: the disk is as of a record that counts for nothing, which a scan had taken for the next
// one while another history began. No scan from there comes to any claim, so the disk is given up.
func TestPositionThatLeadsNowhere(t *testing.T) {
	s := newSystem(t)
	dir := t.TempDir()
	n := s.start("a", dir)
	n.awaitOwned()
	s.Publish("logs.t.a", "1", "2")
	s.TakeReady("t.a")
	_, extents := s.Drain("t.a")
	if refused := s.Commit("0/a.sst", extents...); len(refused) > 0 {
		t.Fatal(refused)
	}
	n.stop()
	m, err := manifest.Open(t.Context(), s.JS, 0)
	if err != nil {
		t.Fatal(err)
	}
	end := m.Mark()
	vain := manifest.Record{Kind: manifest.Floor, Epoch: 1, Owner: "lost", ID: "vain", Prev: end.Seq, PrevID: "lost"}
	data, err := vain.Encode()
	if err != nil {
		t.Fatal(err)
	}
	ack, err := s.JS.Publish(t.Context(), wire.ManifestSubject(0), data)
	if err != nil {
		t.Fatal(err)
	}
	db, err := cache.Open(dir, cache.Options{})
	if err != nil {
		t.Fatal(err)
	}
	pos, err := db.Position(0)
	if err != nil {
		t.Fatal(err)
	}
	pos.ManifestSeq, pos.ManifestID = ack.Sequence, vain.ID
	batch := db.NewBatch()
	if err := errors.Join(cache.SetPosition(batch, 0, pos), batch.Commit(pebble.NoSync), batch.Close(),
		db.Close()); err != nil {
		t.Fatal(err)
	}
	n = s.start("a", dir)
	n.awaitOwned()
	if all := s.catalog(); len(all) != 1 || all[0].Segment.Key != "0/a.sst" {
		t.Errorf("the catalog has %+v", all)
	}
}

// TestTwoNodesOneOwner: the second stands by, ready, and takes over when the first has gone.
func TestTwoNodesOneOwner(t *testing.T) {
	s := newSystem(t)
	const shortLease = 600 * time.Millisecond
	short := func(c *Config) { c.Lease = shortLease }
	_, err := topology.Ensure(t.Context(), s.JS, topology.Config{RequeueAfter: time.Minute, Lease: shortLease,
		Replicas: 1})
	if err != nil {
		t.Fatal(err)
	}
	first := s.start("a", t.TempDir(), short)
	first.awaitOwned()
	epoch := s.Epoch()
	second := s.start("b", t.TempDir(), short)
	s.Until("the second to stand by", func() bool { return second.node.Ready() == nil })
	if second.metric("dormouse_shards_owned") != 0 || s.Epoch() != epoch {
		t.Fatal("the second node claimed a shard that is owned")
	}
	s.Publish("logs.t.a", "1")
	s.TakeReady("t.a")
	for began := time.Now(); time.Since(began) < 3*shortLease; { // a lease that is kept does not run out
		if second.metric("dormouse_shards_owned") != 0 || s.Epoch() != epoch {
			t.Fatal("the second node took over a shard whose owner lives")
		}
	}
	first.stop()
	second.awaitOwned()
	s.TakeReady("t.a")
	_, extents := s.Drain("t.a")
	if refused := s.Commit("0/a.sst", extents...); len(refused) > 0 || len(extents) != 1 {
		t.Fatalf("the successor has %v, refused %v", extents, refused)
	}
}

func TestListHasWhatIsBuffered(t *testing.T) {
	s := newSystem(t)
	s.start("a", t.TempDir()).awaitOwned()
	for i := range 20 {
		s.Publish(fmt.Sprintf("logs.t.%02d", i), "x")
	}
	var all []string
	for i := range 20 {
		all = append(all, fmt.Sprintf("t.%02d", i))
	}
	s.TakeReady(all...)
	_, extents := s.Drain(all[:10]...)
	s.Commit("0/a.sst", extents...)
	s.Publish("logs.t.03", "later")
	s.Until("the later entry", func() bool { e, _ := s.Drain("t.03"); return len(e) == 1 })
	var got []string
	req := wire.ListRequest{Prefix: "t.", Limit: 3}
	for more := true; more; {
		var reply wire.ListReply
		if err := s.Ask(wire.OpList, req, &reply); err != nil || reply.Err() != nil {
			t.Fatalf("%v, %v", err, reply.Err())
		}
		for _, l := range reply.Logs {
			got = append(got, l.Log)
			if l.Buffered.Entries != 1 || l.Archived.Entries != 0 {
				t.Errorf("%+v", l)
			}
			req.After = l.Log
		}
		more = reply.More
	}
	all = append([]string{"t.03"}, all[10:]...)
	if !slices.Equal(got, all) {
		t.Fatalf("listed %v", got)
	}
}
