// Package rejected is the form of what is put aside in the stream DORMOUSE_REJECTED: a message of a source stream that
// is no entry, whole, with where it was and why it is there.
//
// It publishes nothing. Open ingest/shard/rejects.go for what is put aside, and when.
package rejected

import (
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/entry"
	"dormouse/internal/header"
)

// Headers of a message in the rejected stream, besides those it came with. Headers with a meaning to the server, to
// clients or to Dormouse (Nats-*, Status and Description, Dormouse-*) are kept under the prefix Original, or they would
// have it again.
const (
	Reason   = "Dormouse-Reason"   // why it is no entry
	Subject  = "Dormouse-Subject"  // where it was published
	Sequence = "Dormouse-Sequence" // in the source stream
	Time     = "Dormouse-Time"     // RFC 3339, when the source stream stored it
	Original = "Dormouse-Original-"

	// Block says that the message is not in that form but as it was on the wire: so many bytes of its header block, then
	// its payload. It has no headers of its own then.
	Block = "Dormouse-Block"
	// Part is "i/n" of a message that does not fit into one with these headers. Without Block, the parts joined are an
	// entry value, see internal/entry.
	Part = "Dormouse-Part"
)

const (
	reasonBytes = 1 << 10     // of a reason, which may quote a long subject
	partBytes   = 1 << 10     // a part has these at least, whatever max_payload is
	headerLimit = 64<<10 - 1  // of all headers of a message; the server's, and fixed
	lastPart    = "9999/9999" // the longest there can be
)

// Message is a message of a source stream.
type Message struct {
	Stream  string
	Subject string
	Seq     uint64    // in the stream
	Time    time.Time // when the stream stored it
	Headers map[string][]string
	Block   []byte // the header block as it is on the wire, if Headers is not all there is in it; then only Block counts
	Data    []byte
}

// ID is the message id under which it is put aside, so that a replay, or another owner that takes it in too, does not
// store it twice. It has the time besides the sequence: a stream that lost its end uses sequences again, and what comes
// under one of them then is another message. what tells several messages apart that are made of it.
func (m Message) ID(what string) string {
	return fmt.Sprintf("%s.%d.%d.%s", m.Stream, m.Seq, m.Time.UnixNano(), what)
}

// Publications returns what to publish to a subject of the rejected stream, for servers that take up to maxPayload
// bytes: one message, or several parts.
func (m Message) Publications(to, reason string, maxPayload int) []*nats.Msg {
	if m.Block == nil && header.Sendable(m.Headers) {
		out := m.annotated(to, reason, "")
		for name, values := range m.Headers {
			if header.ForServer(name) || header.ForClients(name) || header.ForDormouse(name) {
				name = Original + name
			}
			out.Header[name] = append(out.Header[name], values...)
		}
		out.Data = m.Data
		if size := out.Size() - len(out.Subject); size <= maxPayload && size-len(out.Data) <= headerLimit {
			return []*nats.Msg{out}
		}
	}
	form := func(part string) *nats.Msg { return m.annotated(to, reason, part) }
	if m.Block != nil {
		form = func(part string) *nats.Msg {
			out := m.annotated(to, reason, part)
			out.Header.Set(Block, strconv.Itoa(len(m.Block)))
			return out
		}
		return inParts(append(m.Block[:len(m.Block):len(m.Block)], m.Data...), maxPayload, form)
	}
	return inParts(entry.AppendValue(nil, m.Time, m.Headers, m.Data), maxPayload, form)
}

// Origin returns where a message of the rejected stream was in its source stream, and when it was stored there, by its
// header block.
func Origin(block []byte) (seq uint64, at time.Time, err error) {
	headers, err := nats.DecodeHeadersMsg(block)
	if err == nil {
		seq, err = strconv.ParseUint(headers.Get(Sequence), 10, 64)
	}
	if err == nil {
		at, err = time.Parse(time.RFC3339Nano, headers.Get(Time))
	}
	return seq, at, err
}

// annotated returns a message that says where m was; part is of parts only.
func (m Message) annotated(to, reason, part string) *nats.Msg {
	out := nats.NewMsg(to)
	out.Header.Set(Reason, reason[:min(len(reason), reasonBytes)])
	out.Header.Set(Subject, m.Subject)
	out.Header.Set(Sequence, strconv.FormatUint(m.Seq, 10))
	out.Header.Set(Time, m.Time.UTC().Format(time.RFC3339Nano))
	out.Header.Set(jetstream.MsgIDHeader, m.ID(part))
	if part != "" {
		out.Header.Set(Part, part)
	}
	return out
}

// inParts cuts content into parts that fit.
func inParts(content []byte, maxPayload int, form func(part string) *nats.Msg) []*nats.Msg {
	largest := form(lastPart)
	room := max(maxPayload-largest.Size()+len(largest.Subject), partBytes)
	parts := max((len(content)+room-1)/room, 1)
	out := make([]*nats.Msg, 0, parts)
	for i := range parts {
		msg := form(fmt.Sprintf("%d/%d", i+1, parts))
		msg.Data = content[i*room : min((i+1)*room, len(content))]
		out = append(out, msg)
	}
	return out
}
