package jsapi

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Message is one message of a stream as the stream's leader has it.
type Message struct {
	Sequence uint64    `json:"seq"`
	Subject  string    `json:"subject"`
	Time     time.Time `json:"time"` // when it was stored, UTC
	Header   []byte    `json:"hdrs"` // the header block, byte for byte as it was published; nil without one
	Data     []byte    `json:"data"`
}

// Headers parses the header block; nil without one. The error says that a publisher sent what is none.
func (m Message) Headers() (nats.Header, error) {
	if len(m.Header) == 0 {
		return nil, nil
	}
	return nats.DecodeHeadersMsg(m.Header)
}

// Get returns the message at a sequence of a stream. Without one the error is jetstream.ErrMsgNotFound, here as in
// what follows.
func Get(ctx context.Context, js jetstream.JetStream, stream string, seq uint64) (Message, error) {
	if seq == 0 { // as a question it would be a mistake
		return Message{}, jetstream.ErrMsgNotFound
	}
	return get(ctx, js, stream, Query{Seq: seq})
}

// GetNext returns the first message of a subject, which may have wildcards, from a sequence on.
func GetNext(ctx context.Context, js jetstream.JetStream, stream, subject string, from uint64) (Message, error) {
	return get(ctx, js, stream, Query{Seq: from, NextFor: subject})
}

// GetLast returns the last message of a subject, which may have wildcards.
func GetLast(ctx context.Context, js jetstream.JetStream, stream, subject string) (Message, error) {
	return get(ctx, js, stream, Query{LastFor: subject})
}

// GetBack returns the last message at or below a sequence that is of a subject without wildcards and accepted. It asks
// for each message of the stream on the way.
func GetBack(ctx context.Context, js jetstream.JetStream, stream, subject string, from uint64,
	accept func(Message) bool) (Message, error) {
	for seq := from; ; seq-- {
		msg, err := Get(ctx, js, stream, seq)
		switch {
		case err == nil && msg.Subject == subject && accept(msg):
			return msg, nil
		case err != nil && (seq == 0 || !errors.Is(err, jetstream.ErrMsgNotFound)):
			return Message{}, err
		}
	}
}

// GetLastThat returns the last message of a subject without wildcards that is accepted, see GetBack, and the sequence
// of the subject's last message of all; 0 without one.
func GetLastThat(ctx context.Context, js jetstream.JetStream, stream, subject string,
	accept func(Message) bool) (Message, uint64, error) {
	msg, err := GetLast(ctx, js, stream, subject)
	last := msg.Sequence
	if err == nil && !accept(msg) {
		msg, err = GetBack(ctx, js, stream, subject, last-1, accept)
	}
	return msg, last, err
}

// Query names a message, as the body of a request for one. Who asks with one has to look at several answers; the
// others call Get.
type Query struct {
	Seq     uint64 `json:"seq,omitempty"`
	LastFor string `json:"last_by_subj,omitempty"`
	NextFor string `json:"next_by_subj,omitempty"`
}

// Found is the answer to a Query.
type Found struct {
	Answer
	Message Message `json:"message"`
}

// QueryRequest names the request with a Query of a stream, to be given to Subject.
func QueryRequest(stream string) string { return "STREAM.MSG.GET." + stream }

func get(ctx context.Context, js jetstream.JetStream, stream string, query Query) (Message, error) {
	var answer Found
	if err := Ask(ctx, js, QueryRequest(stream), query, &answer); err != nil {
		return Message{}, err
	}
	if answer.Message.Sequence == 0 {
		return Message{}, fmt.Errorf("an answer of JetStream's without a message of stream %s", stream)
	}
	return answer.Message, nil
}
