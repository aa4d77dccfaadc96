// Package storetest is a system for tests of what asks it: a NATS server with Dormouse's streams, a bucket, and an
// owner of shard 0 that answers from a list. It is imported by tests only.
package storetest

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/entry"
	"dormouse/internal/extent"
	"dormouse/internal/natstest"
	"dormouse/internal/topology"
	"dormouse/internal/wire"
	"dormouse/store/bucket"
	"dormouse/store/manifest"
	"dormouse/store/segment"
)

// System is a NATS server with Dormouse's streams, a bucket, and an owner of shard 0 that answers from a list.
type System struct {
	T      *testing.T
	Server *server.Server
	NC     *nats.Conn
	JS     jetstream.JetStream
	Bucket *bucket.Bucket

	Mu struct {
		sync.Mutex
		Manifest *manifest.Manifest
		Extents  []extent.Located // what the owner's catalog holds, ascending
		Busy     int              // requests that the owner still refuses
		Asked    []wire.ExtentsRequest

		Behind    bool          // the owner takes in nothing more
		Applied   uint64        // what the owner has taken in of the stream
		Buffered  []entry.Entry // and not archived, ascending in each log
		Questions []wire.HeldRequest
	}
}

// New makes one with an empty bucket and no owner.
func New(t *testing.T) *System {
	t.Helper()
	s := &System{T: t, Server: natstest.Start(t)}
	s.NC, s.JS = natstest.Dial(t, s.Server)
	if _, err := topology.Ensure(t.Context(), s.JS,
		topology.Config{RequeueAfter: time.Minute, Lease: time.Second}); err != nil {
		t.Fatal(err)
	}
	var err error
	if s.Bucket, err = bucket.Open(t.Context(), "file://"+t.TempDir()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Bucket.Close() })
	if s.Mu.Manifest, err = manifest.Open(t.Context(), s.JS, 0); err != nil {
		t.Fatal(err)
	}
	return s
}

// Publish publishes entries of a log, which the owner takes in unless it is behind, and returns the last one's
// sequence.
func (s *System) Publish(log string, payloads ...string) (last uint64) {
	s.T.Helper()
	for _, p := range payloads {
		ack, err := s.JS.Publish(s.T.Context(), wire.DefaultPrefix+"."+log, []byte(p))
		if err != nil {
			s.T.Fatal(err)
		}
		last = ack.Sequence
		s.TakeIn(entry.Entry{Log: log, Seq: last, Time: s.Message(last).Time, Data: []byte(p)})
	}
	return last
}

// TakeIn makes an entry part of what the owner has taken in.
func (s *System) TakeIn(e entry.Entry) {
	s.Mu.Lock()
	defer s.Mu.Unlock()
	if !s.Mu.Behind {
		s.Mu.Applied, s.Mu.Buffered = e.Seq, append(s.Mu.Buffered, e)
	}
}

// Source returns the source stream.
func (s *System) Source() jetstream.Stream {
	s.T.Helper()
	return natstest.Stream(s.T, s.JS, wire.DefaultSource)
}

// Message returns a message of it.
func (s *System) Message(seq uint64) *jetstream.RawStreamMsg {
	s.T.Helper()
	return natstest.Message(s.T, s.JS, wire.DefaultSource, seq)
}

// Trim purges the source stream up to and including a sequence.
func (s *System) Trim(upTo uint64) {
	s.T.Helper()
	if err := s.Source().Purge(s.T.Context(), jetstream.WithPurgeSequence(upTo+1)); err != nil {
		s.T.Fatal(err)
	}
}

// Claim appends a claim to the manifest, which makes epoch the current one.
func (s *System) Claim(epoch uint64) {
	s.T.Helper()
	s.Append(manifest.Record{Kind: manifest.Claim, Epoch: epoch, Owner: "n"})
}

// Append appends a record to the manifest.
func (s *System) Append(r manifest.Record) {
	s.T.Helper()
	s.Mu.Lock()
	defer s.Mu.Unlock()
	if _, err := s.Mu.Manifest.Append(s.T.Context(), r); err != nil {
		s.T.Fatal(err)
	}
}

// RecordID returns the ID of the manifest record at a sequence.
func (s *System) RecordID(seq uint64) string {
	s.T.Helper()
	stream, err := s.JS.Stream(s.T.Context(), wire.ManifestStream)
	if err != nil {
		s.T.Fatal(err)
	}
	msg, err := stream.GetMsg(s.T.Context(), seq)
	if err != nil {
		s.T.Fatal(err)
	}
	r, err := manifest.Decode(msg.Data)
	if err != nil {
		s.T.Fatal(err)
	}
	return r.ID
}

// Own answers for the shard in an epoch, until the test ends.
func (s *System) Own(epoch uint64) {
	s.T.Helper()
	sub, err := s.NC.Subscribe(wire.OwnerSubjects(0, epoch), func(msg *nats.Msg) {
		answer, err := s.hear(msg)
		var data []byte
		if err == nil {
			data, err = wire.Encode(answer)
		}
		if err == nil {
			err = msg.Respond(data)
		}
		if err != nil {
			s.T.Error(err)
		}
	})
	if err != nil {
		s.T.Fatal(err)
	}
	s.T.Cleanup(func() { _ = sub.Unsubscribe() })
}

