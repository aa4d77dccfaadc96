package ingest

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go"

	"dormouse/internal/wire"
)

// payloadMargin is what a reply leaves free of max_payload.
const payloadMargin = 8 << 10

// request is what every request of package wire can do.
type request interface{ Validate() error }

// decodeRequest reads a request; its errors wrap wire.ErrBadRequest.
func decodeRequest(msg *nats.Msg, r request) error {
	if err := wire.Decode(msg.Data, r); err != nil {
		return err
	}
	if err := r.Validate(); err != nil {
		return fmt.Errorf("%w: %w", wire.ErrBadRequest, err)
	}
	return nil
}

// serveDrains answers drain requests, one at a time, until ctx is done.
func (o *owner) serveDrains(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case msg := <-o.drains:
			o.drain(msg)
		}
	}
}

func (o *owner) drain(msg *nats.Msg) {
	var req wire.DrainRequest
	if err := decodeRequest(msg, &req); err != nil {
		o.reply(msg, wire.DrainReply{Status: wire.StatusOf(err)})
		return
	}
	req.MaxBytes = min(req.MaxBytes, o.replyRoom())
	err := o.ledger.buffer.Drain(req, func(reply wire.DrainReply) { o.reply(msg, reply) })
	if err != nil {
		o.outages.requests.Failed(err)
		o.reply(msg, wire.DrainReply{Status: wire.StatusOf(err)})
		return
	}
	o.outages.requests.Over()
	o.metrics.drains.Inc()
	o.sched.Drained(req.Logs)
}
