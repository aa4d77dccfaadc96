// Package streamreader reads a stream in its order, through a consumer of the server that is acknowledged nothing and
// thrown away at the first doubt. The reader opens another one then, behind the last message that it has.
//
// It never opens one again by itself: how long to be patient, and what to look at first, is the reader's to know. The
// library's ordered consumer does, for ever and whatever becomes of the context, so that who waits for a stream
// without a leader could not be stopped. And every consumer of the library takes an empty message with a header
// "Status" for the server's own word, so that a publisher could stop it. So this one asks by itself: open pull.go for
// how it does, and message.go for how messages and the server's words are told apart.
package streamreader

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/jsapi"
)

// Idle is how long the server keeps a consumer that nobody asks for messages: one whose reader was killed.
const Idle = time.Minute

// stopWait bounds the wait until the server has deleted a consumer. If it takes longer it is deleted all the same, as
// a rule.
const stopWait = 250 * time.Millisecond

// ErrStopped is what Next returns after Stop.
var ErrStopped = errors.New("the consumer was stopped")

var (
	errReconnected = errors.New("the connection was lost for a moment: messages may have been on their way")
	errMissed      = errors.New("messages were lost on their way")
	errSilent      = errors.New("the consumer's server is silent")
)

// Limits bound what the server sends ahead of the reader.
type Limits struct {
	Messages int // at least 1
	Bytes    int // with subjects and headers; a message that is larger is sent alone. 0 is no bound
	// Heartbeat is how often the server says that it is there. When two are missing the consumer ends. 0 is five seconds.
	Heartbeat time.Duration
}

const defaultHeartbeat = 5 * time.Second

// Consumer is for one goroutine at a time; only Stop may be called by another one.
type Consumer struct {
	js           jetstream.JetStream
	stream, name string
	pending      uint64
	last         uint64 // consumer sequence of the last message
	passed       uint64 // see Passed
	failed       error  // why it ended

	received  chan *nats.Msg // has room for all that the server was asked for
	sub       *nats.Subscription
	connected chan nats.Status
	pull      pull

	made    bool // at the server, as far as is known
	stop    sync.Once
	stopped chan struct{}
}

// Open makes a consumer of the stream's messages from a sequence on; subject "" means all of them. The server is
// asked for none of them before the first Next.
func Open(
	ctx context.Context, js jetstream.JetStream, stream, subject string, from uint64, limits Limits,
) (*Consumer, error) {
	nc := js.Conn()
	c := &Consumer{js: js, stream: stream, name: "dormouse-" + rand.Text()[:12], stopped: make(chan struct{})}
	c.pull = newPull(nc, jsapi.Subject(js, "CONSUMER.MSG.NEXT."+stream+"."+c.name), limits)
	c.received = make(chan *nats.Msg, c.pull.room())
	// Before there is a consumer, or a reconnect could be missed.
	c.connected = nc.StatusChanged(nats.CONNECTED, nats.CLOSED)
	var err error
	if c.sub, err = nc.ChanSubscribe(c.pull.inbox+"*", c.received); err == nil {
		c.pending, err = create(ctx, js, stream, c.name, subject, from)
		var refused *jetstream.APIError
		c.made = !errors.As(err, &refused) // without an answer it may be
	}
	if err != nil {
		c.Stop()
		return nil, err
	}
	return c, nil
}

// create makes the consumer and returns how many messages there are for it.
func create(
	ctx context.Context, js jetstream.JetStream, stream, name, subject string, from uint64,
) (pending uint64, err error) {
	request := "CONSUMER.CREATE." + stream + "." + name
	if subject != "" {
		request += "." + subject // so that permissions can tell who reads what
	}
	var answer struct {
		jsapi.Answer
		NumPending uint64 `json:"num_pending"`
	}
	err = jsapi.Ask(ctx, js, request, map[string]any{
		"stream_name": stream,
		"action":      "create",
		"config": jetstream.ConsumerConfig{
			Name:              name,
			FilterSubject:     subject,
			DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
			OptStartSeq:       max(from, 1),
			AckPolicy:         jetstream.AckNonePolicy,
			InactiveThreshold: Idle,
			Replicas:          1,
			MemoryStorage:     true,
		},
	}, &answer)
	if errors.Is(err, jetstream.ErrMaximumConsumersLimit) {
		err = fmt.Errorf("stream %s takes no more consumers: raise its max_consumers, or the account's limit of "+
			"consumers, or delete some that nobody uses (nats consumer ls %s): %w", stream, stream, err)
	}
	return answer.NumPending, err
}

// Pending returns how many messages there were for the consumer when it was made.
func (c *Consumer) Pending() uint64 { return c.pending }

// Passed returns the highest sequence of the stream up to which the server, at a moment of late, had nothing for the
// consumer beyond what Next has returned: what was stored up to there, and did not come, is deleted or of another
// subject. A server that lacks the stream's end knows of less. It is 0 before the server said so, and moves only
// while Next waits.
func (c *Consumer) Passed() uint64 { return c.passed }

