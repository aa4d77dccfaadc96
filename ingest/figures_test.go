package ingest

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"dormouse/internal/wire"
)

// TestFigures: what an owner says is not archived is exact, wherever in a block of sequences the rest begins.
func TestFigures(t *testing.T) {
	s := newSystem(t)
	n := s.start("a", t.TempDir(), func(c *Config) { c.MaxDelay = time.Hour })
	if n.metric("dormouse_stream_lag") != 0 || n.metric("dormouse_oldest_unarchived_seconds") != 0 {
		t.Error("an empty system has a lag")
	}
	n.awaitOwned()
	for i := range 20 {
		s.Publish(fmt.Sprintf("logs.t.%02d", i%10), "x")
	}
	n.awaitMetric("dormouse_entries_ingested_total", 20)
	is := func(lag int, oldest uint64) {
		t.Helper()
		got := n.node.Status()[0]
		want := int64(0)
		if oldest > 0 {
			want = s.Message(oldest).Time.UnixNano()
		}
		if got.Entries != uint64(lag) || got.Oldest != want || got.Applied != 20 ||
			n.metric("dormouse_stream_lag") != float64(lag) {
			t.Errorf("%+v and a lag of %v, want %d and the time of %d, %d", got, n.metric("dormouse_stream_lag"), lag, oldest,
				want)
		}
		age := n.metric("dormouse_oldest_unarchived_seconds")
		if since := time.Since(time.Unix(0, want)).Seconds(); oldest == 0 && age != 0 || oldest > 0 &&
			(age <= 0 || age > since) {
			t.Errorf("the oldest entry is %v s old, want %v", age, since)
		}
	}
	is(20, 1)
	commit := func(key string, logs ...string) {
		t.Helper()
		_, extents := s.Drain(logs...)
		if refused := s.Commit(key, extents...); len(refused) > 0 {
			t.Fatal(refused)
		}
	}
	commit("0/a.sst", "t.00", "t.02", "t.09")
	is(14, 2)
	entries, _ := s.Drain("t.01")
	_, extents := s.Drain("t.01")
	extents[0].Count, extents[0].Last, extents[0].Bytes, extents[0].MaxTime = 1, entries[0].Seq, 1,
		entries[0].Time.UnixNano()
	if refused := s.Commit("0/b.sst", extents...); len(refused) > 0 {
		t.Fatal(refused)
	}
	is(13, 4)
	commit("0/c.sst", "t.03", "t.04", "t.05", "t.06", "t.07", "t.08")
	is(1, 12)
	commit("0/d.sst", "t.01")
	is(0, 0)
}

// TestFiguresOfAFullBuffer: a node says how far a shard is that takes nothing in. When it has ended, with its database,
// it says so without a look at that.
func TestFiguresOfAFullBuffer(t *testing.T) {
	s := newSystem(t)
	const some, entries = 5, 30
	n := s.start("a", t.TempDir(), func(c *Config) { c.BufferLimit, c.MaxDelay, c.MaxBytes = 4<<10, time.Hour, 1<<30 })
	n.awaitOwned()
	for i := range entries {
		if i == some { // no others are taken in then, as nobody drains
			s.Until("the buffer to be full", func() bool { return n.node.Status()[0].Full })
		}
		s.Publish("logs.t.a", string(bytes.Repeat([]byte("x"), 1<<10)))
	}
	if got := n.node.Status()[0]; got.State != wire.ShardOwned || got.Applied == 0 || got.Applied > some ||
		got.Oldest == 0 || n.metric("dormouse_oldest_unarchived_seconds") == 0 {
		t.Errorf("%+v", got)
	}
	n.stop()
	if age := n.metric("dormouse_oldest_unarchived_seconds"); age != 0 {
		t.Errorf("after its end the oldest entry is %v s old", age)
	}
}
