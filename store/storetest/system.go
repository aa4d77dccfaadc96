// Package storetest is a system for tests of what asks it: a NATS server with Dormouse's streams, a bucket, and an
// owner of shard 0 that answers from a list. It is imported by tests only.
package storetest

import (
	"maps"
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
	"dormouse/store/tree"
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
		Tree     tree.Tree         // what the owner takes for live
		Version  uint64            // manifest record that changed it last
		last     map[string]uint64 // of the archived entries of each log
		Busy     int               // requests that the owner still refuses
		Asked    []wire.SegmentsRequest

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
	seq, err := s.Mu.Manifest.Append(s.T.Context(), r)
	if err != nil {
		s.T.Fatal(err)
	}
	if s.Mu.Tree, _, err = r.Apply(s.Mu.Tree, seq); err != nil {
		s.T.Fatal(err)
	}
	s.Mu.Version = seq
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
	s.Mu.Lock()
	defer s.Mu.Unlock()
	if s.Mu.Busy > 0 {
		s.Mu.Busy--
		return wire.Status{Code: wire.Busy, Message: "at its bound"}, nil
	}
	switch wire.OperationOf(msg.Subject) {
	case wire.OpHeld:
		var req wire.HeldRequest
		err := wire.Decode(msg.Data, &req)
		s.Mu.Questions = append(s.Mu.Questions, req)
		return s.heldLocked(req), err
	case wire.OpList:
		var req wire.ListRequest
		err := wire.Decode(msg.Data, &req)
		return s.listLocked(req), err
	}
	var req wire.SegmentsRequest
	err := wire.Decode(msg.Data, &req)
	s.Mu.Asked = append(s.Mu.Asked, req)
	return s.segmentsLocked(req), err
}

// heldLocked answers as an owner that has taken in all up to Applied, with pages of two.
func (s *System) heldLocked(req wire.HeldRequest) wire.HeldReply {
	reply := wire.HeldReply{Archive: s.Bucket.URL(), Applied: s.Mu.Applied}
	complete := true
	for p := range s.Mu.Tree.ForLog(req.Log, req.After, req.Since) {
		complete = complete && p.Segment.MinSeq > req.UpTo
		if n := len(reply.Pieces); n >= 2 && reply.Pieces[n-1].Newest < p.Newest {
			reply.More = true
			break
		}
		reply.Pieces = append(reply.Pieces, p)
	}
	var has []uint64
	for _, e := range s.Mu.Buffered {
		if e.Log != req.Log || e.Seq <= req.After {
			continue
		}
		reply.Buffered = true
		if e.Seq <= req.UpTo {
			has = append(has, e.Seq)
		}
		reply.More = reply.More || len(reply.Entries) == 2
		if !reply.More && req.MaxBytes > 0 {
			reply.Entries = append(reply.Entries, wire.HeldEntry{Seq: e.Seq,
				Value: entry.AppendValue(nil, e.Time, e.Headers, e.Data)})
		}
	}
	if req.UpTo > 0 {
		return wire.HeldReply{Applied: reply.Applied, Complete: complete && slices.Equal(has, req.Seqs)}
	}
	return reply
}

// listLocked answers with pages of two logs.
func (s *System) listLocked(req wire.ListRequest) wire.ListReply {
	reply := wire.ListReply{Archive: s.Bucket.URL()}
	parts := make(map[string]wire.Part)
	for _, e := range s.Mu.Buffered {
		at := e.Time.UnixNano()
		parts[e.Log] = parts[e.Log].Join(wire.Part{Entries: 1, Bytes: uint64(entry.Size(e.Headers, e.Data)), First: e.Seq,
			Last: e.Seq, MinTime: at, MaxTime: at})
	}
	for _, log := range slices.Sorted(maps.Keys(parts)) {
		if !strings.HasPrefix(log, req.Prefix) || log <= req.After {
			continue
		}
		if reply.More = len(reply.Logs) == 2; reply.More {
			break
		}
		reply.Logs = append(reply.Logs, wire.LogInfo{Log: log, Buffered: parts[log]})
	}
	return reply
}

