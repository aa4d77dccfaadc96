package shard

import (
	"errors"
	"math"

	"github.com/nats-io/nats.go"

	"dormouse/internal/extent"
	"dormouse/internal/wire"
)

// extentRoom is what an extent and its segment take of a reply at most, besides the LogID.
const extentRoom = 192

// replyRoom is how many bytes a reply may hold.
func (s *server) replyRoom() int { return int(s.nc.MaxPayload()) - payloadMargin }

// extentLimit is how many extents of logs with so long a LogID fit into a reply.
func (s *server) extentLimit(logBytes int) int {
	return max(min(wire.MaxExtents, s.replyRoom()/(extentRoom+logBytes)), 1)
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
	limit := 1
	if req.MaxBytes > 0 {
		req.MaxBytes, limit = min(req.MaxBytes, s.replyRoom()), s.extentLimit(len(req.Log))
	}
	reply, err = v.answer(req, limit)
	return reply, errors.Join(err, v.close())
}

// answer answers with at most limit extents, or req.MaxBytes of entries.
func (v view) answer(req wire.HeldRequest, limit int) (reply wire.HeldReply, err error) {
	reply.Applied = v.applied
	if req.UpTo > 0 {
		if v.applied >= req.UpTo {
			reply.Complete, err = v.has(req.Log, req.After, req.UpTo, req.Seqs)
		}
		return reply, err
	}
	archived, more, err := v.archived.Extents(req.Log, req.After, false, limit)
	if err != nil {
		return reply, err
	}
	first, _, buffered, err := v.buffered.Seek(req.Log, req.After+1)
	if err != nil {
		return reply, err
	}
	reply.Buffered = buffered
	reply.Extents = archived
	if buffered { // behind the archive; before it, if another node had the log for a while, and not these entries
		reply.Extents = before(archived, first)
	}
	reply.More = more || buffered || len(reply.Extents) < len(archived)
	if len(reply.Extents) > 0 || req.MaxBytes == 0 {
		return reply, nil
	}
	below := uint64(math.MaxUint64)
	if len(archived) > 0 {
		below = archived[0].Extent.First
	}
	reply.Entries, more, err = v.buffered.Page(req.Log, req.After, below, req.Offset, req.MaxBytes)
	reply.More = more || len(archived) > 0
	return reply, err
}

// before returns the extents that lie before a sequence.
func before(all []extent.Located, seq uint64) []extent.Located {
	for i, l := range all {
		if l.Extent.First > seq {
			return all[:i]
		}
	}
	return all
}

// has reports whether a log has just those entries above after up to a sequence, and none of them in the archive.
func (v view) has(log string, after, upTo uint64, seqs []uint64) (bool, error) {
	archived, _, err := v.archived.Extents(log, after, false, 1)
	if err != nil || len(archived) > 0 && archived[0].Extent.First <= upTo {
		return false, err
	}
	return v.buffered.Has(log, after, upTo, seqs)
}
