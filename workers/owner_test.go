package workers

import (
	"encoding/binary"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"dormouse/internal/entry"
	"dormouse/internal/extent"
	"dormouse/internal/shardid"
	"dormouse/internal/wire"
)

// record is one entry that an owner was given.
type record struct {
	seq  uint64
	data []byte
}

func (r record) value() []byte {
	return entry.AppendValue(nil, time.Unix(int64(r.seq), 0), nil, r.data)
}

// owner answers drains and commits from memory, by the rules of the real one.
type owner struct {
	s     *system
	shard shardid.Shard
	epoch uint64
	sub   *nats.Subscription

	// intercept, when set, sees every request first, numbered from 1 for each operation. What it returns is the answer
	// (nil: none is sent); with pass it is dropped for the owner's own.
	intercept func(op wire.Operation, n int, data []byte) (answer []byte, pass bool)

	mu        sync.Mutex
	asked     map[wire.Operation]int
	given     map[string][]record // all there ever was
	buffered  map[string][]record
	committed map[string][]extent.Located
}

// own starts an owner.
func (s *system) own(shard shardid.Shard, epoch uint64, logs map[string][]record) *owner {
	s.t.Helper()
	o := &owner{s: s, shard: shard, epoch: epoch, given: logs, buffered: make(map[string][]record),
		asked: make(map[wire.Operation]int), committed: make(map[string][]extent.Located)}
	for log, records := range logs {
		o.buffered[log] = slices.Clone(records)
	}
	var err error
	if o.sub, err = s.nc.Subscribe(wire.OwnerSubjects(shard, epoch), o.serve); err != nil {
		s.t.Fatal(err)
	}
	return o
}

func (o *owner) serve(msg *nats.Msg) {
	op := wire.OperationOf(msg.Subject)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked[op]++
	if o.intercept != nil {
		if answer, pass := o.intercept(op, o.asked[op], msg.Data); !pass {
			if answer != nil {
				_ = msg.Respond(answer)
			}
			return
		}
	}
	_ = msg.Respond(o.answerLocked(op, msg.Data))
}

// answerLocked does what is asked for and returns the encoded reply.
func (o *owner) answerLocked(op wire.Operation, data []byte) []byte {
	switch op {
	case wire.OpDrain:
		var req wire.DrainRequest
		if err := wire.Decode(data, &req); err != nil {
			return encoded(wire.DrainReply{Status: wire.StatusOf(err)})
		}
		return encoded(o.drainLocked(req))
	case wire.OpCommit:
		var req wire.CommitRequest
		err := wire.Decode(data, &req)
		if err == nil {
			err = req.Validate()
		}
		if err != nil {
			return encoded(wire.CommitReply{Status: wire.Status{Code: wire.BadRequest, Message: err.Error()}})
		}
		return encoded(o.commitLocked(req))
	}
	return nil
}

func (o *owner) drainLocked(req wire.DrainRequest) wire.DrainReply {
	if err := req.Validate(); err != nil {
		return wire.DrainReply{Status: wire.Status{Code: wire.BadRequest, Message: err.Error()}}
	}
	const overhead = 512
	var out batchRepr
	after := req.After
	for i, log := range req.Logs {
		for _, r := range o.buffered[log] {
			if r.seq <= after {
				continue
			}
			key, value := entry.AppendKey(nil, log, r.seq), r.value()
			switch {
			case out.size()+len(key)+len(value)+overhead <= req.MaxBytes:
				out.set(key, value)
				after = r.seq
				continue
			case out.count > 0:
				return wire.DrainReply{Data: out.bytes(), Skip: i, After: after}
			}
			return pieceOf(key, value, i, r.seq, req)
		}
		after = 0
	}
	return wire.DrainReply{Data: out.bytes(), Skip: len(req.Logs), Done: true}
}

func pieceOf(key, value []byte, skip int, seq uint64, req wire.DrainRequest) wire.DrainReply {
	from := req.Offset
	if skip > 0 {
		from = 0
	}
	if from >= len(value) {
		return wire.DrainReply{Status: wire.Status{Code: wire.BadRequest, Message: "offset beyond the entry"}}
	}
	end := min(from+req.MaxBytes-512, len(value))
	reply := wire.DrainReply{Skip: skip, After: seq - 1, Offset: end,
		Piece: &wire.Piece{Key: key, Offset: from, Total: len(value), Bytes: value[from:end]}}
	if end == len(value) {
		reply.After, reply.Offset = seq, 0
	}
	return reply
}

// commitLocked accepts an extent that is a beginning of what is buffered, or was committed with this very segment.
func (o *owner) commitLocked(req wire.CommitRequest) wire.CommitReply {
	var reply wire.CommitReply
	for _, e := range req.Extents {
		at := extent.Located{Extent: e, Segment: req.Segment}
		records, n := o.buffered[e.Log], int(e.Count)
		switch {
		case slices.Contains(o.committed[e.Log], at):
		case n <= len(records) && records[0].seq == e.First && records[n-1].seq == e.Last:
			o.committed[e.Log] = append(o.committed[e.Log], at)
			o.buffered[e.Log] = records[n:]
		default:
			reply.Refused = append(reply.Refused, wire.Refusal{Log: e.Log, Reason: "stale"})
		}
	}
	return reply
}

// requests is how often an operation was asked for.
func (o *owner) requests(op wire.Operation) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.asked[op]
}

// extents returns what was committed of a log.
func (o *owner) extents(log string) []extent.Located {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.committed[log])
}

func encoded(message any) []byte {
	data, err := wire.Encode(message)
	if err != nil {
		panic(err) // messages of this package's tests
	}
	return data
}

// status is an encoded reply, to any request, that holds nothing but a code.
func status(code wire.Code) []byte {
	return encoded(wire.CommitReply{Status: wire.Status{Code: code, Message: "by the test"}})
}

// batchRepr builds a Pebble batch representation: a header of sequence number and count, then one Set after the other.
type batchRepr struct {
	body  []byte
	count uint32
}

func (b *batchRepr) size() int { return 12 + len(b.body) }

func (b *batchRepr) set(key, value []byte) {
	const kindSet = 1
	b.body = append(b.body, kindSet)
	b.body = append(binary.AppendUvarint(b.body, uint64(len(key))), key...)
	b.body = append(binary.AppendUvarint(b.body, uint64(len(value))), value...)
	b.count++
}

// bytes returns nil for an empty batch.
func (b *batchRepr) bytes() []byte {
	if b.count == 0 {
		return nil
	}
	head := binary.LittleEndian.AppendUint32(make([]byte, 8), b.count)
	return append(head, b.body...)
}
