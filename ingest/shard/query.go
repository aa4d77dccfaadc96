package shard

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"dormouse/internal/logid"
	"dormouse/internal/wire"
	"dormouse/store/cache/buffer"
	"dormouse/store/cache/catalog"
)

// serveQueries answers the readers' questions, one at a time, until ctx is done.
func (s *server) serveQueries(ctx context.Context) error {
	return s.serveReaders(ctx, s.queries, func(_ context.Context, msg *nats.Msg) any {
		if wire.OperationOf(msg.Subject) == wire.OpHeld {
			return s.held(msg)
		}
		return s.extents(msg)
	})
}

// serveLists answers questions for logs, one at a time, until ctx is done. They read far more than the others, which
// must not wait for them.
func (s *server) serveLists(ctx context.Context) error {
	return s.serveReaders(ctx, s.lists, func(ctx context.Context, msg *nats.Msg) any { return s.list(ctx, msg) })
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

// extents answers with a page of a log's extents. A catalog that is behind what the reader has seen of the manifest
// answers Busy, never with less: the reader would take the difference for entries that do not exist.
func (s *server) extents(msg *nats.Msg) wire.ExtentsReply {
	var req wire.ExtentsRequest
	if err := decodeRequest(msg, &req); err != nil {
		return wire.ExtentsReply{Status: wire.StatusOf(err)}
	}
	applied := s.ledger.position().ManifestSeq
	if applied < req.MinManifest {
		return wire.ExtentsReply{Status: wire.StatusOf(
			fmt.Errorf("%w: the catalog is at manifest record %d", wire.ErrBusy, applied))}
	}
	page, more, err := s.ledger.disk.catalog.Extents(req.Log, req.After, req.All, s.extentLimit(logid.MaxBytes))
	if err != nil {
		s.failing.Failed(err)
		return wire.ExtentsReply{Status: wire.StatusOf(err)}
	}
	return wire.ExtentsReply{Extents: page, More: more, Archive: s.archive, Stream: s.source.Stream}
}

// listTime bounds a page of logs besides the extents that it may read, on a disk that is slow: readers wait 3 s for it.
const listTime = time.Second

// list answers with a page of logs: those with archived entries and those with buffered ones, merged in order.
func (s *server) list(ctx context.Context, msg *nats.Msg) wire.ListReply {
	var req wire.ListRequest
	if err := decodeRequest(msg, &req); err != nil {
		return wire.ListReply{Status: wire.StatusOf(err)}
	}
	reply, err := s.page(ctx, req)
	if ctx.Err() != nil {
		return wire.ListReply{Status: wire.Status{Code: wire.NotOwner, Message: "the owner steps down"}}
	}
	if err != nil {
		s.failing.Failed(err)
		return wire.ListReply{Status: wire.StatusOf(err)}
	}
	return reply
}

func (s *server) page(ctx context.Context, req wire.ListRequest) (reply wire.ListReply, err error) {
	limit := req.Limit
	if limit <= 0 || limit > wire.MaxListReplies {
		limit = wire.MaxListReplies
	}
	from := catalog.Mark{Log: req.Prefix}
	switch {
	case req.From > 0:
		from = catalog.Mark{Log: req.After, Seq: req.From}
	case req.After != "":
		from.Log = max(req.Prefix, req.After+"\x01") // the smallest key after all of After's
	}
	bounds := catalog.Bounds{Logs: limit, Extents: listExtents, Until: time.Now().Add(s.listTime)}
	v, err := s.ledger.view() // one moment: a log that is committed meanwhile is not in neither
	if err != nil {
		return reply, err
	}
	defer func() { err = errors.Join(err, v.close()) }()
	summaries, next, err := v.archived.Summaries(ctx, req.Prefix, from, bounds)
	if err != nil {
		return reply, err
	}
	archived := make([]wire.LogInfo, 0, len(summaries))
	for _, sum := range summaries {
		archived = append(archived, wire.LogInfo{Log: sum.Log, Archived: sum.All, Extents: sum.Extents})
	}
	buffered, err := s.bufferedLogs(ctx, v.buffered, req.Prefix, from.Log, next.Log, limit+1)
	if err != nil {
		return reply, err
	}
	logs := mergeLogs(archived, buffered)
	reply.More = next.Log != "" || len(logs) > limit
	reply.Logs = logs[:min(limit, len(logs))]
	if n := len(reply.Logs); n > 0 && reply.Logs[n-1].Log == next.Log {
		reply.Rest = next.Seq
	}
	return reply, nil
}

// bufferedLogs returns up to limit logs of a cursor from one on and, if to is not empty, before another.
func (s *server) bufferedLogs(ctx context.Context, cursor *buffer.Cursor, prefix, from, to string,
	limit int) (logs []wire.LogInfo, err error) {
	log, ok, err := cursor.SeekLog(from)
	for ok && err == nil && strings.HasPrefix(log, prefix) && (to == "" || log < to) && len(logs) < limit {
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

// mergeLogs joins two ascending lists; a log in both becomes one.
func mergeLogs(archived, buffered []wire.LogInfo) []wire.LogInfo {
	merged := make([]wire.LogInfo, 0, len(archived)+len(buffered))
	for len(archived) > 0 || len(buffered) > 0 {
		switch {
		case len(buffered) == 0 || len(archived) > 0 && archived[0].Log < buffered[0].Log:
			merged, archived = append(merged, archived[0]), archived[1:]
		case len(archived) == 0 || buffered[0].Log < archived[0].Log:
			merged, buffered = append(merged, buffered[0]), buffered[1:]
		default:
			archived[0].Buffered = buffered[0].Buffered
			merged, archived, buffered = append(merged, archived[0]), archived[1:], buffered[1:]
		}
	}
	return merged
}
