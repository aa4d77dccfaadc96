package reader

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/entry"
)

// Bounds of one fetch from the stream.
const (
	fetchEntries = 512
	fetchBytes   = 4 << 20
)

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

func (t *streamTail) Bounds(ctx context.Context) (first, last uint64, err error) {
	info, err := t.stream.Info(ctx)
	if err != nil {
		return 0, 0, fmt.Errorf("reading the bounds of stream %s: %w", t.stream.CachedInfo().Config.Name, err)
	}
	return info.State.FirstSeq, info.State.LastSeq, nil
}

func (t *streamTail) Fetch(ctx context.Context, log string, after uint64, wait bool) ([]entry.Entry, error) {
	if t.messages == nil || t.log != log || t.after != after || !wait && t.pending == 0 {
		if err := t.open(ctx, log, after); err != nil {
			return nil, err
		}
	}
	if t.pending == 0 && !wait {
		return nil, nil
	}
	var batch []entry.Entry
	for size := 0; len(batch) < fetchEntries && size < fetchBytes; {
		msg, err := t.messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			t.close()
			return nil, t.failed(err)
		}
		meta, err := msg.Metadata()
		if err != nil {
			t.close()
			return nil, t.failed(err)
		}
		t.after, t.pending = meta.Sequence.Stream, meta.NumPending
		batch = append(batch, entry.Entry{Log: log, Seq: t.after, Time: meta.Timestamp.UTC(), Headers: msg.Headers(), Data: msg.Data()})
		if size += len(msg.Data()); t.pending == 0 {
			break
		}
	}
	return batch, nil
}

// open makes a consumer of the log's one subject. Its creation is answered by the stream's leader and tells whether there
// is anything to wait for.
func (t *streamTail) open(ctx context.Context, log string, after uint64) error {
	t.close()
	consumer, err := t.js.OrderedConsumer(ctx, t.stream.CachedInfo().Config.Name, jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{t.prefix + "." + log},
		DeliverPolicy:  jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:    after + 1,
	})
	if err != nil {
		return t.failed(err)
	}
	t.pending = consumer.CachedInfo().NumPending
	if t.messages, err = consumer.Messages(jetstream.PullMaxMessages(fetchEntries)); err != nil {
		return t.failed(err)
	}
	t.log, t.after = log, after
	return nil
}

func (t *streamTail) failed(err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	return fmt.Errorf("reading from stream %s: %w", t.stream.CachedInfo().Config.Name, err)
}

func (t *streamTail) close() {
	if t.messages != nil {
		t.messages.Stop()
		t.messages = nil
	}
}