// Next waits for the next message. It returns at once when ctx ends, and can be called again then if that was but the
// end of a wait. Any other error is the consumer's end: the reader needs another one.
func (c *Consumer) Next(ctx context.Context) (Message, error) {
	for {
		msg, err := c.receive(ctx)
		if err != nil {
			return Message{}, err
		}
		if isMessage(msg) {
			return c.take(msg)
		}
		if err := c.heed(msg); err != nil {
			return Message{}, c.fail(err)
		}
	}
}

// Try is a Next that does not wait: ok is false when the server has sent nothing that Next would return.
func (c *Consumer) Try() (m Message, ok bool, err error) {
	for c.failed == nil {
		var msg *nats.Msg
		select {
		case msg = <-c.received:
			c.pull.came = true
		default:
			return Message{}, false, nil
		}
		if isMessage(msg) {
			m, err := c.take(msg)
			return m, err == nil, err
		}
		if err := c.heed(msg); err != nil {
			return Message{}, false, c.fail(err)
		}
	}
	return Message{}, false, c.failed
}

// receive returns the next that comes from the server. While there is something it costs no more than taking it out
// of the channel.
func (c *Consumer) receive(ctx context.Context) (*nats.Msg, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if c.failed != nil {
		return nil, c.failed
	}
	if c.pull.left == 0 {
		if err := c.pull.ask(); err != nil {
			return nil, c.fail(err)
		}
	}
	select {
	case msg := <-c.received:
		c.pull.came = true
		return msg, nil
	default:
	}
	c.pull.await()
	for {
		select {
		case msg := <-c.received:
			c.pull.came = true
			return msg, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-c.stopped:
			return nil, c.fail(ErrStopped)
		case status, open := <-c.connected:
			if err := c.reconnected(status, open); err != nil {
				return nil, c.fail(err)
			}
		case <-c.pull.patience.C:
			if err := c.pull.again(); err != nil {
				return nil, c.fail(err)
			}
			c.pull.await()
		}
	}
}

// reconnected says what a change of the connection means. What the server had sent before a reconnect may be lost,
// and if that was the stream's last message nobody would miss it until the next one.
func (c *Consumer) reconnected(status nats.Status, open bool) error {
	switch {
	case !open:
		return ErrStopped
	case status == nats.CLOSED:
		return nats.ErrConnectionClosed
	}
	return errReconnected
}

// take returns a message that came, if none is missing before it.
func (c *Consumer) take(msg *nats.Msg) (Message, error) {
	m, err := newMessage(msg)
	if err == nil && m.Delivered != c.last+1 {
		err = fmt.Errorf("%w: %d before sequence %d", errMissed, m.Delivered-c.last-1, m.Sequence)
	}
	if err != nil {
		return Message{}, c.fail(err)
	}
	c.last++
	c.pull.took()
	return m, nil
}

// heed does what the server's own word says, and ignores what is nobody's.
func (c *Consumer) heed(msg *nats.Msg) error {
	number, ok := strings.CutPrefix(msg.Subject, c.pull.inbox)
	if !ok || msg.Reply != "" || len(msg.Data) > 0 {
		return nil
	}
	word := readWord(msg)
	if word.status == statusHeartbeat {
		c.pull.answered()
		return c.heartbeat(word)
	}
	return c.pull.end(number, word)
}

// heartbeat compares what the server has sent with what came.
func (c *Consumer) heartbeat(w word) error {
	switch {
	case !w.counts:
	case w.delivered > c.last: // and the messages would have come before it
		return fmt.Errorf("%w: the last %d", errMissed, w.delivered-c.last)
	case w.delivered == c.last:
		c.passed = max(c.passed, w.passed)
	}
	return nil
}

func (c *Consumer) fail(err error) error {
	c.failed = err
	return err
}

// Stop ends the consumer, also at the server, and a Next that waits. It may be called more than once.
func (c *Consumer) Stop() { c.stop.Do(c.end) }

func (c *Consumer) end() {
	close(c.stopped)
	c.js.Conn().RemoveStatusListener(c.connected)
	if c.sub != nil {
		_ = c.sub.Unsubscribe() // fails only on a closed connection, where there is nothing left to stop
	}
	if c.made {
		c.delete()
	}
}

// delete has the server forget the consumer at once; else it would count as one of the stream's for as long as Idle,
// and on a stream with few max_consumers the next one would be refused. If nobody answers it goes by being idle.
func (c *Consumer) delete() {
	nc, request := c.js.Conn(), "CONSUMER.DELETE."+c.stream+"."+c.name
	if !nc.IsConnected() { // it is sent after the reconnect
		_ = nc.PublishRequest(jsapi.Subject(c.js, request), c.pull.inbox+"deleted", nil)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopWait)
	defer cancel()
	_ = jsapi.Ask(ctx, c.js, request, nil, new(jsapi.Answer))
}
