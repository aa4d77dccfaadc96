package shard

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"dormouse/ingest/ingesttest"
	"dormouse/internal/extent"
	"dormouse/internal/jsapi"
	"dormouse/internal/streamreader"
	"dormouse/internal/wire"
	"dormouse/store/client"
	"dormouse/store/manifest"
	"dormouse/store/tree"
)

// ask asks an owner that serves for a cut.
func (o *trial) ask(t *testing.T, req wire.CutRequest) wire.CutReply {
	t.Helper()
	data, err := wire.Encode(req)
	if err != nil {
		t.Fatal(err)
	}
	reply, err := o.cutter.answer(t.Context(), &nats.Msg{Data: data})
	if err != nil {
		t.Fatal(err)
	}
	return reply
}

// offered is what a commit of extents is answered.
func (o *trial) offered(t *testing.T, key string, extents []extent.Extent) (refused []string) {
	t.Helper()
	o.on.Archive.Has(key, extents)
	data, err := wire.Encode(wire.CommitRequest{Segment: extent.Segment{Key: key, Size: 1}, Extents: extents})
	if err != nil {
		t.Fatal(err)
	}
	msg, err := o.on.NC.Request(wire.OwnerSubject(0, o.epoch, wire.OpCommit), data, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	var reply wire.CommitReply
	if err := wire.Decode(msg.Data, &reply); err != nil || reply.Err() != nil {
		t.Fatal(err, reply.Err())
	}
	for _, r := range reply.Refused {
		refused = append(refused, r.Log)
	}
	return refused
}

// TestCut: what is cut leaves the buffer, a worker that drained it before is refused, a log begins again, others stay,
// and the checkpoint that is taken before the answer has it.
func TestCut(t *testing.T) {
	o := claimed(t)
	extents := fill(t, o, []string{"acme.a", "acme.b", "b.a"}, 2)
	o.serve(t)
	wanted := extent.Cut{Logs: "acme.>", ID: "x", By: "somebody"}
	if reply := o.ask(t, wire.CutRequest{Cut: wanted, Look: true}); reply.Cut.Record != 0 {
		t.Errorf("before it was asked for it is %+v", reply)
	}
	reply := o.ask(t, wire.CutRequest{Cut: wanted})
	if c := reply.Cut; c.Record == 0 || c.UpTo != 6 || c.Logs != "acme.>" || c.By != "somebody" || reply.Segments > 0 {
		t.Fatalf("answered %+v", reply)
	}
	if stats := o.sched.Stats(); stats.Active != 1 || stats.Entries != 2 {
		t.Errorf("buffered are %+v", stats)
	}
	m, err := manifest.Open(t.Context(), o.site.JS, 0)
	if err != nil {
		t.Fatal(err)
	}
	at, err := m.Checkpoint(t.Context())
	if err != nil || at == nil {
		t.Fatal(at, err)
	}
	data, err := o.site.Bucket.Get(t.Context(), at.Object)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := tree.Decode(data)
	if err != nil || !reflect.DeepEqual(kept.Cuts(), extent.Cuts{reply.Cut}) {
		t.Errorf("the checkpoint has %+v, %v", kept.Cuts(), err)
	}
	if again := o.ask(t, wire.CutRequest{Cut: wanted}); !reflect.DeepEqual(again.Cut, reply.Cut) {
		t.Errorf("asked again: %+v, want %+v", again.Cut, reply.Cut)
	}
	if refused := o.offered(t, "0/1.sst", extents); !slices.Equal(refused, []string{"acme.a", "acme.b"}) {
		t.Errorf("refused are %q", refused)
	}
	later := fill(t, o, []string{"acme.a"}, 1)
	if refused := o.offered(t, "0/2.sst", later); len(refused) > 0 {
		t.Errorf("refused are %q, which came later", refused)
	}
	live, _ := o.ledger.live()
	var left []string
	for u := range live.Uncut() {
		left = append(left, u.Segment.Object.Key)
	}
	if !slices.Equal(left, []string{"0/1.sst"}) { // with what was refused
		t.Errorf("left are %q", left)
	}
}

// TestCutIsKeptAsARecord for people, in the bucket.
func TestCutIsKeptAsARecord(t *testing.T) {
	o := claimed(t)
	fill(t, o, []string{"acme.a"}, 1)
	s, _ := o.serve(t)
	o.ask(t, wire.CutRequest{Cut: extent.Cut{Logs: "acme.a", ID: "the-id", By: "jane", Before: 1}})
	var records int
	for object, err := range s.Bucket.List(t.Context(), "0/deleted/") {
		if err != nil {
			t.Fatal(err)
		}
		data, err := s.Bucket.Get(t.Context(), object)
		if err != nil || !bytes.Contains(data, []byte(`"by":"jane"`)) || !bytes.Contains(data, []byte(`"id":"the-id"`)) ||
			!bytes.Contains(data, []byte(`"logs":"acme.a"`)) || !bytes.Contains(data, []byte(`"before":"1970-01-01`)) {
			t.Errorf("%s, %v", data, err)
		}
		records++
	}
	if records != 1 {
		t.Errorf("there are %d records", records)
	}
}

// TestCutsThatAreRefused: no log, no ID, and more than an owner looks at for each question.
func TestCutsThatAreRefused(t *testing.T) {
	o := claimed(t)
	fill(t, o, []string{"a.b"}, 1)
	for name, c := range map[string]extent.Cut{
		"no log": {Logs: "a", ID: "x"}, "no ID": {Logs: "a.b"},
		"a long name": {Logs: "a.b", ID: "x", By: strings.Repeat("x", wire.MaxCutText+1)},
	} {
		data, err := wire.Encode(wire.CutRequest{Cut: c})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := o.cutter.answer(t.Context(), &nats.Msg{Data: data}); wire.StatusOf(err).Code != wire.BadRequest {
			t.Errorf("%s: %v", name, err)
		}
	}
	live := o.ledger.mu.tree
	for i := range uint64(tree.MaxCuts) {
		var err error
		if live, err = live.Cut(1000+i, extent.Cut{Logs: "a.b", UpTo: 1}); err != nil {
			t.Fatal(err)
		}
	}
	o.ledger.mu.tree = live
	if err := o.cutter.cut(t.Context(), extent.Cut{Logs: "a.b", ID: "x"}); wire.StatusOf(err).Code != wire.BadRequest {
		t.Errorf("too many: %v", err)
	}
}

// record makes a cut a record of the manifest, and applies it.
func (o *trial) record(t *testing.T, c extent.Cut) {
	t.Helper()
	done := make(chan error, 1)
	if err := o.committer.commit(t.Context(), []appendRequest{{cut: &c, done: done}}); err != nil || <-done != nil {
		t.Fatal(err)
	}
}

// TestCutWhileABatchIsTakenIn: what the batch has of it does not stay in the buffer, and what a later one has is
// stepped over.
func TestCutWhileABatchIsTakenIn(t *testing.T) {
	o := claimed(t)
	fill(t, o, []string{"acme.a", "b.a"}, 1)
	batchOf := func(from uint64, logs ...string) *batch {
		t.Helper()
		in := o.intake.newBatch()
		for i, log := range logs {
			if err := in.take(streamreader.Message{Subject: "logs." + log, Sequence: from + uint64(i),
				Time: time.Now()}); err != nil {
				t.Fatal(err)
			}
		}
		return in
	}
	before := batchOf(3, "acme.a", "b.a", "acme.b")
	o.record(t, extent.Cut{Logs: "acme.>", UpTo: 6, ID: "x", Made: 1})
	if err := o.intake.apply(t.Context(), before); err != nil {
		t.Fatal(err)
	}
	if err := o.intake.apply(t.Context(), batchOf(6, "acme.b", "acme.b")); err != nil {
		t.Fatal(err)
	}
	if stats := o.sched.Stats(); stats.Active != 2 || stats.Entries != 3 {
		t.Errorf("buffered are %+v", stats)
	}
	if p, _ := o.ledger.pending("acme.b"); p.First != 7 || p.Count != 1 {
		t.Errorf("of the log that began again %+v", p)
	}
	if applied := o.ledger.applied(); applied != 7 {
		t.Errorf("taken in up to %d", applied)
	}
}

// TestCutByTime removes what comes before the first entry that is not cut.
func TestCutByTime(t *testing.T) {
	o := claimed(t)
	in := o.intake.newBatch()
	for i, at := range []int64{10, 30, 20} {
		msg := streamreader.Message{Subject: "logs.a.b", Sequence: uint64(i) + 1, Time: time.Unix(at, 0)}
		if err := in.take(msg); err != nil {
			t.Fatal(err)
		}
	}
	if err := o.intake.apply(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	o.record(t, extent.Cut{Logs: "a.b", UpTo: 3, Before: time.Unix(25, 0).UnixNano(), ID: "x", Made: 1})
	if p, _ := o.ledger.pending("a.b"); p.First != 2 || p.Count != 2 {
		t.Errorf("left is %+v", p)
	}
}

// TestCutIsFoundByTheNextOwner: a crash between the record and the local state leaves entries in the buffer that the
// next claim removes.
func TestCutIsFoundByTheNextOwner(t *testing.T) {
	o := claimed(t)
	s := o.system(t)
	in := o.intake.newBatch()
	for i, log := range []string{"acme.a", "b.a", "acme.a", "acme.a"} {
		if _, err := s.JS.Publish(t.Context(), "logs."+log, nil); err != nil {
			t.Fatal(err)
		}
		msg, err := jsapi.Get(t.Context(), s.JS, o.site.Source.Stream, uint64(i)+1)
		if err == nil {
			err = in.take(streamreader.Message{Subject: msg.Subject, Sequence: msg.Sequence, Time: msg.Time})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := o.intake.apply(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	c := extent.Cut{Logs: "acme.a", UpTo: 3, ID: "x", Made: 1}
	if _, err := o.claim.chain.manifest.Append(t.Context(), manifest.Record{Kind: manifest.MakeCut, Epoch: o.epoch,
		Owner: "a", Cut: &c, Source: o.ledger.source(manifest.Source{})}); err != nil {
		t.Fatal(err)
	}
	next, err := Claim(t.Context(), *o.site)
	if err != nil {
		t.Fatal(err)
	}
	live, _ := next.ledger.live()
	if len(live.Cuts()) != 1 || next.Applied() != 4 {
		t.Errorf("the cuts are %+v, taken in are %d", live.Cuts(), next.Applied())
	}
	if p, _ := next.ledger.pending("acme.a"); p.First != 4 || p.Count != 1 {
		t.Errorf("of the log is left %+v", p)
	}
	if p, _ := next.ledger.pending("b.a"); p.Count != 1 {
		t.Errorf("of another one is left %+v", p)
	}
}

// TestMergeUnderACut: less than the inputs have is accepted only for what was said to be left out, and only under a cut
// that touches them.
func TestMergeUnderACut(t *testing.T) {
	o := claimed(t)
	commits(t, o, 3)
	left := extent.Size{Entries: 2, Bytes: 512}
	request := wire.ReplaceRequest{Inputs: []string{"0/1.sst", "0/2.sst"}, Left: left}
	o.replace(t, wire.ErrBadRequest, request) // nothing is cut
	o.record(t, extent.Cut{Logs: "t.a", UpTo: 2, ID: "x", Made: 1})
	cut := o.ledger.mu.tree.NewestCut().Record
	request.Cut = cut + 1
	o.replace(t, wire.ErrBadRequest, request) // of the future
	request.Cut, request.Left = cut, extent.Size{Entries: 1, Bytes: 256}
	o.replace(t, wire.ErrBadRequest, request) // one is missing
	request.Left, request.Cut = left, 0
	o.replace(t, wire.ErrBadRequest, request) // planned before it
	request.Cut = cut
	o.replace(t, nil, request)
	if live, _ := o.ledger.live(); live.Has("0/1.sst") || live.Has("0/2.sst") || !live.Has("0/3.sst") {
		t.Errorf("live is %+v", live)
	}
}

// TestCutLeavesTheSegments: what is wholly cut is dropped at once, the others are queued, each once.
func TestCutLeavesTheSegments(t *testing.T) {
	o := claimed(t)
	s := o.system(t)
	commits(t, o, 2)
	extents := fill(t, o, []string{"t.a", "t.b"}, 1)
	o.commit(t, "0/mixed.sst", extents...)
	o.record(t, extent.Cut{Logs: "t.a", UpTo: 9, ID: "x", Made: 1})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- o.committer.run(ctx) }()
	for range 2 {
		live, _ := o.ledger.live()
		if err := o.merger.plan(t.Context(), live, true); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	<-ended
	live, _ := o.ledger.live()
	if got := tree.Inputs(live.Runs()); !slices.Equal(got, []string{"0/mixed.sst"}) {
		t.Errorf("live are %q", got)
	}
	items := s.queued()
	if len(items) != 1 || !slices.Equal(items[0].Inputs(), []string{"0/mixed.sst"}) || len(items[0].Cuts) != 1 ||
		items[0].Cut != live.NewestCut().Record {
		t.Errorf("queued are %+v", items)
	}
	if n := len(o.claim.chain.garbage.mu.objects); n != 2 {
		t.Errorf("%d objects are garbage, want 2", n)
	}
}

// TestYoungGarbage goes at once when something was cut, and no commit may name it any more.
func TestYoungGarbage(t *testing.T) {
	o := claimed(t)
	extents := fill(t, o, []string{"t.a"}, 1)
	young := "0/" + nameOf(0) + ".sst"
	if err := o.site.Bucket.Put(t.Context(), young, []byte("x")); err != nil {
		t.Fatal(err)
	}
	o.sweeper.delay = 0
	s, _ := o.serve(t)
	there := func() bool {
		_, err := s.Bucket.Object(t.Context(), young)
		return err == nil
	}
	o.sweeper.ask(true)
	reply := o.ask(t, wire.CutRequest{Cut: extent.Cut{Logs: "b.c", ID: "x"}})
	if reply.Cut.Record == 0 {
		t.Fatal("not cut")
	}
	if err := ingesttest.Ended(t, "the sweep", func() error {
		for there() {
			time.Sleep(time.Millisecond)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if refused := o.offered(t, young, extents); !slices.Equal(refused, []string{"t.a"}) {
		t.Errorf("a commit of a deleted object has refused %q", refused)
	}
}

// TestCutTakesWhatCounts of a request: what an owner decides for itself cannot be asked for.
func TestCutTakesWhatCounts(t *testing.T) {
	o := claimed(t)
	fill(t, o, []string{"a.b", "a.c"}, 2)
	o.serve(t)
	reply := o.ask(t, wire.CutRequest{Cut: extent.Cut{Logs: "a.>", ID: "x", Kept: true, Lazy: true, Made: 1, Record: 9,
		Except: []string{"a.b"}}})
	if c := reply.Cut; c.Kept || c.Lazy || len(c.Except) > 0 || c.Record == 9 || c.Made == 1 {
		t.Errorf("kept as %+v", c)
	}
	if n := o.sched.Stats().Active; n != 0 {
		t.Errorf("%d logs are buffered still", n)
	}
}

// TestCutThatTheTreeCannotTake is refused by who appends, however many have looked before: a record that no owner can
// apply would end the shard for good.
func TestCutThatTheTreeCannotTake(t *testing.T) {
	o := claimed(t)
	fill(t, o, []string{"a.b"}, 1)
	live := o.ledger.mu.tree
	for i := range uint64(tree.MaxCuts) {
		var err error
		if live, err = live.Cut(1+i, extent.Cut{Logs: "a.b", UpTo: 1}); err != nil {
			t.Fatal(err)
		}
	}
	o.ledger.mu.tree, o.ledger.mu.pos.ManifestSeq = live, tree.MaxCuts+1
	before, _ := o.claim.chain.manifest.Last()
	for name, c := range map[string]extent.Cut{
		"one too many": {Logs: "a.b", UpTo: 1, Made: 1},
		"no cut":       {UpTo: 1},
		"vast":         {Logs: "a.>", UpTo: 1, Kept: true, Except: slices.Repeat([]string{strings.Repeat("x", 250)}, 1000)},
	} {
		done := make(chan error, 1)
		if err := o.committer.commit(t.Context(), []appendRequest{{cut: &c, done: done}}); err != nil {
			t.Errorf("%s ends the committer: %v", name, err)
			continue
		}
		if err := <-done; !errors.Is(err, tree.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if after, _ := o.claim.chain.manifest.Last(); after.ID != before.ID {
		t.Errorf("appended %+v", after)
	}
}

// TestCutsThatFillReplies come page by page, and all of them.
func TestCutsThatFillReplies(t *testing.T) {
	o := claimed(t)
	commits(t, o, 1)
	var except []string
	for i := range 60 {
		except = append(except, fmt.Sprintf("t.%s%03d", strings.Repeat("x", 200), i))
	}
	live := o.ledger.mu.tree
	for i := range uint64(300) {
		var err error
		if live, err = live.Cut(100+2*i, extent.Cut{Logs: "t.>", UpTo: 1 + i, Kept: true, Before: int64(i + 1),
			Except: except[i%50:], Lazy: i%2 == 0}); err != nil {
			t.Fatal(err)
		}
		if live, err = live.Cut(101+2*i, extent.Cut{Logs: fmt.Sprintf("t.%03d", i), UpTo: 1 + i,
			Except: except}); err != nil {
			t.Fatal(err)
		}
	}
	o.ledger.mu.tree = live
	s, _ := o.serve(t)
	got, err := client.New(s.NC, s.JS).Live(t.Context(), 0, wire.SegmentsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if want := live.Cuts().Between("", ""); !reflect.DeepEqual(got.Cuts, want) || len(got.Pieces) != 1 {
		t.Errorf("%d cuts, want %d; %d pieces", len(got.Cuts), len(want), len(got.Pieces))
	}
}

// TestCutsThatFillAWorkItem: as many of them as fit are named, and the item says of which it is.
func TestCutsThatFillAWorkItem(t *testing.T) {
	o := claimed(t)
	s := o.system(t)
	commits(t, o, 1)
	live := o.ledger.mu.tree
	for i := range uint64(40) {
		var err error
		if live, err = live.Cut(100+i, extent.Cut{Logs: "t.a", UpTo: 1, Except: slices.Repeat([]string{"t." +
			strings.Repeat("x", 100)}, 20)}); err != nil {
			t.Fatal(err)
		}
	}
	o.merger.room = 16 << 10
	if err := o.merger.queue(t.Context(), live, live.Runs()); err != nil {
		t.Fatal(err)
	}
	items := s.queued()
	if len(items) != 1 || len(items[0].Cuts) == 0 || len(items[0].Cuts) >= 40 ||
		items[0].Cut != items[0].Cuts[len(items[0].Cuts)-1].Record {
		t.Errorf("queued %d", len(items))
	}
}

// TestCutOfAStreamThatIsNotTrimmed: what is cut leaves it too, once all up to the cut is archived, and nothing else
// does; not by time, and not by a name that could be taken for a pattern.
func TestCutOfAStreamThatIsNotTrimmed(t *testing.T) {
	o := claimed(t)
	s := o.system(t)
	in := o.intake.newBatch()
	subjects := []string{"acme.a", "b.a", "acme.b", "c.x*", "c.xy", "d.a"}
	for i, log := range subjects {
		if _, err := s.JS.Publish(t.Context(), "logs."+log, nil); err != nil {
			t.Fatal(err)
		}
		msg, err := jsapi.Get(t.Context(), s.JS, o.site.Source.Stream, uint64(i)+1)
		if err == nil {
			err = in.take(streamreader.Message{Subject: msg.Subject, Sequence: msg.Sequence, Time: msg.Time})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := o.intake.apply(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	left := func() (subjects []string) {
		t.Helper()
		for seq := uint64(1); ; seq++ {
			msg, err := jsapi.GetNext(t.Context(), s.JS, o.site.Source.Stream, ">", seq)
			if errors.Is(err, jetstream.ErrMsgNotFound) {
				return subjects
			}
			if err != nil {
				t.Fatal(err)
			}
			subjects, seq = append(subjects, strings.TrimPrefix(msg.Subject, "logs.")), msg.Sequence
		}
	}
	trims := o.newTrimmer()
	trims.delay = 0
	look := func() (more bool) {
		t.Helper()
		more, err := trims.look(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return more
	}
	for _, c := range []extent.Cut{{Logs: "acme.>", UpTo: 6}, {Logs: "c.x*", UpTo: 6},
		{Logs: "d.a", UpTo: 6, Before: time.Now().Add(time.Hour).UnixNano()}} {
		c.ID, c.Made = c.Logs, time.Now().UnixNano()
		o.record(t, c)
	}
	if more := look(); !more || len(left()) != len(subjects) {
		t.Errorf("with entries that are not archived: more %v, %q are left", more, left())
	}
	for _, log := range []string{"b.a", "c.xy"} {
		cursor, err := o.ledger.disk.buffer.Iter()
		if err != nil {
			t.Fatal(err)
		}
		e, err := cursor.Measure(log, 1, 6)
		if err := errors.Join(err, cursor.Close()); err != nil {
			t.Fatal(err)
		}
		o.commit(t, "0/"+log+".sst", e)
	}
	o.record(t, extent.Cut{Logs: "z.z", UpTo: 6, ID: "z", Made: 1}) // a record that carries the floor
	sound := trims.from.stream
	trims.from.stream = unpurged{sound}
	for range 3 {
		if !look() {
			t.Fatal("it is done, and nothing could be purged")
		}
	}
	if got := left(); len(got) != len(subjects) {
		t.Errorf("%q are left", got)
	}
	trims.from.stream = sound
	for began := time.Now(); look(); time.Sleep(time.Millisecond) {
		if time.Since(began) > ingesttest.Patience {
			t.Fatal("it is never done")
		}
	}
	if got, want := left(), []string{"b.a", "c.x*", "c.xy", "d.a"}; !slices.Equal(got, want) {
		t.Errorf("the stream has %q, want %q", got, want)
	}
}

// unpurged is a stream of which the first pattern cannot be purged.
type unpurged struct{ jetstream.Stream }

func (u unpurged) Purge(ctx context.Context, opts ...jetstream.StreamPurgeOpt) error {
	var request jetstream.StreamPurgeRequest
	for _, opt := range opts {
		if err := opt(&request); err != nil {
			return err
		}
	}
	if request.Subject == "logs.acme.>" {
		return errors.New("not now")
	}
	return u.Stream.Purge(ctx, opts...)
}
