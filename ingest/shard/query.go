package shard

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"

	"dormouse/internal/extent"
	"dormouse/internal/wire"
	"dormouse/store/cache/buffer"
	"dormouse/store/tree"
)

// serveQueries answers the readers' questions, one at a time, until ctx is done.
func (s *server) serveQueries(ctx context.Context) error {
	return s.serveReaders(ctx, s.queries, func(_ context.Context, msg *nats.Msg) any {
		if wire.OperationOf(msg.Subject) == wire.OpHeld {
			return s.held(msg)
		}
		return s.segments(msg)
	})
}

// serveLists answers questions for logs, one at a time, until ctx is done. They read far more than the others, which
// must not wait for them.
func (s *server) serveLists(ctx context.Context) error {
	return s.serveReaders(ctx, s.lists, func(ctx context.Context, msg *nats.Msg) any { return s.list(ctx, msg) })
}

// serveSweeps says what nothing names, one question at a time, until ctx is done: each lists the shard's objects.
func (s *server) serveSweeps(ctx context.Context) error {
	return s.serveReaders(ctx, s.sweeps, func(ctx context.Context, msg *nats.Msg) any { return s.sweep(ctx, msg) })
}

func (s *server) serveReaders(ctx context.Context, asked <-chan *nats.Msg,
	answer func(context.Context, *nats.Msg) any) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case msg := <-asked:
			if !s.fresh() { // another node may own the shard by now, and know more
				s.reply(msg, wire.Status{Code: wire.Busy, Message: "the lease was not renewed lately"})
				continue
			}
			s.reply(msg, answer(ctx, msg))
		}
	}
}

// segments answers with a page of the live segments of a key range. A tree that is behind what the reader has seen of
// the manifest answers Busy, never with less: the reader would take the difference for entries that do not exist.
func (s *server) segments(msg *nats.Msg) wire.SegmentsReply {
	var req wire.SegmentsRequest
	if err := decodeRequest(msg, &req); err != nil {
		return wire.SegmentsReply{Status: wire.StatusOf(err)}
	}
	if at := s.ledger.position().ManifestSeq; at < req.MinManifest {
		return wire.SegmentsReply{Status: wire.StatusOf(
			fmt.Errorf("%w: the tree is at manifest record %d", wire.ErrBusy, at))}
	}
	live, version := s.ledger.live()
	reply := wire.SegmentsReply{Version: version, Archive: s.archive, Stream: s.source.Stream}
	if req.Version > 0 && req.Version != version {
		return reply
	}
	reply.Cuts, reply.Pieces, reply.More = page(live, req, s.replyRoom())
	return reply
}

// page returns the cuts, and behind them the segments, that a request asks for, as many as fit into room.
func page(live tree.Tree, req wire.SegmentsRequest, room int) (cuts extent.Cuts, pieces []extent.Piece, more bool) {
	for _, c := range live.Cuts().Between(req.From, req.To) {
		if req.Offset > 0 {
			req.Offset--
			continue
		}
		if room -= c.Size(); room < 0 && len(cuts) > 0 {
			return cuts, nil, true
		}
		cuts = append(cuts, c)
	}
	for p := range live.Overlapping(req.From, req.To) {
		if req.Offset > 0 {
			req.Offset--
			continue
		}
		if room -= sizeOf(p); room < 0 && len(pieces)+len(cuts) > 0 {
			return cuts, pieces, true
		}
		pieces = append(pieces, p)
	}
	return cuts, pieces, false
}

// list answers with a page of the logs that have buffered entries.
func (s *server) list(ctx context.Context, msg *nats.Msg) wire.ListReply {
	var req wire.ListRequest
	if err := decodeRequest(msg, &req); err != nil {
		return wire.ListReply{Status: wire.StatusOf(err)}
	}
	reply, err := s.buffered(ctx, req)
	if ctx.Err() != nil {
		return wire.ListReply{Status: wire.Status{Code: wire.NotOwner, Message: "the owner steps down"}}
	}
	if err != nil {
		s.failing.Failed(err)
		return wire.ListReply{Status: wire.StatusOf(err)}
	}
	reply.Archive = s.archive
	return reply
}

func (s *server) buffered(ctx context.Context, req wire.ListRequest) (reply wire.ListReply, err error) {
	limit := req.Limit
	if limit <= 0 || limit > wire.MaxListReplies {
		limit = wire.MaxListReplies
	}
	from := req.Prefix
	if req.After != "" {
		from = max(from, req.After+"\x01") // the smallest key after all of After's
	}
	v, err := s.ledger.view()
	if err != nil {
		return reply, err
	}
	defer func() { err = errors.Join(err, v.close()) }()
	logs, err := s.bufferedLogs(ctx, v.buffered, req.Prefix, from, limit+1)
	if err != nil {
		return reply, err
	}
	reply.More = len(logs) > limit
	reply.Logs = logs[:min(limit, len(logs))]
	return reply, nil
}

// bufferedLogs returns up to limit logs of a cursor from one on.
func (s *server) bufferedLogs(ctx context.Context, cursor *buffer.Cursor, prefix, from string,
	limit int) (logs []wire.LogInfo, err error) {
	log, ok, err := cursor.SeekLog(from)
	for ok && err == nil && strings.HasPrefix(log, prefix) && len(logs) < limit {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		part, err := s.bufferedPart(cursor, log)
		if err != nil {
			return nil, err
		}
		logs = append(logs, wire.LogInfo{Log: log, Buffered: part})
		if log, ok, err = cursor.SeekLog(log + "\x01"); err != nil {
			return logs, err
		}
	}
	return logs, err
}

// bufferedPart sums up what a cursor has of a log. The sums that are kept in memory tell it, unless they are of another
// moment.
func (s *server) bufferedPart(cursor *buffer.Cursor, log string) (wire.Part, error) {
	pending, _ := s.ledger.pending(log)
	first, begin, _, err := cursor.Seek(log, 0)
	if err != nil {
		return wire.Part{}, err
	}
	last, end, _, err := cursor.Last(log)
	if err != nil || pending.First == first && pending.Last == last {
		return wire.Part{Entries: pending.Count, Bytes: pending.Bytes, First: first, Last: last, MinTime: begin.UnixNano(),
			MaxTime: end.UnixNano()}, err
	}
	e, err := cursor.Measure(log, first, last)
	return wire.Part{Entries: e.Count, Bytes: e.Bytes, First: e.First, Last: e.Last, MinTime: e.MinTime,
		MaxTime: e.MaxTime}, err
}