func (s *System) hear(msg *nats.Msg) (any, error) {
	if wire.OperationOf(msg.Subject) == wire.OpHeld {
		var req wire.HeldRequest
		err := wire.Decode(msg.Data, &req)
		return s.held(req), err
	}
	var req wire.ExtentsRequest
	err := wire.Decode(msg.Data, &req)
	return s.answer(req), err
}

// held answers as an owner that has taken in all up to mu.applied, with pages of two.
func (s *System) held(req wire.HeldRequest) wire.HeldReply {
	extents := s.answer(wire.ExtentsRequest{Log: req.Log, After: req.After})
	s.Mu.Lock()
	defer s.Mu.Unlock()
	s.Mu.Questions = append(s.Mu.Questions, req)
	reply := wire.HeldReply{Status: extents.Status, Extents: extents.Extents, More: extents.More, Archive: extents.Archive,
		Applied: s.Mu.Applied}
	var has []uint64
	for _, e := range s.Mu.Buffered {
		if e.Log != req.Log || e.Seq <= req.After {
			continue
		}
		reply.Buffered = true
		if e.Seq <= req.UpTo {
			has = append(has, e.Seq)
		}
		reply.More = reply.More || len(reply.Extents) > 0 || len(reply.Entries) == 2
		if !reply.More && req.MaxBytes > 0 {
			reply.Entries = append(reply.Entries, wire.HeldEntry{Seq: e.Seq,
				Value: entry.AppendValue(nil, e.Time, e.Headers, e.Data)})
		}
	}
	if req.UpTo > 0 {
		reply.Complete = slices.Equal(has, req.Seqs) && (len(reply.Extents) == 0 || reply.Extents[0].Extent.First > req.UpTo)
	}
	return reply
}

func (s *System) answer(req wire.ExtentsRequest) (reply wire.ExtentsReply) {
	s.Mu.Lock()
	defer s.Mu.Unlock()
	s.Mu.Asked = append(s.Mu.Asked, req)
	if s.Mu.Busy > 0 {
		s.Mu.Busy--
		return wire.ExtentsReply{Status: wire.Status{Code: wire.Busy, Message: "at its bound"}}
	}
	reply = wire.ExtentsReply{Archive: s.Bucket.URL(), Stream: wire.DefaultSource}
	for _, l := range s.Mu.Extents {
		switch wanted := l.Extent.Log == req.Log && l.Extent.Last > req.After || req.All && l.Extent.Log > req.Log; {
		case wanted && len(reply.Extents) == 2:
			reply.More = true
		case wanted:
			reply.Extents = append(reply.Extents, l)
		}
	}
	return reply
}

// Archive moves what the stream holds of some logs, up to a sequence, into one segment and commits it.
func (s *System) Archive(key string, upTo uint64, logs ...string) {
	s.T.Helper()
	in, extents := s.Put(key, upTo, logs...)
	s.Commit(in, extents...)
}

// Put is archive without the commit.
func (s *System) Put(key string, upTo uint64, logs ...string) (extent.Segment, []extent.Extent) {
	s.T.Helper()
	w, err := segment.NewWriter(segment.Options{})
	if err != nil {
		s.T.Fatal(err)
	}
	defer w.Close()
	stream, err := s.JS.Stream(s.T.Context(), wire.DefaultSource)
	if err != nil {
		s.T.Fatal(err)
	}
	state := stream.CachedInfo().State
	slices.Sort(logs)
	for _, log := range logs {
		for seq := state.FirstSeq; seq <= min(upTo, state.LastSeq); seq++ {
			msg, err := stream.GetMsg(s.T.Context(), seq)
			if err != nil || strings.TrimPrefix(msg.Subject, wire.DefaultPrefix+".") != log || s.archived(log, seq) {
				continue
			}
			if err := w.Add(entry.AppendKey(nil, log, seq), entry.AppendValue(nil, msg.Time, msg.Header, msg.Data)); err != nil {
				s.T.Fatal(err)
			}
		}
	}
	data, extents, err := w.Finish()
	if err == nil {
		err = s.Bucket.Put(s.T.Context(), key, data)
	}
	if err != nil {
		s.T.Fatal(err)
	}
	return extent.Segment{Key: key, Size: uint64(len(data))}, extents
}

func (s *System) archived(log string, seq uint64) bool {
	s.Mu.Lock()
	defer s.Mu.Unlock()
	return slices.ContainsFunc(s.Mu.Extents, func(l extent.Located) bool {
		return l.Extent.Log == log && l.Extent.Last >= seq
	})
}

// Commit puts extents of a segment into the manifest and the owner's catalog.
func (s *System) Commit(in extent.Segment, extents ...extent.Extent) {
	s.T.Helper()
	s.Append(manifest.Record{Kind: manifest.Commit, Epoch: 1, Owner: "n",
		Segments: []manifest.Committed{{Segment: in, Extents: extents}}})
	s.Mu.Lock()
	defer s.Mu.Unlock()
	for _, e := range extents {
		s.Mu.Extents = append(s.Mu.Extents, extent.Located{Extent: e, Segment: in})
		s.Mu.Buffered = slices.DeleteFunc(s.Mu.Buffered, func(b entry.Entry) bool {
			return b.Log == e.Log && b.Seq <= e.Last
		})
	}
	slices.SortFunc(s.Mu.Extents, func(a, b extent.Located) int {
		if c := strings.Compare(a.Extent.Log, b.Extent.Log); c != 0 {
			return c
		}
		return int(a.Extent.First) - int(b.Extent.First)
	})
}
