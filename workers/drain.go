package workers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/entry"
	"dormouse/internal/wire"
)

const (
	maxReply = 8 << 20  // bounds a reply on servers with a large max_payload
	maxEntry = 64 << 20 // an entry is at most max_payload, which nobody sets higher
)

// errMoved means that an entry was archived by another worker while this one was taking it in parts. The logs must be
// drained from their new beginning.
var errMoved = errors.New("an entry was archived while it was being drained")

// archive works on fetched items: one drain and its segments for each owner.
//
// The owners' turns are taken side by side, or the items of an owner that answers would wait for the time-outs of one
// that does not. They are at most ItemsPerFetch, and each has no more in memory than one drain reply while it waits for
// its turn to pack, see pack.begin: a pool has one segment for each worker, as if it took the owners one after the
// other.
func (p *Pool) archive(ctx context.Context, items []jetstream.Msg, ackWait time.Duration) {
	stop := p.keepAlive(items, ackWait)
	defer stop()
	var owners sync.WaitGroup
	for _, b := range p.group(items) {
		owners.Go(func() {
			err := p.archiveBatch(ctx, b)
			what := done
			switch {
			case errors.Is(err, errStale):
				what = stale
			case errors.Is(err, errImpossible):
				what = poison
			case err != nil:
				what = abandoned
			}
			for _, msg := range b.items {
				p.end(msg, what, err)
			}
		})
	}
	owners.Wait()
}

// archiveBatch drains the logs of a batch in one exchange of as many requests as their entries need, and commits a
// segment whenever one is full and at the end. A batch that is given up after a segment was put, or even committed,
// without an answer is harmless: its logs are drained anew, and an owner that has committed them has nothing left of
// them.
func (p *Pool) archiveBatch(ctx context.Context, b *batch) error {
	if p.silence.turnAway(b.ownerID, time.Now()) {
		return errSilent
	}
	pack := p.newPack(b)
	defer pack.close()
	req := wire.DrainRequest{Logs: b.logs, MaxBytes: min(p.room(), maxReply)}
	sink := &sink{logs: b.logs, add: func(key, value []byte) error { return pack.add(ctx, key, value) }}
	for {
		reply, err := ask[wire.DrainReply](ctx, p, b, wire.OpDrain, req)
		if req.Offset > 0 && errors.Is(err, wire.ErrBadRequest) {
			return fmt.Errorf("%w: the next one is shorter", errMoved)
		}
		if err != nil {
			return err
		}
		if len(reply.Data) > 0 || reply.Piece != nil {
			if err := pack.begin(ctx); err != nil {
				return err
			}
		}
		if err := sink.take(reply, &req); err != nil {
			return err
		}
		if reply.Done {
			return pack.flush(ctx)
		}
	}
}

// sink checks the drained entries and passes them on. Replies come from outside: whatever they hold must end in an
// error, never in a wrong segment.
type sink struct {
	logs  []string // that were asked for, ascending
	last  []byte   // key of the last entry that was passed on
	log   string   // its log
	piece *piece   // of a value that comes in parts
	add   func(key, value []byte) error
}

// piece is a value of which total bytes are to come. Invariant: len(value) < total.
type piece struct {
	key, value []byte
	total      int
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: drain reply: %s", errImpossible, fmt.Sprintf(format, args...))
}

// take passes a reply's entries on and makes req the request for what follows.
func (s *sink) take(reply wire.DrainReply, req *wire.DrainRequest) error {
	if len(reply.Data) > 0 {
		if err := s.takeBatch(reply.Data); err != nil {
			return err
		}
	}
	if reply.Piece != nil {
		if err := s.takePiece(*reply.Piece); err != nil {
			return err
		}
	}
	if reply.Done {
		if s.piece != nil {
			return fmt.Errorf("%w: nothing is left", errMoved)
		}
		return nil
	}
	return advance(req, reply)
}

// advance makes req the request for what follows reply, which must be further on: an exchange always ends.
func advance(req *wire.DrainRequest, reply wire.DrainReply) error {
	if reply.Skip < 0 || reply.Skip >= len(req.Logs) || reply.Offset < 0 {
		return malformed("go on after %d of %d logs at byte %d", reply.Skip, len(req.Logs), reply.Offset)
	}
	forward := reply.Skip > 0 || reply.After > req.After || reply.After == req.After && reply.Offset > req.Offset
	if !forward {
		return malformed("goes on at byte %d after %d, not beyond byte %d after %d", reply.Offset, reply.After, req.Offset,
			req.After)
	}
	req.Logs, req.After, req.Offset = req.Logs[reply.Skip:], reply.After, reply.Offset
	return nil
}

func (s *sink) takeBatch(data []byte) error {
	if s.piece != nil {
		return fmt.Errorf("%w: another one came", errMoved)
	}
	return eachSet(data, s.pass)
}

// takePiece adds a part to the value that is coming in parts, and passes it on when it is whole.
func (s *sink) takePiece(p wire.Piece) error {
	if s.piece == nil {
		if p.Total <= 0 || p.Total > maxEntry {
			return malformed("an entry of %d bytes", p.Total)
		}
		s.piece = &piece{key: bytes.Clone(p.Key), total: p.Total}
	}
	if !bytes.Equal(p.Key, s.piece.key) {
		return fmt.Errorf("%w: a part of another one came", errMoved)
	}
	if p.Total != s.piece.total || p.Offset != len(s.piece.value) ||
		len(p.Bytes) == 0 || len(p.Bytes) > p.Total-p.Offset {
		return malformed("part at %d of an entry of %d bytes does not follow part at %d of %d",
			p.Offset, p.Total, len(s.piece.value), s.piece.total)
	}
	s.piece.value = append(s.piece.value, p.Bytes...)
	if len(s.piece.value) < s.piece.total {
		return nil
	}
	whole := s.piece
	s.piece = nil
	return s.pass(whole.key, whole.value)
}

// pass hands on one whole entry that is what was asked for.
func (s *sink) pass(key, value []byte) error {
	log, seq, err := entry.SplitKey(key)
	if err != nil {
		return malformed("%v", err)
	}
	if seq == 0 {
		return malformed("log %s has an entry with sequence 0", log)
	}
	if s.log != string(log) {
		i, asked := slices.BinarySearch(s.logs, string(log))
		if !asked {
			return malformed("log %s was not asked for", log)
		}
		s.log = s.logs[i]
	}
	if s.last != nil && bytes.Compare(s.last, key) >= 0 {
		return malformed("entries out of order at %q", key)
	}
	if _, _, err := entry.Measure(value); err != nil {
		return malformed("%v", err)
	}
	s.last = append(s.last[:0], key...)
	return s.add(key, value)
}
