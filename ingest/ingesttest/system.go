// Package ingesttest is what tests of ingest and of its parts have in common: a NATS server with Dormouse's streams,
// and a worker by hand.
package ingesttest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/batchrepr"
	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"dormouse/internal/entry"
	"dormouse/internal/extent"
	"dormouse/internal/natstest"
	"dormouse/internal/topology"
	"dormouse/internal/wire"
	"dormouse/store/bucket"
	"dormouse/store/cache"
	"dormouse/store/manifest"
)

// Patience bounds every wait; reaching it is a failure.
const Patience = 20 * time.Second

// Main is the TestMain of a package that runs owners: it looks for goroutines that are left. Those of a wheel whose
// Stop met it in the middle of a flush are the library's: it blocks for ever then, and the clock of the scheduler
// leaves it behind after two seconds, with a line in the log.
func Main(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/RussellLuo/timingwheel/delayqueue.(*DelayQueue).Offer"),
		goleak.IgnoreAnyFunction("dormouse/scheduler.(*clock).stop.func1"),
		// The client leaves it behind when a publisher is cleaned up that has begun so lately that this one has not: it
		// then waits at a channel that was taken away.
		goleak.IgnoreAnyFunction("github.com/nats-io/nats.go/jetstream.(*jetStream).resetPendingAcksOnReconnect"))
}

// System is a NATS server with Dormouse's streams, and a bucket. Nodes and owners come and go on it. Shard 0 is the one
// that its methods speak of.
type System struct {
	T      testing.TB
	Server *natsserver.Server
	NC     *nats.Conn
	JS     jetstream.JetStream
	Bucket *bucket.Bucket
	// Archive is the same bucket for owners. Of what Commit has offered it has the table of contents only.
	Archive *Archive
}

// New starts the server and makes the streams.
func New(t testing.TB) *System {
	t.Helper()
	srv := natstest.Start(t)
	nc, js := natstest.Dial(t, srv)
	s := &System{T: t, Server: srv, NC: nc, JS: js}
	var err error
	if s.Bucket, err = bucket.Open(t.Context(), "mem://"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Bucket.Close() })
	s.Archive = NewArchive(s.Bucket)
	if _, err := topology.Ensure(t.Context(), js, topology.Config{RequeueAfter: time.Minute, Lease: 2 * time.Second,
		Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	return s
}

// Until waits for a condition.
func (s *System) Until(what string, ok func() bool) {
	s.T.Helper()
	deadline := time.Now().Add(Patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			s.T.Fatalf("waited %s for %s", Patience, what)
		}
		<-tick.C
	}
}

// Publish stores entries and returns their sequences.
func (s *System) Publish(subject string, payloads ...string) (seqs []uint64) {
	s.T.Helper()
	for _, p := range payloads {
		ack, err := s.JS.Publish(s.T.Context(), subject, []byte(p))
		if err != nil {
			s.T.Fatal(err)
		}
		seqs = append(seqs, ack.Sequence)
	}
	return seqs
}

// Epoch returns the epoch of the last claim.
func (s *System) Epoch() uint64 { s.T.Helper(); return s.LastRecord().Epoch }

// LastRecord returns the manifest's last record.
func (s *System) LastRecord() manifest.Record {
	s.T.Helper()
	m, err := manifest.Open(s.T.Context(), s.JS, 0)
	if err != nil {
		s.T.Fatal(err)
	}
	last, _ := m.Last()
	return last
}

// Ask sends one request to the owner of the current epoch.
func (s *System) Ask(op wire.Operation, request, reply any) error {
	s.T.Helper()
	return s.AskEpoch(s.Epoch(), op, request, reply)
}

// AskEpoch sends one to the owner of an epoch.
func (s *System) AskEpoch(epoch uint64, op wire.Operation, request, reply any) error {
	s.T.Helper()
	data, err := wire.Encode(request)
	if err != nil {
		s.T.Fatal(err)
	}
	msg, err := s.NC.Request(wire.OwnerSubject(0, epoch, op), data, 5*time.Second)
	if err != nil {
		return err
	}
	return wire.Decode(msg.Data, reply)
}

// TakeReady takes work items off the SyncQueue until all the logs have come.
func (s *System) TakeReady(logs ...string) {
	s.T.Helper()
	consumer, err := s.JS.Consumer(s.T.Context(), wire.SyncQueueStream, wire.SyncQueuePool)
	if err != nil {
		s.T.Fatal(err)
	}
	missing := make(map[string]bool)
	for _, log := range logs {
		missing[log] = true
	}
	deadline := time.Now().Add(Patience)
	for len(missing) > 0 {
		if time.Now().After(deadline) {
			s.T.Fatalf("never queued: %v", missing)
		}
		msgs, err := consumer.Fetch(1, jetstream.FetchMaxWait(time.Second))
		if err != nil {
			s.T.Fatal(err)
		}
		for msg := range msgs.Messages() {
			var item wire.WorkItem
			if err := errors.Join(wire.Decode(msg.Data(), &item), item.Validate(), msg.Ack()); err != nil {
				s.T.Fatal(err)
			}
			for _, log := range item.Logs {
				delete(missing, log)
			}
		}
	}
}

