package membership

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/retry"
)

// watch keeps the view up to date until ctx is done, with a new watch of the bucket each time that one ends.
func (m *Membership) watch(ctx context.Context) {
	pause := retry.Steady()
	for {
		began := time.Now()
		err := m.watchOnce(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > m.leases.term {
			pause.Reset()
		}
		m.log.Debug("watching the leases ended; beginning again", "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause.NextBackOff()):
		}
	}
}

var errWatchEnded = errors.New("the watch ended")

func (m *Membership) watchOnce(ctx context.Context) error {
	watcher, err := m.leases.kv.WatchAll(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = watcher.Stop() }() // fails only where the consumer is gone already
	expiry := time.NewTicker(max(m.leases.term/20, 10*time.Millisecond))
	defer expiry.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-expiry.C:
			m.expire()
		case entry, ok := <-watcher.Updates():
			switch {
			case !ok:
				return errWatchEnded
			case entry == nil: // all that there was has been told
				m.watched()
			default:
				m.hear(Change{
					Key: entry.Key(), Value: entry.Value(), Deleted: entry.Operation() != jetstream.KeyValuePut,
					Revision: entry.Revision(),
				})
			}
		}
	}
}

func (m *Membership) hear(c Change) {
	m.update(func(v *View, now time.Time) { v.Hear(c, now) })
}

func (m *Membership) expire() {
	m.update(func(v *View, now time.Time) {
		for _, name := range v.Expire(now) {
			m.log.Info("a node is gone; its shards go to the others", "node", name, "nodes", v.Peers()+1)
		}
	})
}
