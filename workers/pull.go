package workers

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/outage"
	"dormouse/internal/wire"
)

const (
	// fetchWait is how long one pull waits for a first item; longer pulls cost an idle process less.
	fetchWait = 30 * time.Second
	// heartbeat of such a pull: a server that restarts forgets the pull, which is noticed after two missing heartbeats.
	heartbeat = 2 * time.Second
)

// fetch waits for ready logs and takes several work items at once.
//
// One worker at a time fetches. When little is ready, items trickle in; workers that fetched side by side would each
// get a few logs and put many small objects. The one that fetches lingers for more after the first, and a burst fills
// it at once, so that the next one's turn comes within a round trip.
func (p *Pool) fetch(ctx context.Context, consumer jetstream.Consumer) []jetstream.Msg {
	select {
	case <-ctx.Done():
		return nil
	case p.gather <- struct{}{}:
	}
	defer func() { <-p.gather }()
	items, err := first(ctx, consumer)
	if err == nil && len(items) > 0 && p.cfg.ItemsPerFetch > 1 {
		var more []jetstream.Msg
		more, err = pull(consumer, p.cfg.ItemsPerFetch-1, jetstream.FetchMaxWait(p.cfg.Linger))
		items = append(items, more...)
	}
	switch {
	case ctx.Err() != nil:
	case err != nil:
		p.cfg.Metrics.retries.WithLabelValues("fetch").Inc()
		p.outages.fetch.Failed(err)
		pause(ctx, time.Second)
	default:
		p.outages.fetch.Over()
	}
	return items
}

// pause waits for about d, with jitter, or until ctx is done.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d/2 + rand.N(d))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// first takes one item, for which it waits until fetchWait is over or ctx is done.
func first(ctx context.Context, consumer jetstream.Consumer) ([]jetstream.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchWait)
	defer cancel()
	return pull(consumer, 1, jetstream.FetchContext(ctx), jetstream.FetchHeartbeat(heartbeat))
}

// pull takes up to n items. Items may come with an error.
//
// FetchMaxWait bounds short pulls: its client waits a second longer than the server. FetchContext leaves a tenth only.
// A message that the server sends in that time is lost until the AckWait is over, far beyond the logs' deadline.
func pull(consumer jetstream.Consumer, n int, opts ...jetstream.FetchOpt) (items []jetstream.Msg, err error) {
	batch, err := consumer.Fetch(n, opts...)
	if err != nil {
		return nil, err
	}
	for msg := range batch.Messages() {
		items = append(items, msg)
	}
	if err := batch.Error(); err != nil && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
		return items, err
	}
	return items, nil
}

// batch is the work items of one owner that are archived together.
type batch struct {
	ownerID
	logs  []string // ascending, each once
	bytes int      // of logs as they were in the items
	items []jetstream.Msg

	unanswered int // requests in a row that the owner has not answered
}

// group sorts the items by owner; a batch's logs fit into one request. Items that are none are ended: they would fail
// for every worker.
func (p *Pool) group(items []jetstream.Msg) []*batch {
	byOwner := make(map[ownerID]*batch)
	var batches []*batch
	for _, msg := range items {
		var item wire.WorkItem
		err := wire.Decode(msg.Data(), &item)
		if err == nil {
			err = item.Validate()
		}
		if err != nil {
			p.end(msg, poison, err)
			continue
		}
		key := ownerID{item.Shard, item.Epoch}
		b := byOwner[key]
		if b == nil || b.bytes+len(msg.Data()) > p.room() {
			b = &batch{ownerID: key}
			byOwner[key] = b
			batches = append(batches, b)
		}
		b.logs = append(b.logs, item.Logs...)
		b.bytes += len(msg.Data())
		b.items = append(b.items, msg)
	}
	for _, b := range batches {
		slices.Sort(b.logs)
		b.logs = slices.Compact(b.logs)
	}
	return batches
}

// outcome of a work item.
type outcome string

const (
	done      outcome = "done"
	stale     outcome = "stale"
	poison    outcome = "poison"
	abandoned outcome = "abandoned"
)

// end tells the queue what became of an item. An answer that is lost means a redelivery, which drains nothing.
func (p *Pool) end(msg jetstream.Msg, what outcome, cause error) {
	p.endAs(msg, what, cause, p.outages.items, p.rest)
}

// endAs is end for items of any queue: failed speaks of those that are abandoned, which rest for about so long.
func (p *Pool) endAs(msg jetstream.Msg, what outcome, cause error, failed *outage.Log, rest time.Duration) {
	p.cfg.Metrics.items.WithLabelValues(string(what)).Inc()
	var err error
	switch what {
	case done, stale: // the owner that took over from a stale one queues everything anew
		failed.Over()
		err = msg.Ack()
	case poison:
		p.outages.poison.Failed(cause)
		err = msg.TermWithReason(cause.Error())
	case abandoned:
		// The owner will queue the logs again as well. Both are harmless, and whichever comes first is sooner.
		if !errors.Is(cause, errSilent) { // of which there is a warning already
			failed.Failed(cause)
		}
		if errors.Is(cause, context.Canceled) { // the pool ends: another process may go on at once
			err = msg.Nak()
		} else {
			err = msg.NakWithDelay(rest/2 + rand.N(rest))
		}
	}
	if err != nil {
		p.cfg.Logger.Debug("a work item's end was not heard", "outcome", what, "error", err)
	}
}

// keepAlive tells the queue, until the returned function is called, that the items are being worked on.
func (p *Pool) keepAlive(items []jetstream.Msg, ackWait time.Duration) (stop func()) {
	quit := make(chan struct{})
	var joined sync.WaitGroup
	joined.Go(func() {
		ticker := time.NewTicker(max(ackWait/3, time.Millisecond))
		defer ticker.Stop()
		for {
			select {
			case <-quit:
				return
			case <-ticker.C:
			}
			for _, msg := range items {
				if err := msg.InProgress(); err != nil {
					p.cfg.Logger.Debug("a work item could not be kept alive; it may be delivered twice", "error", err)
				}
			}
		}
	})
	return func() { close(quit); joined.Wait() }
}
