package ingest

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"dormouse/internal/wire"
)

// serveQueries answers the readers' questions, one at a time, until ctx is done.
func (o *owner) serveQueries(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case msg := <-o.queries:
			switch {
			case !o.fresh(): // another node may own the shard by now, and know more
				o.reply(msg, wire.Status{Code: wire.Busy, Message: "the lease was not renewed lately"})
			case wire.OperationOf(msg.Subject) == wire.OpList:
				o.reply(msg, o.list(msg))
			default:
				o.reply(msg, o.extents(msg))
			}
		}
	}
}

// extents answers with a page of a log's extents. A catalog that is behind what the reader has seen of the manifest
// answers Busy, never with less: the reader would take the difference for entries that do not exist.
func (o *owner) extents(msg *nats.Msg) wire.ExtentsReply {
	var req wire.ExtentsRequest
	if err := decodeRequest(msg, &req); err != nil {
		return wire.ExtentsReply{Status: wire.StatusOf(err)}
	}
	o.mu.Lock()
	applied := o.pos.ManifestSeq
	o.mu.Unlock()
	if applied < req.MinManifest {
		return wire.ExtentsReply{Status: wire.StatusOf(fmt.Errorf("%w: the catalog is at manifest record %d", wire.ErrBusy, applied))}
	}
	page, more, err := o.catalog.Extents(req.Log, req.After, req.All, wire.MaxExtents)
	if err != nil {
		o.log.Error("reading the catalog failed", "error", err)
		return wire.ExtentsReply{Status: wire.StatusOf(err)}
	}
	return wire.ExtentsReply{Extents: page, More: more, Archive: o.cfg.ArchiveURL, Stream: o.source.Stream}
}

// list answers with a page of logs: those with archived entries and those with buffered ones, merged in order.
func (o *owner) list(msg *nats.Msg) wire.ListReply {
	var req wire.ListRequest
	if err := decodeRequest(msg, &req); err != nil {
		return wire.ListReply{Status: wire.StatusOf(err)}
	}
	limit := req.Limit
	if limit <= 0 || limit > wire.MaxListReplies {
		limit = wire.MaxListReplies
	}
	from := req.Prefix
	if req.After != "" {
		from = max(from, req.After+"\x01") // the smallest key after all of After's
	}
	archived, err := o.archivedLogs(req.Prefix, from, limit+1)
	if err == nil {
		var buffered []wire.LogInfo
		if buffered, err = o.bufferedLogs(req.Prefix, from, limit+1); err == nil {
			logs := mergeLogs(archived, buffered)
			more := len(logs) > limit
			return wire.ListReply{Logs: logs[:min(limit, len(logs))], More: more}
		}
	}
	o.log.Error("listing logs failed", "error", err)
	return wire.ListReply{Status: wire.StatusOf(err)}
}

func (o *owner) archivedLogs(prefix, from string, limit int) (logs []wire.LogInfo, err error) {
	err = o.catalog.Summaries(prefix, from, func(log string, extents uint64, all wire.Part) bool {
		logs = append(logs, wire.LogInfo{Log: log, Archived: all, Extents: extents})
		return len(logs) < limit
	})
	return logs, err
}

func (o *owner) bufferedLogs(prefix, from string, limit int) (logs []wire.LogInfo, err error) {
	cursor, err := o.buffer.Iter()
	if err != nil {
		return nil, err
	}
	defer func() { _ = cursor.Close() }() // read errors have shown in the seeks
	log, ok, err := cursor.SeekLog(from)
	for ; ok && err == nil && strings.HasPrefix(log, prefix) && len(logs) < limit; log, ok, err = cursor.SeekLog(log + "\x01") {
		pending, active := o.sched.Pending(log)
		if !active {
			continue // archived since the cursor was opened
		}
		part := wire.Part{Entries: pending.Count, Bytes: pending.Bytes, First: pending.First, Last: pending.Last}
		var first, last time.Time
		if _, first, ok, err = cursor.Seek(log, 0); err == nil && ok {
			_, last, _, err = cursor.Last(log)
			part.MinTime, part.MaxTime = first.UnixNano(), last.UnixNano()
		}
		if err != nil {
			break
		}
		logs = append(logs, wire.LogInfo{Log: log, Buffered: part})
	}
	return logs, err
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
