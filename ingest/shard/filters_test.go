package shard

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"dormouse/internal/extent"
	"dormouse/internal/wire"
	"dormouse/store/cache"
)

// holders commits fresh segments of an owner, each of which has a log of every so many, and always the first and the
// last one, so that the key ranges tell nothing. It returns the keys of those that hold each log.
func holders(t *testing.T, o *trial, segments int, logs []string, has func(segment, log int) bool) map[string][]string {
	t.Helper()
	holds := make(map[string][]string)
	for n := range segments {
		key := fmt.Sprintf("0/%02d.sst", n)
		var chosen []string
		for i, log := range logs {
			if i == 0 || i == len(logs)-1 || has(n, i) {
				chosen = append(chosen, log)
				holds[log] = append(holds[log], key)
			}
		}
		o.commit(t, key, fill(t, o, chosen, 1)...)
	}
	return holds
}

// asked returns the keys of the segments that a read of a log opens.
func (o *trial) asked(t *testing.T, log string) (keys []string) {
	t.Helper()
	reply, err := o.server.look(wire.HeldRequest{Log: log, MaxBytes: 1 << 20})
	if err != nil || reply.More {
		t.Fatalf("%+v, %v", reply, err)
	}
	for _, p := range reply.Pieces {
		keys = append(keys, p.Segment.Object.Key)
	}
	return keys
}

func namesOfLogs(n int) (logs []string) {
	for i := range n {
		logs = append(logs, fmt.Sprintf("t.log%04d", i))
	}
	return logs
}

// TestReadsAskForWhatHoldsTheLog: of 24 fresh segments, a read of a log asks for the two that hold it, though all have
// it in their key range; and whether a batch of the stream is complete, these alone decide.
func TestReadsAskForWhatHoldsTheLog(t *testing.T) {
	o := claimed(t)
	logs := namesOfLogs(100)
	const log = 17
	holds := holders(t, o, 24, logs, func(segment, i int) bool {
		if i == log {
			return segment == 5 || segment == 20
		}
		return (segment+i)%3 == 0
	})
	if got := o.asked(t, logs[log]); !slices.Equal(got, holds[logs[log]]) {
		t.Errorf("a read of %s asks for %v, it is in %v", logs[log], got, holds[logs[log]])
	}
	if got := o.asked(t, "t.log0017a"); len(got) > 0 { // which nobody has
		t.Errorf("a read of a log that is nowhere asks for %v", got)
	}
	reply, err := o.server.look(wire.HeldRequest{Log: "t.log0017a", UpTo: 1})
	if err != nil || !reply.Complete {
		t.Errorf("a log that is nowhere has entries in the archive: %+v, %v", reply, err)
	}
}

// TestFiltersHideNothing: whatever was committed, merged, and taken over, a read asks for every segment that holds the
// log.
func TestFiltersHideNothing(t *testing.T) {
	o := claimed(t)
	rng := rand.New(rand.NewPCG(1, 2))
	logs := namesOfLogs(300)
	holds := holders(t, o, 12, logs, func(int, int) bool { return rng.IntN(5) == 0 })
	check := func(when string, atMost int) {
		t.Helper()
		asked := 0
		for _, log := range logs {
			got := o.asked(t, log)
			asked += len(got)
			for _, key := range holds[log] {
				if !slices.Contains(got, key) {
					t.Fatalf("%s, a read of %s does not ask for %s: %v", when, log, key, got)
				}
			}
		}
		if asked > atMost {
			t.Errorf("%s, reads of all logs ask for %d segments, want at most %d", when, asked, atMost)
		}
	}
	total := 0
	for _, keys := range holds {
		total += len(keys)
	}
	check("committed", total+total/10)
	o.merge(t, nil, "0/m.sst", "0/00.sst", "0/01.sst", "0/02.sst")
	for log, keys := range holds {
		holds[log] = slices.DeleteFunc(keys, func(key string) bool { return key < "0/03.sst" })
	}
	check("merged", total+total/10+len(logs)) // of the merged one nothing is known but its range
}

