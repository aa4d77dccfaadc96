package reader

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/entry"
)

// Bounds of one fetch from the stream.
const (
	fetchEntries = 512
	fetchBytes   = 4 << 20
)

// Bounds of the waits for messages. The server may have announced some that were trimmed before they were sent; those never
// come.
const (
	fetchWait  = 2 * time.Second        // for the first message that was announced
	followWait = 10 * time.Second       // for the first message when nothing was announced
	batchWait  = 250 * time.Millisecond // for the others of a batch
)

// consumerIdle is how long the server keeps a consumer that nobody asks for messages.
const consumerIdle = time.Minute

// streamTail is the Tail of a JetStream stream. It keeps its consumer while reads go on where the last one ended.
type streamTail struct {
	js     jetstream.JetStream
	stream jetstream.Stream
	prefix string // subjects are <prefix>.<LogID>

	messages jetstream.MessagesContext
	log      string
	after    uint64 // what the next message of messages comes after
	pending  uint64 // messages that the server had not sent yet
}

func (t *streamTail) name() string { return t.stream.CachedInfo().Config.Name }

func (t *streamTail) Bounds(ctx context.Context) (first, last uint64, err error) {
	info, err := persist(ctx, func(ctx context.Context) (*jetstream.StreamInfo, error) { return t.stream.Info(ctx) })
	if err != nil {
		return 0, 0, fmt.Errorf("reading the bounds of stream %s: %w", t.name(), err)
	}
	return info.State.FirstSeq, info.State.LastSeq, nil
}

func (t *streamTail) Fetch(ctx context.Context, log string, after uint64, wait bool) ([]entry.Entry, error) {
	for {
		if t.messages == nil || t.log != log || t.after != after || !wait && t.pending == 0 {
			if err := t.open(ctx, log, after); err != nil {
				return nil, fmt.Errorf("reading from stream %s: %w", t.name(), err)
			}
		}
		if t.pending == 0 && !wait {
			return nil, nil
		}
		batch, err := t.collect(ctx, after)
		if err != nil {
			t.close()
			return nil, fmt.Errorf("reading from stream %s: %w", t.name(), err)
		}
		if len(batch) > 0 {
			return batch, nil
		}
		t.close() // a new consumer knows whether what was announced is still there, and replaces one that died
		if wait {
			return nil, nil
		}
	}
}

// open makes a consumer of the log's one subject. Its creation tells whether there is anything to wait for.
func (t *streamTail) open(ctx context.Context, log string, after uint64) error {
	t.close()
	consumer, err := persist(ctx, func(ctx context.Context) (jetstream.Consumer, error) {
		return t.js.OrderedConsumer(ctx, t.name(), jetstream.OrderedConsumerConfig{
			FilterSubjects:    []string{t.prefix + "." + log},
			DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
			OptStartSeq:       after + 1,
			InactiveThreshold: consumerIdle,
		})
	})
	if err != nil {
		return err
	}
	limit := fetchBytes + int(t.js.Conn().MaxPayload()) // below the largest message it would wait for ever
	messages, err := consumer.Messages(jetstream.PullMaxMessagesWithBytesLimit(fetchEntries, limit),
		jetstream.PullThresholdMessages(1)) // else the client has no room for the server's word that a request is complete
	if err != nil {
		return err
	}
	t.messages, t.log, t.after, t.pending = messages, log, after, consumer.CachedInfo().NumPending
	return nil
}

// collect takes what comes, and returns nothing after a wait in vain.
func (t *streamTail) collect(ctx context.Context, after uint64) (batch []entry.Entry, err error) {
	patience := followWait
	if t.pending > 0 {
		patience = fetchWait
	}
	first, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	msg, err := t.next(ctx, first)
	rest, cancel := context.WithTimeout(ctx, batchWait)
	defer cancel()
	for size := 0; msg != nil && err == nil; msg, err = t.next(ctx, rest) {
		meta, err := msg.Metadata()
		if err != nil {
			return nil, err
		}
		t.pending = meta.NumPending
		if seq := meta.Sequence.Stream; seq > after { // a consumer that is to start above the stream's end starts at its end
			t.after = seq
			batch = append(batch, entry.Entry{Log: t.log, Seq: seq, Time: meta.Timestamp.UTC(), Headers: msg.Headers(), Data: msg.Data()})
			size += len(msg.Data())
		}
		if t.pending == 0 || len(batch) == fetchEntries || size >= fetchBytes {
			break
		}
	}
	return batch, err
}

// next returns the next message, or none when the wait is over before ctx is.
func (t *streamTail) next(ctx, wait context.Context) (jetstream.Msg, error) {
	msg, err := t.messages.Next(jetstream.NextContext(wait))
	if err != nil && wait.Err() != nil && ctx.Err() == nil {
		return nil, nil
	}
	return msg, err
}

func (t *streamTail) close() {
	if t.messages != nil {
		t.messages.Stop()
		t.messages = nil
	}
}
