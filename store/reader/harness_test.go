package reader

import (
	"fmt"
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

// system is a NATS server with Dormouse's streams, a bucket, and an owner of shard 0 that answers from a list.
type system struct {
	t      *testing.T
	srv    *server.Server
	nc     *nats.Conn
	js     jetstream.JetStream
	bucket *bucket.Bucket

	mu struct {
		sync.Mutex
		manifest *manifest.Manifest
		extents  []extent.Located // what the owner's catalog holds, ascending
		busy     int              // requests that the owner still refuses
		asked    []wire.ExtentsRequest

		behind    bool          // the owner takes in nothing more
		applied   uint64        // what the owner has taken in of the stream
		buffered  []entry.Entry // and not archived, ascending in each log
		questions []wire.HeldRequest
	}
}

func newSystem(t *testing.T) *system {
	t.Helper()
	s := &system{t: t, srv: natstest.Start(t)}
	s.nc, s.js = natstest.Dial(t, s.srv)
	if _, err := topology.Ensure(t.Context(), s.js, topology.Config{RequeueAfter: time.Minute, Lease: time.Second}); err != nil {
		t.Fatal(err)
	}
	var err error
	if s.bucket, err = bucket.Open(t.Context(), "file://"+t.TempDir()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.bucket.Close() })
	if s.mu.manifest, err = manifest.Open(t.Context(), s.js, 0); err != nil {
		t.Fatal(err)
	}
	return s
}

// publish publishes entries of a log, which the owner takes in unless it is behind, and returns the last one's sequence.
func (s *system) publish(log string, payloads ...string) (last uint64) {
	s.t.Helper()
	for _, p := range payloads {
		ack, err := s.js.Publish(s.t.Context(), wire.DefaultPrefix+"."+log, []byte(p))
		if err != nil {
			s.t.Fatal(err)
		}
		last = ack.Sequence
		s.takeIn(entry.Entry{Log: log, Seq: last, Time: s.message(last).Time, Data: []byte(p)})
	}
	return last
}

func (s *system) takeIn(e entry.Entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.mu.behind {
		s.mu.applied, s.mu.buffered = e.Seq, append(s.mu.buffered, e)
	}
}

func (s *system) source() jetstream.Stream {
	s.t.Helper()
	stream, err := s.js.Stream(s.t.Context(), wire.DefaultSource)
	if err != nil {
		s.t.Fatal(err)
	}
	return stream
}

func (s *system) message(seq uint64) *jetstream.RawStreamMsg {
	s.t.Helper()
	msg, err := s.source().GetMsg(s.t.Context(), seq)
	if err != nil {
		s.t.Fatal(err)
	}
	return msg
}

// trim purges the source stream up to and including a sequence.
func (s *system) trim(upTo uint64) {
	s.t.Helper()
	if err := s.source().Purge(s.t.Context(), jetstream.WithPurgeSequence(upTo+1)); err != nil {
		s.t.Fatal(err)
	}
}

// claim appends a claim to the manifest, which makes epoch the current one.
func (s *system) claim(epoch uint64) {
	s.t.Helper()
	s.append(manifest.Record{Kind: manifest.Claim, Epoch: epoch, Owner: "n"})
}

func (s *system) append(r manifest.Record) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.mu.manifest.Append(s.t.Context(), r); err != nil {
		s.t.Fatal(err)
	}
}

// recordID returns the ID of the manifest record at a sequence.
func (s *system) recordID(seq uint64) string {
	s.t.Helper()
	stream, err := s.js.Stream(s.t.Context(), wire.ManifestStream)
	if err != nil {
		s.t.Fatal(err)
	}
	msg, err := stream.GetMsg(s.t.Context(), seq)
	if err != nil {
		s.t.Fatal(err)
	}
	r, err := manifest.Decode(msg.Data)
	if err != nil {
		s.t.Fatal(err)
	}
	return r.ID
}

// own answers for the shard in an epoch, until the test ends.
func (s *system) own(epoch uint64) {
	s.t.Helper()
	sub, err := s.nc.Subscribe(wire.OwnerSubjects(0, epoch), func(msg *nats.Msg) {
		answer, err := s.hear(msg)
		var data []byte
		if err == nil {
			data, err = wire.Encode(answer)
		}
		if err == nil {
			err = msg.Respond(data)
		}
		if err != nil {
			s.t.Error(err)
		}
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = sub.Unsubscribe() })
}

