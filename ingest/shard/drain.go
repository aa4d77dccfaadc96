package shard

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
func (s *server) serveDrains(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case msg := <-s.drains:
			s.drain(msg)
		}
	}
}

func (s *server) drain(msg *nats.Msg) {
	var req wire.DrainRequest
	if err := decodeRequest(msg, &req); err != nil {
		s.reply(msg, wire.DrainReply{Status: wire.StatusOf(err)})
		return
	}
	req.MaxBytes = min(req.MaxBytes, s.replyRoom())
	err := s.ledger.drain(req, func(reply wire.DrainReply) { s.reply(msg, reply) })
	if err != nil {
		s.failing.Failed(err)
		s.reply(msg, wire.DrainReply{Status: wire.StatusOf(err)})
		return
	}
	s.failing.Over()
	s.drained.Inc()
}
