package ingest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/nats-io/nats.go/jetstream"
)

// Bounds of what is taken from the source streams at once. The client holds up to pullMessages and pullBytes that the
// server has sent ahead, shared by the shards; a batch becomes one Pebble batch.
const (
	pullMessages  = 4096
	pullBytes     = 16 << 20
	batchMessages = 1024
	batchBytes    = 4 << 20

	minPullMessages = 256
)

// oneRequest lets the client ask for more only when it has used up what it asked for. By default it asks when half is used
// up, and has room for the messages of both requests, but not for the server's word that the first one is complete: one of
// them is dropped then, and if that is the stream's last message nobody misses it until the next one.
const oneRequest = jetstream.PullThresholdMessages(1)

// sourceHeartbeat is how often the server says that it still has a request. Two that are missing make the client ask again: in
// a cluster the first request to a new consumer may come before its server is known to have it, and gets lost.
const sourceHeartbeat = 2 * time.Second

// errSource marks failures of reading the stream, which are tried again from the applied sequence.
var errSource = errors.New("reading the source stream")

// consume takes entries in until ctx is done or the local state cannot be written.
func (o *owner) consume(ctx context.Context) error {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 50*time.Millisecond, 5*time.Second
	for {
		before := o.applied()
		err := o.consumeOnce(ctx, before+1)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !errors.Is(err, errSource) {
			return err
		}
		if o.applied() > before {
			pause.Reset()
		}
		wait := pause.NextBackOff()
		o.log.Warn("the source consumer ended; making a new one", "error", err, "in", wait)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

func (o *owner) applied() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.pos.Applied
}

// consumeOnce reads with one ordered consumer from a sequence on.
func (o *owner) consumeOnce(ctx context.Context, from uint64) error {
	info, err := o.stream.Info(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", errSource, err)
	}
	if first := info.State.FirstSeq; first > from {
		if err := o.skipGap(first - 1); err != nil {
			return err
		}
		from = first
	}
	consumer, err := o.cfg.JS.OrderedConsumer(ctx, o.source.Stream, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:   from,
	})
	if err != nil {
		return fmt.Errorf("%w: %w", errSource, err)
	}
	share := o.share()
	limit := max(pullBytes/share, 2*int(o.cfg.NC.MaxPayload())) // one message of any size must fit
	messages, err := consumer.Messages(jetstream.PullMaxMessagesWithBytesLimit(max(pullMessages/share, minPullMessages), limit), oneRequest,
		jetstream.PullHeartbeat(sourceHeartbeat))
	if err != nil {
		return fmt.Errorf("%w: %w", errSource, err)
	}
	defer messages.Stop()
	defer o.sched.Release()
	for {
		if err := o.awaitRoom(ctx); err != nil {
			return err
		}
		batch, err := o.gather(ctx, messages)
		if err != nil {
			return err
		}
		if err := o.takeIn(ctx, batch); err != nil {
			return err
		}
	}
}

// collectBytes is how much of a backlog is taken in before its logs are made ready, see scheduler.Collect.
const collectBytes = 128 << 20

// takeIn applies a batch. Logs of a backlog wait for each other until it is caught up with or collectBytes came.
func (o *owner) takeIn(ctx context.Context, batch *intake) error {
	behind := batch.pending > 0
	if behind {
		o.sched.Collect()
	}
	if err := o.apply(ctx, batch); err != nil {
		return err
	}
	o.collected += uint64(batch.bytes + entryCost*batch.messages)
	if !behind || o.collected >= min(collectBytes, o.cfg.BufferLimit/2)/uint64(o.share()) {
		o.collected = 0
		o.sched.Release()
	}
	return nil
}

// gather waits for one message and takes those that follow at once: until the server has none pending or a bound is met.
func (o *owner) gather(ctx context.Context, messages jetstream.MessagesContext) (*intake, error) {
	in := o.newIntake()
	for {
		msg, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			in.close()
			return nil, fmt.Errorf("%w: %w", errSource, err)
		}
		meta, err := msg.Metadata()
		if err == nil && meta.Consumer != o.consumer {
			err = o.recheckSource(ctx, meta.Consumer)
		}
		if err == nil {
			err = in.take(msg, meta)
		}
		if err != nil {
			in.close()
			return nil, fmt.Errorf("taking in a message of %s: %w", o.source.Stream, err)
		}
		in.pending = meta.NumPending
		if in.pending == 0 || in.messages >= batchMessages || in.bytes >= batchBytes {
			return in, nil
		}
	}
}

// recheckSource looks, when entries come from a consumer that the client has made anew, whether the stream is still the one
// that was taken in. If it lost its end in a power failure that this process lived through, the sequences up to the applied
// one are used again, and a new claim has to begin below.
func (o *owner) recheckSource(ctx context.Context, consumer string) error {
	if err := o.stillTheSource(ctx); err != nil {
		return err
	}
	o.consumer = consumer
	return nil
}

const (
	entryCost    = 64 // bytes that an entry costs besides its content, for the buffer limit
	lowWatermark = 80 // percent of the buffer limit at which pulling goes on
	roomPoll     = 100 * time.Millisecond
)

// awaitRoom holds the consumer back while the node's buffers are over their limit; what is not pulled waits in JetStream.
// Logs that are not due yet are made ready, or a buffer full of patient logs would wait for the longest of them.
func (o *owner) awaitRoom(ctx context.Context) error {
	cost := func() uint64 {
		s := o.load()
		return s.Bytes + entryCost*s.Entries
	}
	if cost() < o.cfg.BufferLimit {
		return nil
	}
	o.log.Warn("the buffer is at its limit: not pulling until workers have drained it", "limit", o.cfg.BufferLimit)
	for cost() >= o.cfg.BufferLimit/100*lowWatermark {
		o.sched.Expedite()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-o.roomy:
		case <-time.After(roomPoll): // another shard of this node may have made room
		}
	}
	return nil
}
