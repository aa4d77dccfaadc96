package workers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/nats-io/nats.go"

	"dormouse/internal/retry"
	"dormouse/internal/wire"
)

// errStale means that the owner a work item speaks of no longer owns the shard.
var errStale = errors.New("the owner is gone")

// errImpossible marks what fails however often it is tried.
var errImpossible = errors.New("impossible")

// room is how many bytes of a message to or from an owner may be other than its few fixed fields.
func (p *Pool) room() int {
	limit := int(p.cfg.NC.MaxPayload())
	return max(limit-messageMargin, limit/2)
}

// messageMargin is what room leaves free of max_payload.
const messageMargin = 16 << 10

// ask makes one exchange with the batch's owner, again and again until it succeeds, is pointless, the owner is silent,
// or GiveUpAfter is over: an owner that says that it is busy lives, and is asked for longer than one that says nothing.
func ask[R interface{ Err() error }](ctx context.Context, p *Pool, b *batch, op wire.Operation, request any) (R,
	error) {
	var none R
	data, err := wire.Encode(request)
	if err != nil {
		return none, fmt.Errorf("%w: %w", errImpossible, err)
	}
	subject := wire.OwnerSubject(b.shard, b.epoch, op)
	return again(ctx, p, string(op), func() (R, error) {
		var reply R
		msg, err := p.exchange(ctx, b, subject, data)
		if err != nil {
			return reply, err
		}
		if err := wire.Decode(msg.Data, &reply); err != nil {
			return reply, backoff.Permanent(fmt.Errorf("%w: %w", errImpossible, err))
		}
		switch err := reply.Err(); {
		case errors.Is(err, wire.ErrNotOwner):
			return reply, backoff.Permanent(fmt.Errorf("%w: %w", errStale, err))
		case errors.Is(err, wire.ErrBadRequest):
			return reply, backoff.Permanent(fmt.Errorf("%w: %w", errImpossible, err))
		default:
			return reply, err
		}
	})
}

// exchange sends one request and waits for its answer.
func (p *Pool) exchange(ctx context.Context, b *batch, subject string, data []byte) (*nats.Msg, error) {
	attempt, cancel := context.WithTimeout(ctx, p.cfg.RequestTimeout)
	defer cancel()
	reconnects := p.cfg.NC.Stats().Reconnects
	msg, err := p.cfg.NC.RequestWithContext(attempt, subject, data)
	switch {
	case err == nil:
		b.unanswered = 0
		if p.silence.end(b.ownerID) {
			p.cfg.Logger.Info("the owner answers again", "shard", b.shard, "epoch", b.epoch)
		}
	case errors.Is(err, nats.ErrNoResponders):
		p.silence.end(b.ownerID)
		return nil, backoff.Permanent(fmt.Errorf("%w: shard %s, epoch %d", errStale, b.shard, b.epoch))
	case !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil:
	case !p.cfg.NC.IsConnected() || p.cfg.NC.Stats().Reconnects != reconnects:
		// It was the pool's own connection that was silent: that says nothing of the owner.
	default:
		if silent := p.unanswered(b); silent != nil {
			return nil, backoff.Permanent(silent)
		}
	}
	return msg, err
}

// again calls fn until it succeeds or fails for good, with growing pauses and jitter, for at most GiveUpAfter.
func again[R any](ctx context.Context, p *Pool, stage string, fn func() (R, error)) (R, error) {
	result, err := backoff.Retry(ctx, fn, backoff.WithBackOff(retry.Patient()),
		backoff.WithMaxElapsedTime(p.cfg.GiveUpAfter),
		backoff.WithNotify(func(err error, wait time.Duration) {
			p.cfg.Metrics.retries.WithLabelValues(stage).Inc()
			p.cfg.Logger.Debug("trying again", "stage", stage, "in", wait, "error", err)
		}))
	if err != nil {
		return result, fmt.Errorf("%s: %w", stage, err)
	}
	return result, nil
}
