package shard

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"dormouse/ingest/ingesttest"
	"dormouse/internal/extent"
	"dormouse/internal/wire"
	"dormouse/store/tree"
)

// queued takes the merges off the queue that are in it.
func (s *system) queued() (items []wire.MergeItem) {
	s.T.Helper()
	consumer, err := s.JS.Consumer(s.T.Context(), wire.MergeStream, wire.MergePool)
	if err != nil {
		s.T.Fatal(err)
	}
	msgs, err := consumer.FetchNoWait(100)
	if err != nil {
		s.T.Fatal(err)
	}
	for msg := range msgs.Messages() {
		var item wire.MergeItem
		if err := errors.Join(wire.Decode(msg.Data(), &item), item.Validate(), msg.DoubleAck(s.T.Context())); err != nil {
			s.T.Fatal(err)
		}
		items = append(items, item)
	}
	return items
}

// TestMergesAreQueuedOnce: one for each level at a time, again when its time is over, and the next when it is done.
func TestMergesAreQueuedOnce(t *testing.T) {
	o := claimed(t)
	s := o.system(t)
	o.merger.limits = tree.Limits{Fresh: 3, Runs: []int{2}, Inputs: 10, Bytes: 1 << 30}
	plan := func(rest bool) []wire.MergeItem {
		t.Helper()
		live, _ := o.ledger.live()
		if err := o.merger.plan(t.Context(), live, rest); err != nil {
			t.Fatal(err)
		}
		return s.queued()
	}
	commits(t, o, 2)
	if items := plan(false); len(items) > 0 {
		t.Fatalf("too few, and queued %+v", items)
	}
	items := plan(true)
	if len(items) != 1 || items[0].Epoch != o.epoch || items[0].Level != 0 ||
		!slices.Equal(items[0].Inputs(), []string{"0/1.sst", "0/2.sst"}) {
		t.Fatalf("at rest queued %+v", items)
	}
	commits(t, o, 2)
	if items := plan(false); len(items) > 0 {
		t.Errorf("one is under way, and queued %+v", items)
	}
	under := o.merger.underway[0]
	under.until = time.Now().Add(-1)
	o.merger.underway[0] = under
	if items := plan(false); len(items) != 1 || len(items[0].Runs) != 4 {
		t.Errorf("its time is over, and queued %+v", items)
	}
	o.merge(t, nil, "0/m1.sst", "0/1.sst", "0/2.sst")
	if items := plan(false); len(items) > 0 {
		t.Errorf("it is done and few are left, and queued %+v", items)
	}
	commits(t, o, 1)
	if items := plan(false); len(items) != 1 || len(items[0].Runs) != 3 {
		t.Errorf("three are fresh, and queued %+v", items)
	}
	o.merge(t, nil, "0/m2.sst", "0/3.sst", "0/4.sst", "0/5.sst")
	if items := plan(false); len(items) != 1 || items[0].Level != 1 ||
		!slices.Equal(items[0].Inputs(), []string{"0/m1.sst", "0/m2.sst"}) {
		t.Errorf("two of the next level, and queued %+v", items)
	}
	o.merger.room = 250
	delete(o.merger.underway, 1)
	commits(t, o, 5)
	if items := plan(false); len(items) != 2 || len(items[0].Runs) != 2 || len(items[1].Runs) != 2 {
		t.Errorf("what does not fit is queued as %+v", items)
	}
}

// merge commits a worker's merge of segments that the archive knows, which must end as wanted.
func (o *trial) merge(t *testing.T, want error, key string, inputs ...string) {
	t.Helper()
	out := o.on.Archive.Join(inputs...)
	o.on.Archive.Has(key, out)
	o.replace(t, want, wire.ReplaceRequest{Inputs: inputs,
		Outputs: []extent.Summary{extent.Summarize(extent.Segment{Key: key, Size: 1}, out)}})
}

// replace makes a worker's request, which must end as wanted.
func (o *trial) replace(t *testing.T, want error, request wire.ReplaceRequest) {
	t.Helper()
	data, err := wire.Encode(request)
	if err != nil {
		t.Fatal(err)
	}
	var status wire.Status
	o.committer.parts.answerMerge = func(_ *mergeCall, s wire.Status) { status = s }
	group := []appendRequest{{merge: &mergeCall{msg: &nats.Msg{Data: data}}}}
	if err := o.committer.commit(t.Context(), group); err != nil || !errors.Is(status.Err(), want) {
		t.Fatalf("ended with %v, %+v, want %v", err, status, want)
	}
}

