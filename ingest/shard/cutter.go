package shard

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"

	"dormouse/internal/extent"
	"dormouse/internal/shardid"
	"dormouse/internal/wire"
	"dormouse/store/tree"
)

// cutLimit is how many requests for cuts wait.
const cutLimit = 8

// maxDeletes is how many deletes of a day a shard keeps: half of its cuts, so that they leave room to what expires.
const maxDeletes = tree.MaxCuts / 2

// cutTimeout bounds what a request for a cut waits for. Whoever asks asks again.
const cutTimeout = 30 * time.Second

// cutter answers requests for cuts, one at a time. What follows a cut is others' work: the committer has removed it
// from the buffer, intake steps over it, the merger has it leave the segments, and garbage and sweeper the bucket.
type cutter struct {
	shard      shardid.Shard
	from       *sourceStream
	ledger     *ledger
	bucket     Bucket
	archive    string
	requests   chan *nats.Msg
	record     func(ctx context.Context, c extent.Cut) error
	checkpoint func(ctx context.Context) error
	sweep      func(young bool)
	log        *slog.Logger
}

// run answers until ctx is done.
func (c *cutter) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case msg := <-c.requests:
			limited, cancel := context.WithTimeout(ctx, cutTimeout)
			reply, err := c.answer(limited, msg)
			cancel()
			if err != nil && ctx.Err() == nil && !errors.Is(err, wire.ErrBadRequest) {
				c.log.Warn("a request to delete failed", "error", err)
			}
			reply.Status = wire.StatusOf(err)
			respond(c.log, msg, reply)
		}
	}
}

func (c *cutter) answer(ctx context.Context, msg *nats.Msg) (reply wire.CutReply, err error) {
	var req wire.CutRequest
	if err := decodeRequest(msg, &req); err != nil {
		return reply, err
	}
	done, known := c.find(req.Cut.ID)
	if !known && !req.Look {
		if err := c.cut(ctx, req.Cut); err != nil {
			return reply, err
		}
		done, _ = c.find(req.Cut.ID)
	} else if known && !req.Look { // the answer was lost, or this owner came between
		if err := c.checkpoint(ctx); err != nil {
			return reply, err
		}
	}
	return c.tell(done), nil
}

// find returns a cut by the ID of its request.
func (c *cutter) find(id string) (extent.Cut, bool) {
	live, _ := c.ledger.live()
	for _, one := range live.Cuts() {
		if one.ID == id {
			return one, true
		}
	}
	return extent.Cut{}, false
}

// cut makes a cut. The steps, and what a crash after each leaves: (1) the record for people is in the bucket: nothing
// has happened, it says what somebody wanted; (2) the cut is in the manifest: it holds, the next owner removes it from
// the buffer; (3) removed from the buffer; (4) it is in a checkpoint: who reads the bucket alone obeys it too.
func (c *cutter) cut(ctx context.Context, asked extent.Cut) error {
	wanted := extent.Cut{Logs: asked.Logs, UpTo: asked.UpTo, Before: asked.Before, ID: asked.ID, By: asked.By,
		Made: time.Now().UnixNano()}
	live, _ := c.ledger.live()
	deletes := 0
	for _, one := range live.Cuts() {
		if !one.Kept {
			deletes++
		}
	}
	if deletes >= maxDeletes {
		return fmt.Errorf("%w: there were %d deletes in shard %s within a day: delete by prefix, or wait",
			wire.ErrBadRequest, deletes, c.shard)
	}
	info, err := c.from.stream.Info(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", errSource, err)
	}
	if err := c.from.same(info.Created); err != nil {
		return err
	}
	last := max(info.State.LastSeq, c.ledger.applied(), live.Highest())
	if last == 0 { // nothing was ever published
		return nil
	}
	if wanted.UpTo == 0 || wanted.UpTo > last {
		wanted.UpTo = last
	}
	if err := c.keepRecord(ctx, wanted); err != nil {
		return err
	}
	if err := c.record(ctx, wanted); errors.Is(err, tree.ErrInvalid) {
		return fmt.Errorf("%w: %w", wire.ErrBadRequest, err)
	} else if err != nil {
		return err
	}
	c.log.Info("entries are deleted", "logs", wanted.Logs, "up_to_sequence", wanted.UpTo, "by", wanted.By, "id", wanted.ID)
	c.sweep(true)
	return c.checkpoint(ctx)
}

// keptCut is the record for people of who deletes what, and when.
type keptCut struct {
	Logs   string    `json:"logs"`
	UpTo   uint64    `json:"up_to_sequence"`
	Before time.Time `json:"before,omitzero"`
	By     string    `json:"by"`
	Time   time.Time `json:"time"`
	ID     string    `json:"id"`
	Shard  string    `json:"shard"`
}

// keepRecord puts the record of a cut into the bucket, where it stays.
func (c *cutter) keepRecord(ctx context.Context, cut extent.Cut) error {
	id, err := uuid.NewV7()
	if err != nil {
		return err
	}
	kept := keptCut{Logs: cut.Logs, UpTo: cut.UpTo, By: cut.By, Time: time.Unix(0, cut.Made).UTC(), ID: cut.ID,
		Shard: c.shard.String()}
	if cut.Before != 0 {
		kept.Before = time.Unix(0, cut.Before).UTC()
	}
	data, err := json.Marshal(kept)
	if err != nil {
		return err
	}
	return c.bucket.Put(ctx, c.shard.CutKey(id.String()), append(data, '\n'))
}

// tell says how far a cut is.
func (c *cutter) tell(cut extent.Cut) (reply wire.CutReply) {
	live, _ := c.ledger.live()
	reply.Cut, reply.Archive = cut, c.archive
	if cut.Record == 0 {
		return reply
	}
	reply.Segments, reply.Bytes = live.Left(cut)
	if _, recorded := c.ledger.floor(); recorded < cut.UpTo {
		reply.Pending = cut.UpTo - recorded
	}
	return reply
}