// segmentsLocked answers with pages of two segments.
func (s *System) segmentsLocked(req wire.SegmentsRequest) wire.SegmentsReply {
	reply := wire.SegmentsReply{Archive: s.Bucket.URL(), Stream: wire.DefaultSource, Version: max(s.Mu.Version, 1)}
	if req.Version > 0 && req.Version != reply.Version {
		return reply
	}
	for p := range s.Mu.Tree.Overlapping(req.From, req.To) {
		if req.Offset--; req.Offset >= 0 {
			continue
		}
		if reply.More = len(reply.Pieces) == 2; reply.More {
			break
		}
		reply.Pieces = append(reply.Pieces, p)
	}
	return reply
}

// Archive moves what the stream holds of some logs, up to a sequence, into one segment and commits it.
func (s *System) Archive(key string, upTo uint64, logs ...string) {
	s.T.Helper()
	in, extents := s.Put(key, upTo, logs...)
	s.Commit(in, extents...)
}

// Merge merges segments that are live neighbours into one, and deletes them.
func (s *System) Merge(key string, inputs ...string) {
	s.T.Helper()
	merged, err := s.merge(key, inputs)
	if err != nil {
		s.T.Fatal(err)
	}
	s.Append(manifest.Record{Kind: manifest.Merge, Epoch: 1, Owner: "n",
		Merge: &tree.Replacement{Inputs: inputs, Outputs: []extent.Summary{merged}}})
	for _, input := range inputs {
		if err := s.Bucket.Delete(s.T.Context(), input); err != nil {
			s.T.Fatal(err)
		}
	}
}

// merge puts the output of a merge.
func (s *System) merge(key string, inputs []string) (merged extent.Summary, err error) {
	ctx := s.T.Context()
	w, err := segment.NewWriter(segment.Options{})
	if err != nil {
		return merged, err
	}
	defer w.Close()
	var cursors []*segment.Cursor
	for _, input := range inputs {
		object, err := s.Bucket.Object(ctx, input)
		if err != nil {
			return merged, err
		}
		r, err := segment.Open(ctx, object)
		if err != nil {
			return merged, err
		}
		defer r.Close()
		c, err := r.Cursor(ctx, 0, nil)
		if err != nil {
			return merged, err
		}
		defer c.Close()
		cursors = append(cursors, c)
	}
	of := segment.Merge(cursors)
	for {
		more, err := of.Next()
		if err != nil {
			return merged, err
		}
		if !more {
			break
		}
		if err := w.Add(of.Key(), of.Value()); err != nil {
			return merged, err
		}
	}
	data, extents, err := w.Finish()
	if err == nil {
		err = s.Bucket.Put(ctx, key, data)
	}
	return extent.Summarize(extent.Segment{Key: key, Size: uint64(len(data))}, extents), err
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

// archived reports whether an entry of a log is in a live segment. Logs of tests are archived in order.
func (s *System) archived(log string, seq uint64) bool {
	s.Mu.Lock()
	defer s.Mu.Unlock()
	return s.Mu.last[log] >= seq
}

// Commit puts a segment into the manifest and the owner's tree, of which it has these extents and no others.
func (s *System) Commit(in extent.Segment, extents ...extent.Extent) {
	s.T.Helper()
	s.CommitPart(in, nil, extents...)
}

// CommitPart is Commit of a segment that has other logs as well, which are refused, ascending.
func (s *System) CommitPart(in extent.Segment, refused []string, extents ...extent.Extent) {
	s.T.Helper()
	summary := extent.Summarize(in, extents)
	summary.Refused = refused
	s.Append(manifest.Record{Kind: manifest.Commit, Epoch: 1, Owner: "n", Segments: []extent.Summary{summary}})
	s.Mu.Lock()
	defer s.Mu.Unlock()
	if s.Mu.last == nil {
		s.Mu.last = make(map[string]uint64)
	}
	for _, e := range extents {
		s.Mu.last[e.Log] = e.Last
		s.Mu.Buffered = slices.DeleteFunc(s.Mu.Buffered, func(b entry.Entry) bool {
			return b.Log == e.Log && b.Seq <= e.Last
		})
	}
}