// TestFiltersOfATakeover: of the fresh segments whose tables of contents a claim reads, the next owner has filters, and
// of no other ones. What was refused in one it does not hold.
func TestFiltersOfATakeover(t *testing.T) {
	o := claimed(t)
	logs := namesOfLogs(50)
	holds := holders(t, o, 6, logs, func(segment, i int) bool { return i%6 == segment })
	o.merge(t, nil, "0/m.sst", "0/00.sst", "0/01.sst")
	live, _ := o.ledger.live()
	runs := live.Runs()
	last := &runs[len(runs)-1].Segments[0]
	refused := logs[6+5]
	last.Refused = []string{refused}
	read := runs[2].Segments[0].MaxSeq // it, and what is older, is not read
	c := *o.claim
	c.ledger = newLedger(c.disk, nil, nil)
	if err := c.compare(t.Context(), live, cache.Position{}, cache.Position{Applied: read}); err != nil {
		t.Fatal(err)
	}
	f := c.ledger.filters
	for key, want := range map[string]bool{"0/m.sst": false, "0/02.sst": false, "0/03.sst": false, "0/04.sst": true,
		"0/05.sst": true} {
		if _, has := f.mu.of[key]; has != want {
			t.Errorf("segment %s has a filter: %v", key, has)
		}
	}
	for _, log := range logs {
		if held := slices.Contains(holds[log], "0/05.sst") && log != refused; held && !f.mayHold("0/05.sst", log) {
			t.Errorf("%s is hidden", log)
		}
	}
	if f.mayHold("0/05.sst", refused) {
		t.Errorf("%s may be in a segment in which it was refused", refused)
	}
	if err := c.compare(t.Context(), live, cache.Position{}, cache.Position{}); err != nil {
		t.Fatal(err)
	}
	if _, has := f.mu.of["0/m.sst"]; has || len(f.mu.of) != 4 {
		t.Errorf("%d filters, one of what is merged: %v", len(f.mu.of), has)
	}
}

// TestFiltersGoWithTheirSegments: nothing is kept of a segment that is merged.
func TestFiltersGoWithTheirSegments(t *testing.T) {
	o := claimed(t)
	logs := namesOfLogs(20)
	holders(t, o, 4, logs, func(int, int) bool { return true })
	f := o.ledger.filters
	if n := len(f.mu.of); n != 4 || f.mu.bytes == 0 {
		t.Fatalf("%d filters of %d bytes for 4 segments", n, f.mu.bytes)
	}
	o.merge(t, nil, "0/m.sst", "0/00.sst", "0/01.sst", "0/02.sst")
	if _, has := f.mu.of["0/03.sst"]; len(f.mu.of) != 1 || !has {
		t.Errorf("%d filters are left, of the segment that is fresh: %v", len(f.mu.of), has)
	}
	o.merge(t, nil, "0/n.sst", "0/m.sst", "0/03.sst")
	if len(f.mu.of) > 0 || f.mu.bytes != 0 {
		t.Errorf("%d filters of %d bytes are left", len(f.mu.of), f.mu.bytes)
	}
}

// TestFiltersAreBounded: a segment that there is no room for may hold any log.
func TestFiltersAreBounded(t *testing.T) {
	f := newFilters()
	contents := make([]extent.Extent, wire.MaxCommitLogs)
	for i := range contents {
		contents[i].Log = fmt.Sprintf("t.log%04d", i)
	}
	const segments = 1000
	for n := range segments {
		f.add(fmt.Sprint(n), contents)
	}
	if f.mu.bytes > maxFilterBytes || f.mu.bytes < maxFilterBytes*9/10 {
		t.Errorf("filters of %d bytes", f.mu.bytes)
	}
	if f.mayHold("0", "t.other") || !f.mayHold("0", "t.log0007") || !f.mayHold(fmt.Sprint(segments-1), "t.other") {
		t.Error("a filter is wrong, or that of the last segment is there")
	}
	f.drop([]extent.Summary{{Object: extent.Segment{Key: "0"}}, {Object: extent.Segment{Key: "unknown"}}})
	f.add("new", contents)
	if !f.mayHold("0", "t.other") || f.mayHold("new", "t.other") {
		t.Error("the room of a filter that was dropped is not used again")
	}
}
