package shard

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"dormouse/internal/extent"
	"dormouse/internal/streamreader"
	"dormouse/internal/wire"
	"dormouse/store/identity"
)

// TestCommitsOfOneGroup: what one of them commits is not committed by another one, and its segment has nothing else.
func TestCommitsOfOneGroup(t *testing.T) {
	o := claimed(t)
	extents := fill(t, o, []string{"t.a", "t.b"}, 2)
	a, b := extents[0], extents[1]
	call := func(key string, extents ...extent.Extent) *commitCall {
		data, err := wire.Encode(wire.CommitRequest{Segment: extent.Segment{Key: key, Size: 1}, Extents: extents})
		if err != nil {
			t.Fatal(err)
		}
		return &commitCall{msg: &nats.Msg{Data: data}}
	}
	for name, tc := range map[string]struct {
		group   []*commitCall
		refused []int // by call
		segment int   // that are committed
	}{
		"each its own":                   {[]*commitCall{call("0/a.sst", a), call("0/b.sst", b)}, []int{0, 0}, 2},
		"the same twice":                 {[]*commitCall{call("0/a.sst", a), call("0/a.sst", a)}, []int{0, 0}, 1},
		"the same entries, two segments": {[]*commitCall{call("0/a.sst", a), call("0/b.sst", a)}, []int{0, 1}, 1},
		"two contents under one name":    {[]*commitCall{call("0/a.sst", a), call("0/a.sst", b)}, []int{0, 1}, 1},
		"the same and more, one name":    {[]*commitCall{call("0/a.sst", a), call("0/a.sst", a, b)}, []int{0, 2}, 1},
		"one has nothing that is accepted": {[]*commitCall{call("0/a.sst", a), call("0/b.sst", a), call("0/b.sst", b)},
			[]int{0, 1, 0}, 2},
	} {
		committed, err := newJudge(*o.site, o.claim.clock, o.ledger).decide(t.Context(), tc.group)
		if err != nil || len(committed.segments) != tc.segment {
			t.Errorf("%s: %d segments accepted, %v", name, len(committed.segments), err)
		}
		for i, c := range tc.group {
			if len(c.refused) != tc.refused[i] || c.err != nil {
				t.Errorf("%s: call %d: %v refused, %v", name, i, c.refused, c.err)
			}
		}
	}
}

// TestLatestTimeIsNotTheLast: a clock of the servers' that goes back makes a log's last entry older than others of it.
func TestLatestTimeIsNotTheLast(t *testing.T) {
	o := claimed(t)
	in, e, now := o.intake.newBatch(), extent.Extent{Log: "t.a"}, time.Now()
	for i, at := range []time.Time{now, now.Add(-time.Hour)} {
		if err := in.take(streamreader.Message{Subject: "logs.t.a", Sequence: uint64(i + 1), Time: at}); err != nil {
			t.Fatal(err)
		}
		e.Add(uint64(i+1), at, 0)
	}
	if err := o.intake.apply(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	data, err := wire.Encode(wire.CommitRequest{Segment: extent.Segment{Key: "0/a.sst", Size: 1},
		Extents: []extent.Extent{e}})
	if err != nil {
		t.Fatal(err)
	}
	group := []*commitCall{{msg: &nats.Msg{Data: data}}}
	if committed, err := newJudge(*o.site, o.claim.clock, o.ledger).decide(t.Context(), group); err != nil ||
		len(committed.segments) != 1 {
		t.Errorf("%d segments accepted, %v, %v", len(committed.segments), group[0].refused, err)
	}
}

// TestSegmentMemory: it has a bound, and forgets those first that were committed first.
func TestSegmentMemory(t *testing.T) {
	var memory segmentMemory
	for i := range 2*rememberedSegments + 1 {
		memory.add(fmt.Sprint(i), uint64(i))
	}
	_, forgotten := memory.has(fmt.Sprint(rememberedSegments))
	offer, known := memory.has(fmt.Sprint(rememberedSegments + 1))
	if len(memory.known) != rememberedSegments || forgotten || !known || offer != rememberedSegments+1 {
		t.Errorf("%d segments are remembered, one of them with %d", len(memory.known), offer)
	}
}

// TestBucketsAreAskedOnce: the commits of a group do not each wait for JetStream.
func TestBucketsAreAskedOnce(t *testing.T) {
	asked := 0
	refused, away := fmt.Errorf("%w: another one", identity.ErrRefused), errors.New("no answer")
	g := judge{accepts: func(_ context.Context, id string) error {
		asked++
		return map[string]error{"ours": nil, "other": refused}[id]
	}}
	known := make(map[string]error)
	for range 5 {
		if err := g.inOurBucket(t.Context(), "ours", known); err != nil {
			t.Error(err)
		}
		if err := g.inOurBucket(t.Context(), "other", known); !errors.Is(err, wire.ErrBadRequest) {
			t.Errorf("another bucket: %v", err)
		}
	}
	if asked != 2 {
		t.Errorf("asked %d times for two buckets", asked)
	}
	asked, g.accepts = 0, func(context.Context, string) error { asked++; return away }
	for _, id := range []string{"a", "b", "a", "c"} {
		if err := g.inOurBucket(t.Context(), id, known); !errors.Is(err, away) {
			t.Errorf("while JetStream does not answer: %v", err)
		}
	}
	if err := g.inOurBucket(t.Context(), "ours", known); err != nil || asked != 1 {
		t.Errorf("asked %d times in vain; of what is known: %v", asked, err)
	}
}
