package shard

import (
	"context"
	"time"

	"dormouse/internal/outage"
	"dormouse/scheduler"
)

const (
	entryCost = 64 // bytes that an entry costs besides its content, for the buffer limit
	freeShare = 5  // pulling goes on when a fifth of the buffer limit is free
	roomPoll  = 100 * time.Millisecond
)

// bufferLimit bounds what the shards of the node buffer together.
type bufferLimit struct {
	bytes    uint64
	buffered func() scheduler.Stats // by all shards of the node
	ledger   *ledger
	sched    *scheduler.Scheduler
	advance  *Advance
	full     *outage.Log
}

// await holds the consumer back while the node's buffers are over their limit; what is not pulled waits in
// JetStream. Logs that are not due yet are made ready, or a buffer full of patient logs would wait for the longest of
// them.
func (l *bufferLimit) await(ctx context.Context) error {
	cost := func() uint64 {
		s := l.buffered()
		return s.Bytes + entryCost*s.Entries
	}
	if cost() < l.bytes {
		return nil
	}
	l.full.Failed(nil, "limit", l.bytes)
	l.advance.setFull(true)
	defer l.advance.setFull(false)
	for {
		changed := l.ledger.changed()
		if cost() <= l.bytes-l.bytes/freeShare {
			break
		}
		l.sched.Expedite()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-time.After(roomPoll): // another shard of this node may have made room
		}
	}
	l.full.Over()
	return nil
}
