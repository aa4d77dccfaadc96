package ingest

import (
	"context"
	"time"

	"dormouse/internal/wire"
	"dormouse/store/manifest"
)

// newCommitter makes the owner's way into the manifest. The epoch must have been claimed.
func (o *owner) newCommitter() *committer {
	return newCommitter(o.epoch, o.cfg.NodeID, int(o.cfg.NC.MaxPayload()), committerParts{
		judge: o.judge().decide, floor: o.ledger.floor, append: o.append, answer: o.answer,
	})
}

func (o *owner) judge() *judge {
	return &judge{ledger: o.ledger, shard: o.source.Shard, accepts: o.cfg.Accepts,
		malformed: o.outages.malformed, elsewhere: o.outages.elsewhere}
}

// append makes a record part of the manifest and then of the local state. What fails after the first is found again by
// the next owner.
func (o *owner) append(ctx context.Context, record manifest.Record) error {
	before, _ := o.manifest.Last()
	record.Source = o.ledger.source(before.Source)
	seq, err := o.manifest.Append(ctx, record)
	if err != nil {
		return err
	}
	o.advance.done(committing)
	record, _ = o.manifest.Last() // with what Append has set
	if err := o.ledger.apply(seq, record, true); err != nil {
		return err
	}
	o.floors.recorded(record.Floor, time.Now())
	return nil
}

// answer answers a worker's commit.
func (o *owner) answer(call *commitCall, status wire.Status) {
	switch {
	case call.err != nil:
		respond(o.log, call.msg, wire.CommitReply{Status: wire.StatusOf(call.err)})
	case status.Code != wire.OK:
		respond(o.log, call.msg, wire.CommitReply{Status: status})
	default:
		o.metrics.refused.Add(float64(len(call.refused)))
		respond(o.log, call.msg, wire.CommitReply{Refused: call.refused})
	}
}
