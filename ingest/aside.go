package ingest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/entry"
)

// Headers of a message in the rejected stream, besides those it came with. Headers with a meaning to the server (Nats-*)
// are kept under the prefix, or the server would act on them again.
const (
	headerReason   = "Dormouse-Reason"   // why it is no entry
	headerSubject  = "Dormouse-Subject"  // where it was published
	headerSequence = "Dormouse-Sequence" // in the source stream
	headerTime     = "Dormouse-Time"     // RFC 3339, when the source stream stored it
	headerOriginal = "Dormouse-Original-"
	headerPart     = "Dormouse-Part" // "i/n" of a message too large to carry these headers, as entry value bytes
)

// headerRoom is what the headers above may take of max_payload, the subject aside.
const headerRoom = 4 << 10

// rejection returns what to publish for a message that is no entry of a log: one message, or several parts when it is so
// large that it leaves no room for the headers.
func (o *owner) rejection(msg jetstream.Msg, meta *jetstream.MsgMetadata, reason string) []*nats.Msg {
	seq := strconv.FormatUint(meta.Sequence.Stream, 10)
	annotate := func(part string) *nats.Msg {
		out := nats.NewMsg(o.source.Shard.RejectedSubject())
		out.Header.Set(headerReason, reason)
		out.Header.Set(headerSubject, msg.Subject())
		out.Header.Set(headerSequence, seq)
		out.Header.Set(headerTime, meta.Timestamp.UTC().Format(time.RFC3339Nano))
		out.Header.Set(jetstream.MsgIDHeader, o.asideID(meta, part))
		return out
	}
	headers := 0
	for name, values := range msg.Headers() {
		headers += len(values) * (len(name) + len(headerOriginal) + len(": \r\n"))
	}
	room := int(o.cfg.NC.MaxPayload()) - headerRoom - 2*len(msg.Subject()) - 2*len(reason)
	if entry.Size(msg.Headers(), msg.Data())+headers <= room {
		out := annotate("")
		for name, values := range msg.Headers() {
			if strings.HasPrefix(strings.ToLower(name), "nats-") {
				name = headerOriginal + name
			}
			out.Header[name] = append(out.Header[name], values...)
		}
		out.Data = msg.Data()
		return []*nats.Msg{out}
	}
	value := entry.AppendValue(nil, meta.Timestamp, msg.Headers(), msg.Data())
	room = max(room, headerRoom)
	parts := (len(value) + room - 1) / room
	out := make([]*nats.Msg, 0, parts)
	for i := range parts {
		m := annotate(strconv.Itoa(i + 1))
		m.Header.Set(headerPart, fmt.Sprintf("%d/%d", i+1, parts))
		m.Data = value[i*room : min((i+1)*room, len(value))]
		out = append(out, m)
	}
	return out
}

// asideID is the message id under which a message of the source stream is put aside, so that a replay, or another owner
// that takes it in too, does not store it twice. It has the time besides the sequence: a stream that lost its end uses
// sequences again, and what comes under one of them then is another message.
func (o *owner) asideID(meta *jetstream.MsgMetadata, what string) string {
	return fmt.Sprintf("%s.%d.%d.%s", o.source.Stream, meta.Sequence.Stream, meta.Timestamp.UnixNano(), what)
}

// republication returns the message as it is to be published to its own subject again, without what the server would
// refuse it for: the publisher's id would make it a duplicate of itself, so it gets one of its own.
func (o *owner) republication(msg jetstream.Msg, meta *jetstream.MsgMetadata) *nats.Msg {
	out := nats.NewMsg(msg.Subject())
	for name, values := range msg.Headers() {
		lower := strings.ToLower(name)
		if lower != strings.ToLower(jetstream.MsgIDHeader) && !strings.HasPrefix(lower, "nats-expected-") {
			out.Header[name] = values
		}
	}
	out.Header.Set(jetstream.MsgIDHeader, o.asideID(meta, "again"))
	out.Data = msg.Data()
	return out
}

// asideTimeout bounds the wait for the acks of one try.
const asideTimeout = 5 * time.Second

// publishAside publishes the messages and returns when all are acked. It tries again until then or until ctx is done:
// passing over a message that is stored nowhere else would lose it.
func (o *owner) publishAside(ctx context.Context, left []*nats.Msg) error {
	if len(left) == 0 {
		return nil
	}
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		var err error
		if left, err = o.tryAside(ctx, left); err != nil {
			o.log.Warn("messages that are no entries could not be put aside; trying again", "messages", len(left), "error", err)
		}
		return struct{}{}, err
	}, backoff.WithMaxElapsedTime(0))
	return err
}

// tryAside publishes all messages at once and returns those that were not acked in time.
func (o *owner) tryAside(ctx context.Context, messages []*nats.Msg) (left []*nats.Msg, err error) {
	ctx, cancel := context.WithTimeout(ctx, asideTimeout)
	defer cancel()
	acks := make([]jetstream.PubAckFuture, len(messages))
	var errs []error
	for i, msg := range messages {
		if acks[i], err = o.cfg.JS.PublishMsgAsync(msg); err != nil {
			errs = append(errs, err)
		}
	}
	for i, ack := range acks {
		if ack == nil {
			left = append(left, messages[i])
			continue
		}
		select {
		case <-ack.Ok():
		case err := <-ack.Err():
			left, errs = append(left, messages[i]), append(errs, err)
		case <-ctx.Done():
			left, errs = append(left, messages[i]), append(errs, ctx.Err())
		}
	}
	if len(errs) > 0 {
		err = fmt.Errorf("%d of %d: %w", len(left), len(messages), errors.Join(errs[0]))
	}
	return left, err
}
