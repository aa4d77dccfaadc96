package streamreader

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// Message is one message of the stream. Its memory is the receiver's.
type Message struct {
	Subject string
	// Header has the publisher's headers, whatever they are called. It is nil without any, and also when the header
	// block cannot be parsed: HeaderBytes tells the two apart, and jsapi.Get has the block.
	Header      nats.Header
	HeaderBytes int // of the header block as it was published; 0 without one
	Data        []byte

	Sequence  uint64    // in the stream
	Delivered uint64    // 1 for the consumer's first message, then without gaps
	Time      time.Time // when the stream stored it
	Pending   uint64    // messages that the consumer has beyond this one, when the server sent it
}

// ackPrefix begins the reply subject of every message of a stream that a consumer is sent, whatever its publisher
// wrote. What the server says in its own words has no reply subject. Nothing else tells the two apart: a publisher
// may send an empty message with the very headers of the server's.
const ackPrefix = "$JS.ACK."

func isMessage(msg *nats.Msg) bool { return strings.HasPrefix(msg.Reply, ackPrefix) }

// Tokens of a reply subject. Newer servers put a domain and the account's hash before the stream, and may put a token
// at the end:
//
//	$JS.ACK.[<domain>.<account>.]<stream>.<consumer>.<tries>.<stream seq>.<consumer seq>.<time>.<pending>[.<token>]
const (
	oldTokens = 7 // after the prefix, without a domain
	newTokens = 9 // with one, at least
)

var errReply = errors.New("a message whose reply subject is not a consumer's")

// newMessage reads what the server says of a message.
func newMessage(msg *nats.Msg) (Message, error) {
	rest := msg.Reply[len(ackPrefix):]
	tokens, skip := 1+strings.Count(rest, "."), 3 // stream, consumer, tries
	switch {
	case tokens >= newTokens:
		skip += newTokens - oldTokens
	case tokens != oldTokens:
		return Message{}, fmt.Errorf("%w: %q", errReply, msg.Reply)
	}
	for range skip {
		_, rest, _ = strings.Cut(rest, ".")
	}
	var numbers [4]uint64
	for i := range numbers {
		var token string
		token, rest, _ = strings.Cut(rest, ".")
		n, ok := parseNumber(token)
		if !ok {
			return Message{}, fmt.Errorf("%w: %q", errReply, msg.Reply)
		}
		numbers[i] = n
	}
	return Message{
		Subject: msg.Subject, Header: msg.Header, Data: msg.Data,
		HeaderBytes: msg.Size() - len(msg.Subject) - len(msg.Reply) - len(msg.Data),
		Sequence:    numbers[0], Delivered: numbers[1], Time: time.Unix(0, int64(numbers[2])), Pending: numbers[3],
	}, nil
}

// parseNumber is strconv.ParseUint without its cost. What overflows comes from no server.
func parseNumber(s string) (n uint64, ok bool) {
	if len(s) == 0 || len(s) > len("18446744073709551615") {
		return 0, false
	}
	for i := range len(s) {
		digit := s[i] - '0'
		if digit > 9 {
			return 0, false
		}
		n = n*10 + uint64(digit)
	}
	return n, true
}
