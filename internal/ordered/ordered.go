// Package ordered reads a stream in its order, through a consumer of the server that is acknowledged nothing and thrown away
// at the first doubt. The reader opens another one then, behind the last message that it has.
//
// It never tries again by itself: how long to be patient, and what to look at first, is the reader's to know. The library's
// ordered consumer does, for ever and whatever becomes of the context, so that who waits for a stream without a leader could
// not be stopped; and it cannot be stopped from outside while it does.
package ordered

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Idle is how long the server keeps a consumer that nobody asks for messages.
const Idle = time.Minute

var (
	errReconnected = errors.New("the connection was lost for a moment: messages may have been on their way")
	errMissed      = errors.New("messages were lost on their way")
)

// Consumer is for one goroutine at a time; only Stop may be called by another one.
type Consumer struct {
	nc       *nats.Conn
	messages jetstream.MessagesContext
	pending  uint64
	last     uint64 // consumer sequence of the last message

	connected   chan nats.Status
	reconnected atomic.Bool
	watched     chan struct{} // closed when watch has ended
}

// Open makes a consumer of the stream's messages from a sequence on; subject "" means all of them. The server is asked for
// none of them before the first Next.
func Open(ctx context.Context, js jetstream.JetStream, stream, subject string, from uint64, opts ...jetstream.PullMessagesOpt) (*Consumer, error) {
	c := &Consumer{nc: js.Conn(), watched: make(chan struct{})}
	c.connected = c.nc.StatusChanged(nats.CONNECTED) // before there is a consumer, or a reconnect could be missed
	consumer, err := js.CreateConsumer(ctx, stream, jetstream.ConsumerConfig{
		FilterSubject:     subject,
		DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:       from,
		AckPolicy:         jetstream.AckNonePolicy,
		InactiveThreshold: Idle,
		Replicas:          1,
		MemoryStorage:     true,
	})
	if err == nil {
		c.messages, err = consumer.Messages(opts...)
	}
	if err != nil {
		c.nc.RemoveStatusListener(c.connected)
		return nil, err
	}
	c.pending = consumer.CachedInfo().NumPending
	go c.watch()
	return c, nil
}

// watch ends the consumer at a reconnect. What the server had sent by then may be lost, and if that was the stream's last
// message nobody would miss it until the next one.
func (c *Consumer) watch() {
	defer close(c.watched)
	for range c.connected { // until Stop
		c.reconnected.Store(true)
		c.messages.Stop()
	}
}

// Pending returns how many messages there were for the consumer when it was made.
func (c *Consumer) Pending() uint64 { return c.pending }

// Next waits for the next message. It returns at once when ctx ends, and can be called again then if that was but the end of
// a wait. Any other error is the consumer's end: the reader needs another one.
func (c *Consumer) Next(ctx context.Context) (jetstream.Msg, *jetstream.MsgMetadata, error) {
	msg, err := c.messages.Next(jetstream.NextContext(ctx))
	if err != nil {
		if c.reconnected.Load() && errors.Is(err, jetstream.ErrMsgIteratorClosed) {
			err = errReconnected
		}
		return nil, nil, err
	}
	meta, err := msg.Metadata()
	if err != nil {
		return nil, nil, err
	}
	if meta.Sequence.Consumer != c.last+1 {
		return nil, nil, fmt.Errorf("%w: %d before sequence %d", errMissed, meta.Sequence.Consumer-c.last-1, meta.Sequence.Stream)
	}
	c.last++
	return msg, meta, nil
}

// Stop ends the consumer, and a Next that waits. It may be called more than once.
func (c *Consumer) Stop() {
	c.messages.Stop()
	c.nc.RemoveStatusListener(c.connected)
	<-c.watched
}
