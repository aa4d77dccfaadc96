package shard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"dormouse/ingest/ingesttest"
	"dormouse/internal/extent"
	"dormouse/internal/wire"
	"dormouse/store/client"
)

// extentsOf gives an owner's catalog n extents of a log, of two entries each.
func extentsOf(t *testing.T, o *trial, log string, extents int) {
	t.Helper()
	batch := o.site.DB.NewBatch()
	for i := range uint64(extents) {
		e := extent.Extent{Log: log, First: 1 + 3*i, Last: 2 + 3*i, Count: 2, Bytes: 10, MinTime: int64(i),
			MaxTime: int64(i) + 1}
		if err := o.ledger.disk.catalog.Put(batch, e, extent.Segment{Key: "0/x.sst", Size: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(batch.Commit(noSync), batch.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestListOfLogsWithManyExtents: a page reads a bounded number of extents, however many a log has, and a reader that
// goes from page to page gets each log once, whole, with what is buffered.
func TestListOfLogsWithManyExtents(t *testing.T) {
	o := claimed(t)
	o.server.listTime = time.Hour // however slow the machine is
	s, _ := o.serve(t)
	want := map[string]uint64{"t.a": 1, "t.b": 3*listExtents + 7, "t.bb": 2, "t.c": listExtents, "t.d": listExtents - 2,
		"t.e": 5, "t.z": 0}
	for log, extents := range want {
		extentsOf(t, o, log, int(extents))
	}
	s.Publish("logs.t.b", "one")
	s.Publish("logs.t.z", "one", "two")
	s.Until("all is buffered", func() bool { e, _ := s.Drain("t.b", "t.z"); return len(e) == 3 })

	var logs []string
	owners := client.New(s.NC, s.JS)
	for l, err := range owners.Logs(t.Context(), "t.") {
		if err != nil {
			t.Fatal(err)
		}
		logs = append(logs, l.Log)
		buffered := map[string]uint64{"t.b": 1, "t.z": 2}[l.Log]
		if n := want[l.Log]; l.Extents != n || l.Archived.Entries != 2*n || l.Archived.Bytes != 10*n ||
			l.Buffered.Entries != buffered ||
			n > 0 && (l.Archived.First != 1 || l.Archived.Last != 3*n-1 || l.Archived.MinTime != 0 ||
				l.Archived.MaxTime != int64(n)) {
			t.Errorf("%+v, want %d extents and %d buffered", l, n, buffered)
		}
	}
	if all := []string{"t.a", "t.b", "t.bb", "t.c", "t.d", "t.e", "t.z"}; !slices.Equal(logs, all) {
		t.Fatalf("listed %v", logs)
	}
	if l, ok, err := owners.Log(t.Context(), 0, "t.b"); err != nil || !ok || l.Extents != want["t.b"] ||
		l.Buffered.Entries != 1 {
		t.Errorf("alone: %+v, %v, %v", l, ok, err)
	}
	if _, ok, err := owners.Log(t.Context(), 0, "t"); err != nil || ok {
		t.Errorf("found a log that there is not: %v", err)
	}
	var reply wire.ListReply
	if err := s.Ask(wire.OpList, wire.ListRequest{}, &reply); err != nil || reply.Err() != nil {
		t.Fatal(err, reply.Err())
	}
	read := uint64(0)
	for _, l := range reply.Logs {
		read += l.Extents
	}
	if read != listExtents || reply.Rest == 0 || !reply.More {
		t.Errorf("one page has %d extents, more %v from %d", read, reply.More, reply.Rest)
	}
}

// TestListOnASlowDisk: a page ends when its time is over, and has an extent all the same.
func TestListOnASlowDisk(t *testing.T) {
	o := claimed(t)
	o.server.listTime = 0
	s, _ := o.serve(t)
	want := map[string]uint64{"t.a": 1, "t.b": 3, "t.c": 2}
	for log, extents := range want {
		extentsOf(t, o, log, int(extents))
	}
	var reply wire.ListReply
	if err := s.Ask(wire.OpList, wire.ListRequest{After: "t.a"}, &reply); err != nil || reply.Err() != nil {
		t.Fatal(err, reply.Err())
	}
	if len(reply.Logs) != 1 || reply.Logs[0].Extents != 1 || reply.Rest != 4 || !reply.More {
		t.Errorf("one page has %+v, more %v from %d", reply.Logs, reply.More, reply.Rest)
	}
	for l, err := range client.New(s.NC, s.JS).Logs(t.Context(), "t.") {
		if err != nil {
			t.Fatal(err)
		}
		if l.Extents != want[l.Log] || l.Archived.Entries != 2*l.Extents {
			t.Errorf("%+v, want %d extents", l, want[l.Log])
		}
		delete(want, l.Log)
	}
	if len(want) > 0 {
		t.Errorf("not listed: %v", want)
	}
}

// TestReadersOfAStaleLease are told to ask again: another node may own the shard by now, and have archived more.
func TestReadersOfAStaleLease(t *testing.T) {
	var fresh atomic.Bool
	o := claimed(t)
	o.server.fresh = fresh.Load
	s, _ := o.serve(t)
	for _, want := range []error{wire.ErrBusy, nil} {
		for op, request := range map[wire.Operation]any{
			wire.OpHeld: wire.HeldRequest{Log: "t.a"}, wire.OpExtents: wire.ExtentsRequest{Log: "t.a"},
			wire.OpList: wire.ListRequest{},
		} {
			var reply wire.Status // which all replies begin with
			if err := s.Ask(op, request, &reply); err != nil || !errors.Is(reply.Err(), want) {
				t.Errorf("%s with a lease that is fresh: %v: %v, %v", op, fresh.Load(), err, reply.Err())
			}
		}
		fresh.Store(true)
	}
}

// TestListsDoNotHoldUpReads: questions for logs that nobody gets to do not fill the queue of those for extents.
func TestListsDoNotHoldUpReads(t *testing.T) {
	inbox := make(chan *nats.Msg, inboxLimit)
	s := &server{log: slog.New(slog.DiscardHandler), inbox: inbox, queries: make(chan *nats.Msg, queryLimit),
		lists: make(chan *nats.Msg, queryLimit)}
	for range 2 * queryLimit {
		inbox <- &nats.Msg{Subject: wire.OwnerSubject(0, 1, wire.OpList)}
	}
	inbox <- &nats.Msg{Subject: wire.OwnerSubject(0, 1, wire.OpExtents)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.dispatch(ctx) }()
	select {
	case msg := <-s.queries:
		if op := wire.OperationOf(msg.Subject); op != wire.OpExtents {
			t.Errorf("a question for %s among those for extents", op)
		}
	case <-time.After(ingesttest.Patience):
		t.Error("the question for extents was not taken")
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(fmt.Errorf("dispatching: %w", err))
	}
}
