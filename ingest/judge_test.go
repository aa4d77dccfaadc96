package ingest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"dormouse/internal/extent"
	"dormouse/internal/wire"
)

// twoLogs is a shard of two logs, of which t.a has entries at 1, 2, 4 and 5 and t.b one at 3, and what a worker drains
// of them.
func twoLogs(t *testing.T) (s *system, n *node, a, b extent.Extent) {
	s = newSystem(t)
	n = s.start("a", t.TempDir(), func(c *Config) { c.MaxDelay = time.Hour })
	n.awaitOwned()
	for _, log := range []string{"a", "a", "b", "a", "a"} {
		s.Publish("logs.t."+log, "four")
	}
	n.awaitMetric("dormouse_entries_ingested_total", 5)
	_, extents := s.Drain("t.a", "t.b")
	return s, n, extents[0], extents[1]
}

// TestFaultyExtents: an extent is refused unless it is what is buffered from the log's first entry on, whether it has
// all of that or a part. What else is in its request counts.
func TestFaultyExtents(t *testing.T) {
	s, n, a, b := twoLogs(t)
	entries, _ := s.Drain("t.a")
	part := func(entries ...int) extent.Extent {
		e := extent.Extent{Log: "t.a"}
		for _, i := range entries {
			e.Add([]uint64{1, 2, 4, 5}[i], s.Message([]uint64{1, 2, 4, 5}[i]).Time, 4)
		}
		return e
	}
	if len(entries) != 4 || part(0, 1, 2, 3) != a {
		t.Fatalf("drained %+v", a)
	}
	with := func(e extent.Extent, change func(*extent.Extent)) extent.Extent { change(&e); return e }
	head := part(0, 1, 2)
	for name, e := range map[string]extent.Extent{
		"a part with too few entries":           with(head, func(e *extent.Extent) { e.Count = 2 }),
		"a part with too many entries":          with(head, func(e *extent.Extent) { e.Count = 4 }),
		"a part without an entry in its middle": part(0, 2),
		"a part that ends at no entry":          with(part(0, 1), func(e *extent.Extent) { e.Last = 3 }),
		"a part with other bytes":               with(head, func(e *extent.Extent) { e.Bytes++ }),
		"a part that begins too late":           with(head, func(e *extent.Extent) { e.MinTime++ }),
		"a part that ends too early":            with(head, func(e *extent.Extent) { e.MaxTime-- }),
		"a part that ends too late":             with(head, func(e *extent.Extent) { e.MaxTime++ }),
		"a part that begins before the log":     with(part(1, 2), func(e *extent.Extent) { e.First = 1 }),
		"a part with a gap before it":           part(1, 2),
		"the end with a gap before it":          part(1, 2, 3),
		"the log with too few entries":          with(a, func(e *extent.Extent) { e.Count-- }),
		"the log with too many entries":         with(a, func(e *extent.Extent) { e.Count++ }),
		"the log with other bytes":              with(a, func(e *extent.Extent) { e.Bytes = 1 << 60 }),
		"the log beyond its end":                with(a, func(e *extent.Extent) { e.Last = 6 }),
		"the log beyond its end counted so":     with(a, func(e *extent.Extent) { e.Last, e.Count = 6, 5 }),
		"the log with entries of the future":    with(a, func(e *extent.Extent) { e.MaxTime += int64(time.Hour) }),
		"everything": with(a,
			func(e *extent.Extent) { e.Last, e.Count, e.Bytes = 1<<63, 1<<62, 1<<62 }),
		"a log that nobody has":                with(a, func(e *extent.Extent) { e.Log = "t.a.b" }),
		"one entry that takes its time":        with(part(0), func(e *extent.Extent) { e.MinTime-- }),
		"from the first entry to beyond all":   with(a, func(e *extent.Extent) { e.First, e.Last = 1, 1<<40 }),
		"a log of one entry that begins early": with(b, func(e *extent.Extent) { e.MinTime-- }),
		"with the sequences of another":        with(b, func(e *extent.Extent) { e.Log = "t.a" }),
	} {
		if refused := s.Commit("0/"+strings.ReplaceAll(name, " ", "-")+".sst", e); !slices.Equal(refused, []string{e.Log}) {
			t.Errorf("%s: %+v was accepted", name, e)
		}
		if n.metric("dormouse_buffer_entries") != 5 {
			t.Fatalf("%s: entries have left the buffer", name)
		}
	}
	if refused := s.Commit("0/bad.sst", part(1, 2), b); !slices.Equal(refused, []string{"t.a"}) {
		t.Errorf("with a good one: refused %v", refused)
	}
	if refused := s.Commit("0/head.sst", head); len(refused) > 0 {
		t.Errorf("a part: refused %v", refused)
	}
	if refused := s.Commit("0/tail.sst", part(3)); len(refused) > 0 {
		t.Errorf("the rest: refused %v", refused)
	}
	n.awaitMetric("dormouse_logs_active", 0)
	if got := s.Archived("t.a"); !slices.Equal(got, []uint64{1, 4, 5}) {
		t.Errorf("archived %v", got)
	}
}

