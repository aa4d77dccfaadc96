package shard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/header"
	"dormouse/internal/outage"
	"dormouse/internal/rejected"
	"dormouse/internal/retry"
	"dormouse/internal/topology"
	"dormouse/internal/wire"
)

// outgoing is a message on its way to another place than the buffer.
type outgoing struct {
	*nats.Msg
	from rejected.Message
	// refused returns what is to be published instead if the server will never take the message. Without it, there is
	// nothing else than to try again.
	refused func(reason string) []outgoing
}

// rejects publishes elsewhere what does not go into the buffer: what is no entry of a log to DORMOUSE_REJECTED, and
// what a source stream that lost its end uses a sequence for again to its own subject once more.
type rejects struct {
	nc        *nats.Conn
	js        jetstream.JetStream
	publisher jetstream.JetStream // one of its own, made by open
	from      *sourceStream
	advance   *Advance
	failing   *outage.Log
	log       *slog.Logger
}

// open makes the publisher: an answer that never comes has to end somewhere, since nothing is passed over until it was
// put aside.
func (r *rejects) open() (shut func(), err error) {
	if r.publisher, err = jetstream.New(r.nc, jetstream.WithPublishAsyncTimeout(rejectTimeout)); err != nil {
		return nil, err
	}
	return r.publisher.CleanupPublisher, nil
}

// rejection returns what to publish for a message that is no entry of a log.
func (r *rejects) rejection(m rejected.Message, reason string) (out []outgoing) {
	for _, msg := range m.Publications(wire.RejectedSubject(r.from.source.Shard), reason, int(r.nc.MaxPayload())) {
		out = append(out, outgoing{Msg: msg, from: m})
	}
	return out
}

// republication returns the message as it is to be published to its own subject again. What its publisher told the
// server with headers, the server has done: they are kept under other names, and it gets a message id of its own. One
// with headers that cannot be sent becomes a rejection.
//
// One that has no room for an id goes without: when its ack is lost, or another owner meets it too, it is stored once
// more, and its log has it twice. That is better than never.
//
// A stream that stores under other subjects than it takes, or takes from other streams, does not take the message again
// at all.
func (r *rejects) republication(m rejected.Message) []outgoing {
	if !topology.KeepsSubjects(r.from.stream.CachedInfo().Config, m.Subject) {
		return r.unpublished(m, "the source stream does not take what it stores, since it has a subject transform or sources")
	}
	if !header.Sendable(m.Headers) {
		return r.unpublished(m, "it has headers that the client library does not send")
	}
	msg := nats.NewMsg(m.Subject)
	for name, values := range m.Headers {
		if header.ForServer(name) {
			name = rejected.Original + name
		}
		msg.Header[name] = append(msg.Header[name], values...)
	}
	msg.Data = m.Data
	msg.Header.Set(jetstream.MsgIDHeader, m.ID("again"))
	if !r.fits(msg) {
		msg.Header.Del(jetstream.MsgIDHeader)
	}
	return []outgoing{{Msg: msg, from: m, refused: func(reason string) []outgoing { return r.unpublished(m, reason) }}}
}

// unpublished returns what becomes of an entry that cannot be published again.
func (r *rejects) unpublished(m rejected.Message, reason string) []outgoing {
	r.log.Error("an entry that was to be published again is refused; it is put aside in DORMOUSE_REJECTED, and its "+
		"log lacks it", "subject", m.Subject, "sequence", m.Seq, "error", reason)
	return r.rejection(m, "not published again: "+reason)
}

// headerLimit is the server's limit of all headers of a message; it is fixed.
const headerLimit = 64<<10 - 1

// fits reports whether the source stream takes a message of that size.
func (r *rejects) fits(msg *nats.Msg) bool {
	size := msg.Size() - len(msg.Subject)
	limit := int(r.nc.MaxPayload())
	if most := int(r.from.stream.CachedInfo().Config.MaxMsgSize); most > 0 {
		limit = min(limit, most)
	}
	return size <= limit && size-len(msg.Data) <= headerLimit
}

// errUnanswered is why a shard waits while the server does not say whether it has what is put aside.
var errUnanswered = errors.New("putting it aside is not answered")

// rejectTimeout bounds the wait for an ack in one try.
const rejectTimeout = 5 * time.Second

// publish publishes the messages and returns when all are acked. It tries again until then or until ctx is done:
// passing over a message that is stored nowhere else would lose it. refused is how many of them were replaced by
// others.
func (r *rejects) publish(ctx context.Context, left []outgoing) (refused int, err error) {
	if len(left) == 0 {
		return 0, nil
	}
	r.advance.Fails(Taking, AheadError{left[0].from.Seq, left[0].from.Subject, errUnanswered}) // until it did not
	_, err = backoff.Retry(ctx, func() (struct{}, error) {
		var replaced, skipped int
		var err error
		left, replaced, err = r.try(ctx, left)
		if err != nil && ctx.Err() == nil {
			r.failing.Failed(err, "messages", len(left))
			r.advance.Fails(Taking, AheadError{left[0].from.Seq, left[0].from.Subject, err})
			if left, skipped = r.withoutSkipped(ctx, left); len(left) == 0 {
				err = nil
			}
		}
		refused += replaced + skipped
		return struct{}{}, err
	}, backoff.WithBackOff(retry.Patient()), backoff.WithMaxElapsedTime(0))
	if err == nil {
		r.failing.Over()
	}
	return refused, err
}

// try publishes all messages and returns those that are left: they were not acked in time, or ctx ended, or the server
// will never take them, and they are replaced.
func (r *rejects) try(ctx context.Context, messages []outgoing) (left []outgoing, replaced int, err error) {
	acks := make([]jetstream.PubAckFuture, len(messages))
	errs := make([]error, len(messages))
	for i := range messages {
		// Without retries by the library: they would store an entry after later ones of its log.
		acks[i], errs[i] = r.publisher.PublishMsgAsync(messages[i].Msg, jetstream.WithRetryAttempts(0))
		if errs[i] != nil && !isRefusal(errs[i]) {
			acks, err = acks[:i], errs[i] // what follows would fare no better
			break
		}
	}
	for i, msg := range messages[:len(acks)] {
		if errs[i] == nil {
			errs[i] = await(ctx, acks[i])
		}
		switch {
		case errs[i] == nil:
			r.advance.moves(Taking)
			continue
		case msg.refused != nil && isRefusal(errs[i]):
			left = append(left, msg.refused(errs[i].Error())...)
			replaced++
		default:
			left = append(left, msg)
		}
		err = errs[i]
	}
	left = append(left, messages[len(acks):]...)
	if err != nil {
		err = fmt.Errorf("%d of %d: %w", len(left), len(messages), err)
	}
	return left, replaced, err
}

// await returns when the message is acked, or will not be in this try.
func await(ctx context.Context, ack jetstream.PubAckFuture) error {
	select {
	case <-ack.Ok():
		return nil
	case err := <-ack.Err():
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// isRefusal reports whether an error says that this very message will never be taken, however often it is sent.
func isRefusal(err error) bool {
	var api *jetstream.APIError
	return errors.Is(err, nats.ErrMaxPayload) ||
		errors.As(err, &api) && (api.ErrorCode == codeMessageTooLarge || api.ErrorCode == codeHeaderTooLarge)
}

// Error codes of the server that the client library has no names for.
const (
	codeMessageTooLarge jetstream.ErrorCode = 10054 // max_msg_size of the stream
	codeHeaderTooLarge  jetstream.ErrorCode = 10097 // headerLimit
)
