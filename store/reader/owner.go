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
	// Held returns what comes next of log above after.
	Held(ctx context.Context, log string, after uint64) (Held, error)
	// Complete reports whether log has just the entries seqs above after up to upTo, if the owner has taken in the stream
	// up to there: else applied, up to where it has, is below upTo. It is false, too, when one of them is archived. It
	// asks once, for checkTimeout.
	Complete(ctx context.Context, log string, after, upTo uint64, seqs []uint64) (complete bool, applied uint64, err error)
}

// Held is a page of what the owner has of a log, ascending: Extents, or else Entries. Without More, the log has nothing
// behind them up to Applied that is in the archive or will ever come to be.
type Held struct {
	Extents []extent.Located
	Entries []entry.Entry // buffered
	More    bool
	Applied uint64
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
	ctx context.Context, log string, after, upTo uint64, seqs []uint64,
) (bool, uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	request := wire.HeldRequest{Log: log, After: after, UpTo: upTo, Seqs: seqs}
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

func (o *remoteOwner) Held(ctx context.Context, log string, after uint64) (held Held, err error) {
	request := wire.HeldRequest{Log: log, After: after, MaxBytes: heldBytes}
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
			return heldOf(log, after, reply)
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
			return heldOf(log, after, reply)
		}
	}
}

// errReply means that an owner's answer cannot be.
var errReply = errors.New("the owner's answer makes no sense")

// heldOf checks an answer: entries that do not come from the stream are held to no less.
func heldOf(log string, after uint64, reply wire.HeldReply) (Held, error) {
	held := Held{Extents: reply.Extents, More: reply.More, Applied: reply.Applied}
	last := after
	for _, l := range reply.Extents {
		e := l.Extent
		if err := e.Validate(); err != nil || e.Log != log || e.Last <= last {
			return Held{}, fmt.Errorf("%w: an extent of %s from %d to %d after %d of %s, %w", errReply, e.Log, e.First, e.Last,
				last, log, err)
		}
		last = e.Last
	}
	for _, h := range reply.Entries {
		v, err := entry.DecodeValue(h.Value)
		if err != nil || h.Seq <= last {
			return Held{}, fmt.Errorf("%w: entry %d after %d of %s, %w", errReply, h.Seq, last, log, err)
		}
		held.Entries = append(held.Entries, entry.Entry{Log: log, Seq: h.Seq, Time: v.Time, Headers: v.Headers, Data: v.Data})
		last = h.Seq
	}
	if held.More && last == after {
		return Held{}, fmt.Errorf("%w: more of %s above %d, and nothing of it", errReply, log, after)
	}
	return held, nil
}
