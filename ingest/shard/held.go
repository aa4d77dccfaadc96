package shard

import (
	"errors"
	"iter"
	"math"

	"github.com/nats-io/nats.go"

	"dormouse/internal/extent"
	"dormouse/internal/wire"
)

// pieceRoom is what a segment takes of a reply at most, besides LogIDs: its own two, and those that were refused in it.
const pieceRoom = 320

// replyRoom is how many bytes a reply may hold.
func (s *server) replyRoom() int { return int(s.nc.MaxPayload()) - payloadMargin }

// sizeOf returns how many bytes a piece takes of a reply at most.
func sizeOf(p extent.Piece) int {
	n := pieceRoom + len(p.Segment.Object.Key) + len(p.Segment.First) + len(p.Segment.Last)
	for _, log := range p.Segment.Refused {
		n += len(log) + 3
	}
	return n
}

// held answers with what the owner has of a log above a sequence. It is right whoever owns the shard by now: nothing of
// the log up to applied can be missing in it, whatever happened since. So it names no manifest record that it must know
// of.
func (s *server) held(msg *nats.Msg) wire.HeldReply {
	var req wire.HeldRequest
	if err := decodeRequest(msg, &req); err != nil {
		return wire.HeldReply{Status: wire.StatusOf(err)}
	}
	reply, err := s.look(req)
	if err != nil {
		if !errors.Is(err, wire.ErrBadRequest) {
			s.failing.Failed(err)
		}
		return wire.HeldReply{Status: wire.StatusOf(err)}
	}
	reply.Archive = s.archive
	return reply
}

func (s *server) look(req wire.HeldRequest) (reply wire.HeldReply, err error) {
	v, err := s.ledger.view()
	if err != nil {
		return reply, err
	}
	req.MaxBytes = min(req.MaxBytes, s.replyRoom())
	reply, err = v.answer(req, s.replyRoom())
	return reply, errors.Join(err, v.close())
}

// answer answers with the segments that fit into room, and what fits into req.MaxBytes of entries behind them. The
// segments of one manifest record stay together: the asker goes on behind it. They fit, unless a single log fills some
// 2,000 segments of a run.
func (v view) answer(req wire.HeldRequest, room int) (reply wire.HeldReply, err error) {
	reply.Applied, reply.Cuts = v.applied, v.tree.Cuts().Of(req.Log)
	for _, c := range reply.Cuts {
		room -= c.Size()
	}
	if req.UpTo > 0 {
		if v.applied >= req.UpTo {
			reply.Complete, err = v.has(req)
		}
		return reply, err
	}
	_, _, reply.Buffered, err = v.buffered.Seek(req.Log, req.After+1)
	if err != nil {
		return reply, err
	}
	for p := range v.segments(req) {
		p.Segment.Refused = nil // this log is not among them
		n := len(reply.Pieces)
		if room -= sizeOf(p); room < 0 && n > 0 && reply.Pieces[n-1].Newest < p.Newest {
			reply.More = true
			return reply, nil
		}
		reply.Pieces = append(reply.Pieces, p)
	}
	if req.MaxBytes == 0 {
		reply.More = reply.Buffered
		return reply, nil
	}
	reply.Entries, reply.More, err = v.buffered.Page(req.Log, req.After, math.MaxUint64, req.Offset,
		min(req.MaxBytes, max(room, 1)))
	return reply, err
}

// segments yields the segments that can have what is asked for, in the tree's order.
func (v view) segments(req wire.HeldRequest) iter.Seq[extent.Piece] {
	return func(yield func(extent.Piece) bool) {
		for p := range v.tree.ForLog(req.Log, req.After, req.Since) {
			if v.filters.mayHold(p.Segment.Object.Key, req.Log) && !yield(p) {
				return
			}
		}
	}
}

// has reports whether a log has just the entries of the request, none of them in a segment that the asker has not read.
func (v view) has(req wire.HeldRequest) (bool, error) {
	for p := range v.segments(req) {
		if p.Segment.MinSeq <= req.UpTo {
			return false, nil
		}
	}
	return v.buffered.Has(req.Log, req.After, req.UpTo, req.Seqs)
}
