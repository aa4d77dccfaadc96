package shard

import (
	"errors"
	"slices"
	"testing"

	"github.com/nats-io/nats.go"

	"dormouse/internal/streamreader"
	"dormouse/internal/wire"
)

// TestDoubtsThatAreGone: a message that the stream dropped between its coming and the look at its block is a gap, in
// its place among the others; one that is another by now makes the owner read again.
func TestDoubtsThatAreGone(t *testing.T) {
	o := claimed(t)
	s := o.system(t)
	for range 3 {
		if _, err := s.JS.PublishMsg(t.Context(), &nats.Msg{Subject: "logs.t.a",
			Header: nats.Header{"A": {"1"}}}); err != nil {
			t.Fatal(err)
		}
	}
	doubts := func(seqs ...uint64) *batch {
		in := o.intake.newBatch()
		t.Cleanup(in.close)
		in.batch = o.site.DB.NewBatch()
		for _, seq := range seqs {
			in.doubts = append(in.doubts, streamreader.Message{Subject: "logs.t.a", Sequence: seq, Time: s.Message(seq).Time})
		}
		return in
	}
	in, another, unasked := doubts(1, 2, 3), doubts(1), doubts(3)
	in.gaps = []span{{7, 8}}
	another.doubts[0].Time = another.doubts[0].Time.Add(1)
	if err := o.from.stream.DeleteMsg(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	o.site.Advance.begins(Taking)
	_, began, _, _ := o.site.Advance.HeldUp(0)
	if err := in.lookAgain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(in.gaps, []span{{2, 2}, {7, 8}}) || len(in.arrivals) != 2 || in.arrivals[0].Seq != 1 ||
		in.arrivals[1].Seq != 3 || len(in.doubts) > 0 {
		t.Errorf("gaps %v, arrivals %v, doubts %v", in.gaps, in.arrivals, in.doubts)
	}
	if _, since, _, _ := o.site.Advance.HeldUp(0); !since.After(began) {
		t.Error("the shard is held up as before")
	}
	if err := another.lookAgain(t.Context()); !errors.Is(err, errSource) || len(another.arrivals) > 0 {
		t.Errorf("another one by now: %v, %v", another.arrivals, err)
	}
	js, refuse := s.Refusing("STREAM.MSG.GET." + wire.DefaultSource)
	refuse.Store(true)
	o.asksBy(js)
	if err := unasked.lookAgain(t.Context()); !errors.Is(err, errSource) || len(unasked.arrivals)+len(unasked.gaps) > 0 {
		t.Errorf("no answer: %v, %v, %v", unasked.arrivals, unasked.gaps, err)
	}
}