// Drain fetches everything that is buffered for the logs, in one reply.
func (s *System) Drain(logs ...string) (entries []entry.Entry, extents []extent.Extent) {
	s.T.Helper()
	slices.Sort(logs)
	var reply wire.DrainReply
	if err := s.Ask(wire.OpDrain, wire.DrainRequest{Logs: logs, MaxBytes: 1 << 20}, &reply); err != nil ||
		reply.Err() != nil || !reply.Done {
		s.T.Fatalf("drain: %v, %+v", err, reply)
	}
	return s.Decode(reply.Data)
}

// Decode returns what the data of a drain reply holds.
func (s *System) Decode(data []byte) (entries []entry.Entry, extents []extent.Extent) {
	s.T.Helper()
	if len(data) == 0 {
		return nil, nil
	}
	reader := batchrepr.Read(data)
	for {
		_, key, value, ok, err := reader.Next()
		if err != nil {
			s.T.Fatal(err)
		}
		if !ok {
			return entries, extents
		}
		log, seq, err := entry.SplitKey(key)
		if err != nil {
			s.T.Fatal(err)
		}
		v, err := entry.DecodeValue(value)
		if err != nil {
			s.T.Fatal(err)
		}
		entries = append(entries, entry.Entry{Log: string(log), Seq: seq, Time: v.Time, Headers: v.Headers, Data: v.Data})
		if len(extents) == 0 || extents[len(extents)-1].Log != string(log) {
			extents = append(extents, extent.Extent{Log: string(log)})
		}
		extents[len(extents)-1].Add(seq, v.Time, v.Bytes)
	}
}

// Commit offers extents as segment key and returns the LogIDs that were refused.
func (s *System) Commit(key string, extents ...extent.Extent) (refused []string) {
	s.T.Helper()
	s.Archive.Has(key, extents)
	var reply wire.CommitReply
	err := s.Ask(wire.OpCommit, wire.CommitRequest{Segment: extent.Segment{Key: key, Size: 1}, Extents: extents}, &reply)
	if err != nil || reply.Err() != nil {
		s.T.Fatalf("commit: %v, %v", err, reply.Err())
	}
	for _, r := range reply.Refused {
		refused = append(refused, r.Log)
	}
	return refused
}

// Segment makes up a segment with these extents, for a record that a test appends itself.
func (s *System) Segment(key string, extents ...extent.Extent) []extent.Summary {
	s.Archive.Has(key, extents)
	return []extent.Summary{extent.Summarize(extent.Segment{Key: key, Size: 1}, extents)}
}

// Merge offers an output for inputs, all of which Commit or Merge has put, and returns what the owner answers.
func (s *System) Merge(key string, inputs ...string) error {
	s.T.Helper()
	request := wire.ReplaceRequest{Inputs: inputs}
	if out := s.Archive.Join(inputs...); len(out) > 0 {
		s.Archive.Has(key, out)
		request.Outputs = []extent.Summary{extent.Summarize(extent.Segment{Key: key, Size: 1}, out)}
	}
	var reply wire.ReplaceReply
	if err := s.Ask(wire.OpReplace, request, &reply); err != nil {
		s.T.Fatal(err)
	}
	return reply.Err()
}

// Live returns what the owner has archived: the extents of each live segment, in the order in which they are read.
func (s *System) Live() (all []extent.Located) {
	s.T.Helper()
	var reply wire.SegmentsReply
	if err := s.Ask(wire.OpSegments, wire.SegmentsRequest{}, &reply); err != nil || reply.Err() != nil || reply.More {
		s.T.Fatalf("asking for segments: %v, %+v", err, reply)
	}
	for _, p := range reply.Pieces {
		for _, e := range s.Archive.extents(s.T, p.Segment) {
			all = append(all, extent.Located{Extent: e, Segment: p.Segment.Object})
		}
	}
	return all
}

// Archived returns the ends of each of the log's extents that the manifest commits, in its order, or the one entry that
// it has; an extent committed twice shows twice.
func (s *System) Archived(log string) (seqs []uint64) {
	s.T.Helper()
	m, err := manifest.Open(s.T.Context(), s.JS, 0)
	if err != nil {
		s.T.Fatal(err)
	}
	err = manifest.Scan(s.T.Context(), s.JS, 0, manifest.Mark{}, m.Mark(), func(_, _ uint64, r manifest.Record) error {
		for _, seg := range r.Segments {
			for _, e := range s.Archive.extents(s.T, seg) {
				if e.Log == log {
					seqs = append(seqs, e.First, e.Last)[:len(seqs)+min(2, int(e.Count))]
				}
			}
		}
		return nil
	})
	if err != nil {
		s.T.Fatal(err)
	}
	return seqs
}

