package shard

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"dormouse/internal/outage"
	"dormouse/internal/topology"
	"dormouse/internal/wire"
)

// Bounds of what an owner takes on at once. Requests beyond them are answered Busy and asked again by the worker.
const (
	flushTimeout = 5 * time.Second
	inboxLimit   = 256 // requests between the NATS client and the dispatcher
	drainLimit   = 64  // drains waiting
	drainers     = 4   // drains at work, each with one reply of at most max_payload in memory
	queryLimit   = 64  // questions of readers waiting, for segments and for logs each
	queriers     = 2
)

// server answers workers and readers for an owner: drains, what is held of a log, segments and lists. Commits and
// merges it hands on. Each kind has a bounded queue, and what finds it full is answered Busy.
type server struct {
	nc      *nats.Conn
	source  topology.Source
	archive string // URL, told to readers
	ledger  *ledger
	commit  func(*nats.Msg) bool // takes a commit, unless there is no room
	merge   func(*nats.Msg) bool // likewise a merge
	cuts    chan<- *nats.Msg     // requests for cuts
	sweep   func(context.Context, *nats.Msg) wire.SweepReply
	fresh   func() bool // the lease is sure to be held while an answer is on its way

	inbox                  chan *nats.Msg
	drains, queries, lists chan *nats.Msg
	sweeps                 chan *nats.Msg

	drained prometheus.Counter
	failing *outage.Log
	log     *slog.Logger
}

// listen lets requests of an epoch come, which run answers, and returns what ends that.
func (s *server) listen(epoch uint64) (stop func(), err error) {
	sub, err := s.nc.ChanSubscribe(wire.OwnerSubjects(s.source.Shard, epoch), s.inbox)
	if err != nil {
		return nil, fmt.Errorf("listening for workers: %w", err)
	}
	stop = func() { _ = sub.Unsubscribe() } // fails only on a closed connection, where there is nothing left to stop
	if err := s.nc.FlushTimeout(flushTimeout); err != nil {
		stop()
		return nil, fmt.Errorf("listening for workers: %w", err)
	}
	return stop, nil
}

// run answers until ctx is done.
func (s *server) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	start := func(fn func(context.Context) error) { group.Go(func() error { return fn(ctx) }) }
	start(s.dispatch)
	for range drainers {
		start(s.serveDrains)
	}
	for range queriers {
		start(s.serveQueries)
	}
	start(s.serveLists)
	start(s.serveSweeps)
	return group.Wait()
}

// dispatch hands each request to those who serve it, and never waits for them.
func (s *server) dispatch(ctx context.Context) error {
	for {
		var msg *nats.Msg
		select {
		case <-ctx.Done():
			return ctx.Err()
		case msg = <-s.inbox:
		}
		var accepted bool
		switch op := wire.OperationOf(msg.Subject); op {
		case wire.OpDrain:
			accepted = offer(s.drains, msg)
		case wire.OpCommit:
			accepted = s.commit(msg)
		case wire.OpReplace:
			accepted = s.merge(msg)
		case wire.OpHeld, wire.OpSegments:
			accepted = offer(s.queries, msg)
		case wire.OpList:
			accepted = offer(s.lists, msg)
		case wire.OpCut:
			accepted = offer(s.cuts, msg)
		case wire.OpSweep:
			accepted = offer(s.sweeps, msg)
		default:
			s.reply(msg, wire.Status{Code: wire.BadRequest, Message: fmt.Sprintf("no operation %q", op)})
			continue
		}
		if !accepted {
			s.reply(msg, wire.Status{Code: wire.Busy, Message: "the owner is at its bound"})
		}
	}
}

// respond answers a request. An answer that cannot be sent is as good as lost: the asker asks again.
func respond(log *slog.Logger, msg *nats.Msg, message any) {
	data, err := wire.Encode(message)
	if err == nil {
		err = msg.Respond(data)
	}
	if err != nil {
		log.Debug("a reply could not be sent", "subject", msg.Subject, "error", err)
	}
}

func (s *server) reply(msg *nats.Msg, message any) { respond(s.log, msg, message) }

// answers sends the answers to workers' commits.
type answers struct {
	refused prometheus.Counter
	log     *slog.Logger
}

// commit answers a worker's commit.
func (a answers) commit(call *commitCall, status wire.Status) {
	switch {
	case call.err != nil:
		respond(a.log, call.msg, wire.CommitReply{Status: wire.StatusOf(call.err)})
	case status.Code != wire.OK:
		respond(a.log, call.msg, wire.CommitReply{Status: status})
	default:
		a.refused.Add(float64(len(call.refused)))
		respond(a.log, call.msg, wire.CommitReply{Refused: call.refused})
	}
}

// merge answers a worker's merge.
func (a answers) merge(call *mergeCall, status wire.Status) {
	respond(a.log, call.msg, wire.ReplaceReply{Status: status})
}

// offer puts an item into a queue, unless that is full.
func offer[T any](queue chan<- T, item T) bool {
	select {
	case queue <- item:
		return true
	default:
		return false
	}
}
