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
	"dormouse/internal/ordered"
	"dormouse/internal/topology"
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

// Bounds of a message besides max_payload.
const (
	headerRoom  = 4 << 10    // what the headers above may take, the subject aside
	headerLimit = 64<<10 - 1 // of all headers of a message; the server's, and fixed
)

// aside is a message on its way to another place than the buffer.
type aside struct {
	*nats.Msg
	// refused returns what is to be published instead if the server will never take the message. Without it, there is
	// nothing else than to try again.
	refused func(reason string) []aside
}

// rejection returns what to publish for a message that is no entry of a log: one message, or several parts when it is so
// large that it leaves no room for the headers.
func (o *owner) rejection(msg ordered.Message, reason string) []aside {
	seq := strconv.FormatUint(msg.Sequence, 10)
	annotate := func(part string) *nats.Msg {
		out := nats.NewMsg(o.source.Shard.RejectedSubject())
		out.Header.Set(headerReason, reason)
		out.Header.Set(headerSubject, msg.Subject)
		out.Header.Set(headerSequence, seq)
		out.Header.Set(headerTime, msg.Time.UTC().Format(time.RFC3339Nano))
		out.Header.Set(jetstream.MsgIDHeader, o.asideID(msg, part))
		return out
	}
	taken := headerRoom + 2*len(msg.Subject) + 2*len(reason)
	headers := 0
	for name, values := range msg.Header {
		for _, value := range values {
			headers += len(headerOriginal) + len(name) + len(value) + len(": \r\n")
		}
	}
	room := int(o.cfg.NC.MaxPayload()) - taken
	if len(msg.Data)+headers <= room && headers <= headerLimit-taken {
		out := annotate("")
		for name, values := range msg.Header {
			if strings.HasPrefix(strings.ToLower(name), "nats-") {
				name = headerOriginal + name
			}
			out.Header[name] = append(out.Header[name], values...)
		}
		out.Data = msg.Data
		return []aside{{Msg: out}}
	}
	value := entry.AppendValue(nil, msg.Time, msg.Header, msg.Data)
	room = max(room, headerRoom)
	parts := (len(value) + room - 1) / room
	out := make([]aside, 0, parts)
	for i := range parts {
		m := annotate(strconv.Itoa(i + 1))
		m.Header.Set(headerPart, fmt.Sprintf("%d/%d", i+1, parts))
		m.Data = value[i*room : min((i+1)*room, len(value))]
		out = append(out, aside{Msg: m})
	}
	return out
}

// asideID is the message id under which a message of the source stream is put aside, so that a replay, or another owner
// that takes it in too, does not store it twice. It has the time besides the sequence: a stream that lost its end uses
// sequences again, and what comes under one of them then is another message.
func (o *owner) asideID(msg ordered.Message, what string) string {
	return fmt.Sprintf("%s.%d.%d.%s", o.source.Stream, msg.Sequence, msg.Time.UnixNano(), what)
}

// republication returns the message as it is to be published to its own subject again, without what the server would
// refuse it for: the publisher's id would make it a duplicate of itself, so it gets one of its own.
//
// One that has no room for an id goes without: when its ack is lost, or another owner meets it too, it is stored once more,
// and its log has it twice. That is better than never.
//
// A stream that stores under other subjects than it takes, or takes from other streams, does not take the message again at all.
func (o *owner) republication(msg ordered.Message) []aside {
	if !topology.KeepsSubjects(o.stream.CachedInfo().Config, msg.Subject) {
		return o.unpublished(msg, "the source stream does not take what it stores, since it has a subject transform or sources")
	}
	out := nats.NewMsg(msg.Subject)
	for name, values := range msg.Header {
		lower := strings.ToLower(name)
		if lower != strings.ToLower(jetstream.MsgIDHeader) && !strings.HasPrefix(lower, "nats-expected-") {
			out.Header[name] = values
		}
	}
	out.Data = msg.Data
	out.Header.Set(jetstream.MsgIDHeader, o.asideID(msg, "again"))
	if !o.fits(out) {
		out.Header.Del(jetstream.MsgIDHeader)
	}
	return []aside{{Msg: out, refused: func(reason string) []aside { return o.unpublished(msg, reason) }}}
}

// unpublished returns what becomes of an entry that cannot be published again.
func (o *owner) unpublished(msg ordered.Message, reason string) []aside {
	o.log.Error("an entry that was to be published again is refused; it is put aside in DORMOUSE_REJECTED, and its log lacks it",
		"subject", msg.Subject, "sequence", msg.Sequence, "error", reason)
	return o.rejection(msg, "not published again: "+reason)
}

// fits reports whether the source stream takes a message of that size.
func (o *owner) fits(msg *nats.Msg) bool {
	size := msg.Size() - len(msg.Subject)
	limit := int(o.cfg.NC.MaxPayload())
	if most := int(o.stream.CachedInfo().Config.MaxMsgSize); most > 0 {
		limit = min(limit, most)
	}
	return size <= limit && size-len(msg.Data) <= headerLimit
}

// asideTimeout bounds the wait for an ack in one try.
const asideTimeout = 5 * time.Second

// publishAside publishes the messages and returns when all are acked. It tries again until then or until ctx is done:
// passing over a message that is stored nowhere else would lose it. refused is how many of them were replaced by others.
func (o *owner) publishAside(ctx context.Context, left []aside) (refused int, err error) {
	if len(left) == 0 {
		return 0, nil
	}
	_, err = backoff.Retry(ctx, func() (struct{}, error) {
		var replaced int
		var err error
		left, replaced, err = o.tryAside(ctx, left)
		refused += replaced
		if err != nil && ctx.Err() == nil {
			o.outages.aside.Failed(err, "messages", len(left))
		}
		return struct{}{}, err
	}, backoff.WithMaxElapsedTime(0))
	if err == nil {
		o.outages.aside.Over()
	}
	return refused, err
}

// tryAside publishes all messages and returns those that are left: they were not acked in time, or ctx ended, or the server
// will never take them, and they are replaced.
func (o *owner) tryAside(ctx context.Context, messages []aside) (left []aside, replaced int, err error) {
	acks := make([]jetstream.PubAckFuture, len(messages))
	errs := make([]error, len(messages))
	for i := range messages {
		// Without retries by the library: they would store an entry after later ones of its log.
		acks[i], errs[i] = o.aside.PublishMsgAsync(messages[i].Msg, jetstream.WithRetryAttempts(0))
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