// TestMergesAreJudged: only neighbours that are live, by what has all that they have, in this shard's part of the
// bucket. What is refused changes nothing.
func TestMergesAreJudged(t *testing.T) {
	o := claimed(t)
	commits(t, o, 4)
	before, version := o.ledger.live()
	out := func(key string, change func(*extent.Summary), inputs ...string) []extent.Summary {
		s := extent.Summarize(extent.Segment{Key: key, Size: 1}, o.on.Archive.Join(inputs...))
		if change != nil {
			change(&s)
		}
		return []extent.Summary{s}
	}
	two := []string{"0/1.sst", "0/2.sst"}
	for name, request := range map[string]wire.ReplaceRequest{
		"not neighbours":    {Inputs: []string{"0/1.sst", "0/3.sst"}, Outputs: out("0/m.sst", nil, "0/1.sst", "0/3.sst")},
		"the wrong order":   {Inputs: []string{"0/2.sst", "0/1.sst"}, Outputs: out("0/m.sst", nil, two...)},
		"not the oldest":    {Inputs: []string{"0/2.sst", "0/3.sst"}, Outputs: out("0/m.sst", nil, "0/2.sst", "0/3.sst")},
		"one is not live":   {Inputs: []string{"0/4.sst", "0/5.sst"}, Outputs: out("0/m.sst", nil, "0/4.sst")},
		"nothing comes out": {Inputs: two},
		"too little":        {Inputs: two, Outputs: out("0/m.sst", nil, "0/1.sst")},
		"too much":          {Inputs: two, Outputs: out("0/m.sst", nil, "0/1.sst", "0/2.sst", "0/3.sst")},
		"other bytes":       {Inputs: two, Outputs: out("0/m.sst", func(s *extent.Summary) { s.Bytes++ }, two...)},
		"other times":       {Inputs: two, Outputs: out("0/m.sst", func(s *extent.Summary) { s.MaxTime++ }, two...)},
		"another shard's":   {Inputs: two, Outputs: out("1/m.sst", nil, two...)},
		"no segment":        {Inputs: two, Outputs: out("0/checkpoint/m.tree", nil, two...)},
		"a live one's name": {Inputs: two, Outputs: out("0/4.sst", nil, two...)},
		"with refused logs": {Inputs: two, Outputs: out("0/m.sst", func(s *extent.Summary) { s.Refused = []string{"t.b"} },
			two...)},
	} {
		t.Run(name, func(t *testing.T) { o.replace(t, wire.ErrBadRequest, request) })
	}
	if now, at := o.ledger.live(); fmt.Sprint(now) != fmt.Sprint(before) || at != version {
		t.Fatalf("the tree is %+v, was %+v", now, before)
	}
	o.merge(t, nil, "0/m.sst", two...)
	live, _ := o.ledger.live()
	if keys := tree.Inputs(live.Runs()); !slices.Equal(keys, []string{"0/m.sst", "0/3.sst", "0/4.sst"}) {
		t.Errorf("live are %q", keys)
	}
	o.merge(t, wire.ErrBadRequest, "0/again.sst", two...)
}

// TestGarbage: what a merge has replaced is deleted when its grace is over, and only while this owner's last record is
// in the manifest.
func TestGarbage(t *testing.T) {
	o := claimed(t)
	s := o.system(t)
	for _, key := range []string{"0/1.sst", "0/2.sst", "0/3.sst"} {
		if err := s.Bucket.Put(t.Context(), key, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	commits(t, o, 3)
	o.merge(t, nil, "0/m.sst", "0/1.sst", "0/2.sst")
	now := time.Now()
	if due, next := o.garbage.due(now.Add(o.garbage.grace - time.Minute)); len(due) > 0 || next.Before(now) {
		t.Errorf("due before the grace: %v, next %v", due, next)
	}
	due, next := o.garbage.due(now.Add(o.garbage.grace))
	if len(due) != 2 || !next.IsZero() {
		t.Fatalf("due after it: %v, next %v", due, next)
	}
	id := o.ledger.mu.pos.ManifestID
	o.ledger.mu.pos.ManifestID = "another"
	if n, err := o.garbage.delete(t.Context(), due); n > 0 || err == nil {
		t.Errorf("deleted %d though the manifest is another one: %v", n, err)
	}
	o.ledger.mu.pos.ManifestID = id
	o.garbage.grace = 0
	err := ingesttest.Ended(t, "the garbage to be deleted", func() error {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() {
			s.Until("the deletes", func() bool {
				var left []string
				for o, err := range s.Bucket.List(t.Context(), "0/") {
					if err != nil {
						return false
					}
					left = append(left, o.Key)
				}
				return slices.Equal(left, []string{"0/3.sst"})
			})
			cancel()
		}()
		return o.garbage.run(ctx)
	})
	if due, _ := o.garbage.due(time.Now()); err == nil || len(due) > 0 {
		t.Errorf("ended with %v, still due %v", err, due)
	}
}