// TestFaultyCommits are refused as a whole.
func TestFaultyCommits(t *testing.T) {
	s, n, a, b := twoLogs(t)
	good := extent.Segment{Key: "0/a.sst", Size: 1}
	segment := func(key string, size uint64) wire.CommitRequest {
		return wire.CommitRequest{Segment: extent.Segment{Key: key, Size: size}, Extents: []extent.Extent{a, b}}
	}
	named := func(log string) wire.CommitRequest {
		e := a
		e.Log = log
		return wire.CommitRequest{Segment: good, Extents: []extent.Extent{e}}
	}
	for name, request := range map[string]wire.CommitRequest{
		"another shard's segment":  segment("1/a.sst", 1),
		"a shard that begins so":   segment("00/a.sst", 1),
		"no shard":                 segment("a.sst", 1),
		"a checkpoint":             segment("0/checkpoint/a.tree", 1),
		"a folder":                 segment("0/x/a.sst", 1),
		"out of the folder":        segment("0/../1/a.sst", 1),
		"no name":                  segment("0/.sst", 1),
		"a hidden name":            segment("0/..sst", 1),
		"no segment":               segment("0/a", 1),
		"a name with spaces":       segment("0/a b.sst", 1),
		"a long name":              segment("0/"+fmt.Sprintf("%0100d", 1)+".sst", 1),
		"nothing in it":            segment("0/a.sst", 0),
		"more than can be":         segment("0/a.sst", 1<<50),
		"an extent twice":          {Segment: good, Extents: []extent.Extent{a, a}},
		"extents out of order":     {Segment: good, Extents: []extent.Extent{b, a}},
		"no LogID":                 named("t"),
		"a wildcard":               named("t.*"),
		"a LogID with a zero byte": named("t.a\x00b"),
		"no extents":               {Segment: good},
	} {
		var reply wire.CommitReply
		if err := s.Ask(wire.OpCommit, request, &reply); err != nil || !errors.Is(reply.Err(), wire.ErrBadRequest) {
			t.Errorf("%s: %v, %v, %v refused", name, err, reply.Err(), reply.Refused)
		}
	}
	if n.metric("dormouse_buffer_entries") != 5 || len(s.catalog()) > 0 {
		t.Error("something was committed")
	}
}

// TestSegmentIsCommittedOnce: a later request of another content under the same key is refused; the same request again
// is not.
func TestSegmentIsCommittedOnce(t *testing.T) {
	s, _, a, b := twoLogs(t)
	if refused := s.Commit("0/a.sst", a); len(refused) > 0 {
		t.Fatal(refused)
	}
	if refused := s.Commit("0/a.sst", b); !slices.Equal(refused, []string{"t.b"}) {
		t.Errorf("another content under the key: refused %v", refused)
	}
	if refused := s.Commit("0/a.sst", a); len(refused) > 0 {
		t.Errorf("the same again: refused %v", refused)
	}
	if refused := s.Commit("0/b.sst", b); len(refused) > 0 {
		t.Errorf("under its own key: refused %v", refused)
	}
}
