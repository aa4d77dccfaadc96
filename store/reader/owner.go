package reader

import (
	"context"
	"errors"
	"fmt"
	"time"

	"dormouse/internal/entry"
	"dormouse/internal/extent"
	"dormouse/internal/shardid"
	"dormouse/internal/wire"
	"dormouse/store/client"
)

// Owner knows what is archived of logs, and what is to be archived still.
type Owner interface {
	// Held returns what comes next of log above a place.
	Held(ctx context.Context, log string, at Place) (Held, error)
	// Complete reports whether log has just the entries seqs above a place up to upTo, if the owner has taken in the
	// stream up to there: else applied, up to where it has, is below upTo. It is false, too, when one of them may be
	// archived in a segment that was not read. It asks once, for checkTimeout.
	Complete(ctx context.Context, log string, at Place, upTo uint64, seqs []uint64) (complete bool, applied uint64,
		err error)
}

// Place is how far a log was read: all entries up to a sequence, and all segments up to a manifest record.
type Place struct{ After, Since uint64 }

// Held is a page of what the owner has of a log, ascending: segments that may have entries of it, and behind them
// Entries. Without More, the log has nothing behind them up to Applied that is in the archive or will ever come to be.
type Held struct {
	Pieces  []extent.Piece
	Entries []entry.Entry // buffered
	More    bool
	Applied uint64
	Cuts    extent.Cuts // of the log
}

// checkTimeout bounds one question whether a batch is complete. The stream itself may tell, if the owner does not.
const checkTimeout = time.Second

// heldBytes is how much of buffered entries is asked for at once.
const heldBytes = 4 << 20

// maxEntry bounds an entry that comes in parts. One is at most max_payload, which nobody sets higher.
const maxEntry = 64 << 20

// remoteOwner is the owner of a shard, wherever it is. It is for one goroutine.
type remoteOwner struct {
	client *client.Client
	shard  shardid.Shard
	doubts int // questions in a row after which another process may be the owner by now
}

// behindOften is how many answers of an owner that is behind the stream make the reader look for another one.
const behindOften = 4

func (o *remoteOwner) Complete(
	ctx context.Context, log string, at Place, upTo uint64, seqs []uint64,
) (bool, uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	request := wire.HeldRequest{Log: log, After: at.After, Since: at.Since, UpTo: upTo, Seqs: seqs}
	reply, err := o.client.HeldNow(ctx, o.shard, request, o.doubts >= behindOften)
	switch {
	case err != nil:
		o.doubts = behindOften
	case reply.Applied < upTo:
		o.doubts++
	default:
		o.doubts = 0
	}
	return reply.Complete, reply.Applied, err
}

func (o *remoteOwner) Held(ctx context.Context, log string, at Place) (held Held, err error) {
	request := wire.HeldRequest{Log: log, After: at.After, Since: at.Since, MaxBytes: heldBytes}
	var whole wire.HeldEntry // of an entry that comes in parts, what came of it
	for {
		request.Offset = len(whole.Value)
		reply, err := o.client.Held(ctx, o.shard, request)
		if whole.Total > 0 && errors.Is(err, wire.ErrBadRequest) { // it was archived meanwhile, and the next one is shorter
			whole = wire.HeldEntry{}
			continue
		}
		if err != nil {
			return held, err
		}
		if len(reply.Entries) != 1 || reply.Entries[0].Total == 0 {
			return heldOf(log, at, reply)
		}
		part := reply.Entries[0]
		if whole.Total > 0 && (part.Seq != whole.Seq || part.Total != whole.Total) {
			whole = wire.HeldEntry{} // likewise
			continue
		}
		if len(part.Value) == 0 || part.Total > maxEntry || len(part.Value) > part.Total-request.Offset {
			return held, fmt.Errorf("%w: %d bytes at %d of an entry of %d", errReply, len(part.Value), request.Offset,
				part.Total)
		}
		whole.Seq, whole.Total, whole.Value = part.Seq, part.Total, append(whole.Value, part.Value...)
		if len(whole.Value) == whole.Total {
			reply.Entries = []wire.HeldEntry{whole}
			return heldOf(log, at, reply)
		}
	}
}

// errReply means that an owner's answer cannot be.
var errReply = errors.New("the owner's answer makes no sense")

// heldOf checks an answer: entries that do not come from the stream are held to no less.
func heldOf(log string, at Place, reply wire.HeldReply) (Held, error) {
	held := Held{Pieces: reply.Pieces, More: reply.More, Applied: reply.Applied, Cuts: reply.Cuts}
	newest := at.Since
	for i, p := range reply.Pieces {
		if err := p.Segment.Validate(); err != nil || !p.Segment.MayHold(log) || p.Newest < newest ||
			i == 0 && p.Newest == at.Since {
			return Held{}, fmt.Errorf("%w: segment %s of record %d after record %d for %s, %w", errReply,
				p.Segment.Object.Key, p.Newest, newest, log, err)
		}
		newest = p.Newest
	}
	last := at.After
	for _, h := range reply.Entries {
		v, err := entry.DecodeValue(h.Value)
		if err != nil || h.Seq <= last {
			return Held{}, fmt.Errorf("%w: entry %d after %d of %s, %w", errReply, h.Seq, last, log, err)
		}
		held.Entries = append(held.Entries, entry.Entry{Log: log, Seq: h.Seq, Time: v.Time, Headers: v.Headers, Data: v.Data})
		last = h.Seq
	}
	if held.More && last == at.After && newest == at.Since {
		return Held{}, fmt.Errorf("%w: more of %s above %d, and nothing of it", errReply, log, at.After)
	}
	return held, nil
}
