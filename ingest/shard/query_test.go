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
)

// TestListOfBufferedLogs: pages of any size bring each log with buffered entries once, and no other.
func TestListOfBufferedLogs(t *testing.T) {
	o := claimed(t)
	logs := []string{"t.a", "t.ab", "t.b", "t.b.c", "t.c", "u.a"}
	fill(t, o, logs, 3)
	extents := fill(t, o, []string{"t.archived"}, 1)
	o.commit(t, "0/a.sst", extents...)
	s, _ := o.serve(t)
	for _, limit := range []int{1, 2, 5, 0} {
		var got []string
		req := wire.ListRequest{Prefix: "t.", Limit: limit}
		for more := true; more; {
			var reply wire.ListReply
			if err := s.Ask(wire.OpList, req, &reply); err != nil || reply.Err() != nil {
				t.Fatal(err, reply.Err())
			}
			for _, l := range reply.Logs {
				if req.After = l.Log; l.Buffered.Entries != 3 || l.Buffered.Bytes != 3*256 || l.Archived.Entries > 0 {
					t.Errorf("%+v", l)
				}
				got = append(got, l.Log)
			}
			more = reply.More && len(got) < 10
		}
		if !slices.Equal(got, logs[:5]) {
			t.Errorf("pages of %d: %q", limit, got)
		}
	}
}

// TestSegmentsInPages: pages of any size bring the live segments of a key range, and those of a tree that has changed
// meanwhile bring none of another one.
func TestSegmentsInPages(t *testing.T) {
	o := claimed(t)
	var want []string
	for i := range 30 {
		log := []string{"t.a", "t.b", "u.a"}[i%3]
		key := fmt.Sprintf("0/%s-%d.sst", log, i)
		o.commit(t, key, fill(t, o, []string{log}, 1)...)
		if log != "t.a" {
			want = append(want, key)
		}
	}
	live, version := o.ledger.live()
	for _, room := range []int{1, 1000, 1 << 20} {
		var got []string
		req := wire.SegmentsRequest{From: "t.aa", To: "u.b"}
		for more := true; more; {
			var pieces []extent.Piece
			_, pieces, more = page(live, req, room)
			for _, p := range pieces {
				got = append(got, p.Segment.Object.Key)
			}
			req.Offset += len(pieces)
		}
		if !slices.Equal(got, want) {
			t.Errorf("pages of %d bytes: %q, want %q", room, got, want)
		}
	}
	s, _ := o.serve(t)
	ask := func(req wire.SegmentsRequest) (reply wire.SegmentsReply) {
		t.Helper()
		if err := s.Ask(wire.OpSegments, req, &reply); err != nil {
			t.Fatal(err)
		}
		return reply
	}
	if r := ask(wire.SegmentsRequest{Version: version}); r.Err() != nil || len(r.Pieces) != 30 || r.More ||
		r.Version != version || r.Archive != "mem://" || r.Stream != wire.DefaultSource {
		t.Errorf("all of it: %+v", r)
	}
	if r := ask(wire.SegmentsRequest{Version: version - 1}); r.Err() != nil || len(r.Pieces) > 0 || r.Version != version {
		t.Errorf("of a tree that there is no more: %+v", r)
	}
	if r := ask(wire.SegmentsRequest{MinManifest: version + 1}); !errors.Is(r.Err(), wire.ErrBusy) {
		t.Errorf("of a tree that there is not yet: %v", r.Err())
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
			wire.OpHeld: wire.HeldRequest{Log: "t.a"}, wire.OpSegments: wire.SegmentsRequest{},
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

// TestListsDoNotHoldUpReads: questions for logs that nobody gets to do not fill the queue of those for segments.
func TestListsDoNotHoldUpReads(t *testing.T) {
	inbox := make(chan *nats.Msg, inboxLimit)
	s := &server{log: slog.New(slog.DiscardHandler), inbox: inbox, queries: make(chan *nats.Msg, queryLimit),
		lists: make(chan *nats.Msg, queryLimit)}
	for range 2 * queryLimit {
		inbox <- &nats.Msg{Subject: wire.OwnerSubject(0, 1, wire.OpList)}
	}
	inbox <- &nats.Msg{Subject: wire.OwnerSubject(0, 1, wire.OpSegments)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.dispatch(ctx) }()
	select {
	case msg := <-s.queries:
		if op := wire.OperationOf(msg.Subject); op != wire.OpSegments {
			t.Errorf("a question for %s among those for segments", op)
		}
	case <-time.After(ingesttest.Patience):
		t.Error("the question for segments was not taken")
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(fmt.Errorf("dispatching: %w", err))
	}
}