func (s *system) hear(msg *nats.Msg) (any, error) {
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
func (s *system) held(req wire.HeldRequest) wire.HeldReply {
	extents := s.answer(wire.ExtentsRequest{Log: req.Log, After: req.After})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.questions = append(s.mu.questions, req)
	reply := wire.HeldReply{Status: extents.Status, Extents: extents.Extents, More: extents.More, Archive: extents.Archive, Applied: s.mu.applied}
	var has []uint64
	for _, e := range s.mu.buffered {
		if e.Log != req.Log || e.Seq <= req.After {
			continue
		}
		reply.Buffered = true
		if e.Seq <= req.UpTo {
			has = append(has, e.Seq)
		}
		reply.More = reply.More || len(reply.Extents) > 0 || len(reply.Entries) == 2
		if !reply.More && req.MaxBytes > 0 {
			reply.Entries = append(reply.Entries, wire.HeldEntry{Seq: e.Seq, Value: entry.AppendValue(nil, e.Time, e.Headers, e.Data)})
		}
	}
	if req.UpTo > 0 {
		reply.Complete = slices.Equal(has, req.Seqs) && (len(reply.Extents) == 0 || reply.Extents[0].Extent.First > req.UpTo)
	}
	return reply
}

func (s *system) answer(req wire.ExtentsRequest) (reply wire.ExtentsReply) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.asked = append(s.mu.asked, req)
	if s.mu.busy > 0 {
		s.mu.busy--
		return wire.ExtentsReply{Status: wire.Status{Code: wire.Busy, Message: "at its bound"}}
	}
	reply = wire.ExtentsReply{Archive: s.bucket.URL(), Stream: wire.DefaultSource}
	for _, l := range s.mu.extents {
		switch wanted := l.Extent.Log == req.Log && l.Extent.Last > req.After || req.All && l.Extent.Log > req.Log; {
		case wanted && len(reply.Extents) == 2:
			reply.More = true
		case wanted:
			reply.Extents = append(reply.Extents, l)
		}
	}
	return reply
}

// archive moves what the stream holds of some logs, up to a sequence, into one segment and commits it.
func (s *system) archive(key string, upTo uint64, logs ...string) {
	s.t.Helper()
	in, extents := s.put(key, upTo, logs...)
	s.commit(in, extents...)
}

// put is archive without the commit.
func (s *system) put(key string, upTo uint64, logs ...string) (extent.Segment, []extent.Extent) {
	s.t.Helper()
	w, err := segment.NewWriter(segment.Options{})
	if err != nil {
		s.t.Fatal(err)
	}
	defer w.Close()
	stream, err := s.js.Stream(s.t.Context(), wire.DefaultSource)
	if err != nil {
		s.t.Fatal(err)
	}
	state := stream.CachedInfo().State
	slices.Sort(logs)
	for _, log := range logs {
		for seq := state.FirstSeq; seq <= min(upTo, state.LastSeq); seq++ {
			msg, err := stream.GetMsg(s.t.Context(), seq)
			if err != nil || strings.TrimPrefix(msg.Subject, wire.DefaultPrefix+".") != log || s.archived(log, seq) {
				continue
			}
			if err := w.Add(entry.AppendKey(nil, log, seq), entry.AppendValue(nil, msg.Time, msg.Header, msg.Data)); err != nil {
				s.t.Fatal(err)
			}
		}
	}
	data, extents, err := w.Finish()
	if err == nil {
		err = s.bucket.Put(s.t.Context(), key, data)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return extent.Segment{Key: key, Size: uint64(len(data))}, extents
}

func (s *system) archived(log string, seq uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.mu.extents, func(l extent.Located) bool { return l.Extent.Log == log && l.Extent.Last >= seq })
}

// commit puts extents of a segment into the manifest and the owner's catalog.
func (s *system) commit(in extent.Segment, extents ...extent.Extent) {
	s.t.Helper()
	s.append(manifest.Record{Kind: manifest.Commit, Epoch: 1, Owner: "n", Segments: []manifest.Committed{{Segment: in, Extents: extents}}})
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range extents {
		s.mu.extents = append(s.mu.extents, extent.Located{Extent: e, Segment: in})
		s.mu.buffered = slices.DeleteFunc(s.mu.buffered, func(b entry.Entry) bool { return b.Log == e.Log && b.Seq <= e.Last })
	}
	slices.SortFunc(s.mu.extents, func(a, b extent.Located) int {
		if c := strings.Compare(a.Extent.Log, b.Extent.Log); c != 0 {
			return c
		}
		return int(a.Extent.First) - int(b.Extent.First)
	})
}

// open locates a log and makes its reader.
func (s *system) open(log string) *Reader {
	s.t.Helper()
	c := NewClient(s.nc, s.js)
	at, err := c.Locate(s.t.Context(), log)
	if err != nil {
		s.t.Fatal(err)
	}
	r, closeReader, err := c.Open(s.t.Context(), at, s.bucket)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(closeReader)
	return r
}

// read returns sequence=payload of what a query brings.
func (s *system) read(q Query) string {
	s.t.Helper()
	var got []string
	err := s.open(q.Log).Read(s.t.Context(), q, func(e entry.Entry) error {
		got = append(got, fmt.Sprintf("%d=%s", e.Seq, e.Data))
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return strings.Join(got, " ")
}