// Payloads joins what the entries hold.
func Payloads(entries []entry.Entry) string {
	var all []string
	for _, e := range entries {
		all = append(all, string(e.Data))
	}
	return strings.Join(all, ",")
}

// ForgetEnd makes the cache in dir remember one more entry than the source stream has.
func (s *System) ForgetEnd(dir string) {
	s.T.Helper()
	db, err := cache.Open(dir, cache.Options{})
	if err != nil {
		s.T.Fatal(err)
	}
	defer db.Close()
	pos, err := db.Position(0)
	if err != nil {
		s.T.Fatal(err)
	}
	pos.Applied++
	pos.AppliedTime = pos.AppliedTime.Add(time.Nanosecond)
	batch := db.NewBatch()
	if err := errors.Join(cache.SetPosition(batch, 0, pos), batch.Commit(pebble.NoSync), batch.Close()); err != nil {
		s.T.Fatal(err)
	}
}

// Source returns the source stream.
func (s *System) Source() jetstream.Stream {
	s.T.Helper()
	return natstest.Stream(s.T, s.JS, wire.DefaultSource)
}

// Message returns a message of the source stream.
func (s *System) Message(seq uint64) *jetstream.RawStreamMsg {
	s.T.Helper()
	return natstest.Message(s.T, s.JS, wire.DefaultSource, seq)
}

// Hooked is a JetStream that calls before ahead of each publish to a manifest.
type Hooked struct {
	jetstream.JetStream
	before atomic.Pointer[func(*nats.Msg)]
}

// Set sets what is called.
func (h *Hooked) Set(before func(*nats.Msg)) { h.before.Store(&before) }

// PublishMsg publishes.
func (h *Hooked) PublishMsg(ctx context.Context, msg *nats.Msg, opts ...jetstream.PublishOpt) (*jetstream.PubAck,
	error) {
	if strings.HasPrefix(msg.Subject, wire.ManifestSubject(0)) {
		(*h.before.Load())(msg)
	}
	return h.JetStream.PublishMsg(ctx, msg, opts...)
}

// Stored returns a message of a stream.
func (s *System) Stored(stream string, seq uint64) *jetstream.RawStreamMsg {
	s.T.Helper()
	return natstest.Message(s.T, s.JS, stream, seq)
}

// Silence lets publishes to the rejected stream go unanswered, as by a leader that is frozen, until it is called off.
func (s *System) Silence() (callOff func()) {
	s.T.Helper()
	if err := s.JS.DeleteStream(s.T.Context(), wire.RejectedStream); err != nil {
		s.T.Fatal(err)
	}
	sub, err := s.NC.Subscribe(wire.RejectedSubjects, func(*nats.Msg) {})
	if err != nil {
		s.T.Fatal(err)
	}
	return func() {
		s.T.Helper()
		_, err := topology.Ensure(s.T.Context(), s.JS, topology.Config{RequeueAfter: time.Minute, Lease: 2 * time.Second,
			Replicas: 1})
		if err := errors.Join(sub.Unsubscribe(), err); err != nil {
			s.T.Fatal(err)
		}
	}
}

// Ended returns what fn returns, which must be soon.
func Ended(t *testing.T, what string, fn func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- fn() }()
	select {
	case err := <-done:
		return err
	case <-time.After(Patience / 2):
		t.Fatalf("waited %s for %s", Patience/2, what)
		return nil
	}
}

// gated is a JetStream of which requests about streams and consumers pass through a gate. Those of buckets would not
// come back.
type gated struct {
	jetstream.JetStream
	gate jetstream.JetStream
}

func (g gated) Options() jetstream.JetStreamOptions { return g.gate.Options() }

func (g gated) Stream(ctx context.Context, name string) (jetstream.Stream, error) {
	return g.gate.Stream(ctx, name)
}

// Refusing is a JetStream that refuses requests of a kind while it is on.
func (s *System) Refusing(prefix string) (js jetstream.JetStream, on *atomic.Bool) {
	s.T.Helper()
	on = new(atomic.Bool)
	return gated{s.JS, natstest.Gate(s.T, s.NC, func(request string, msg *nats.Msg) bool {
		if !on.Load() || !strings.HasPrefix(request, prefix) {
			return false
		}
		natstest.Refuse(s.T, msg, jetstream.APIError{Code: 400, ErrorCode: 10026, Description: "no more of these"})
		return true
	})}, on
}
