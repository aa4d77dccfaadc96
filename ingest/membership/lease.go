package membership

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Lease is a lease that this node has acquired. Keep and Release must not run at the same time; Fresh may be called at
// any.
type Lease struct {
	kv       jetstream.KeyValue
	key      string
	value    []byte
	term     time.Duration
	revision uint64                    // the next renewal replaces it
	renewed  atomic.Pointer[time.Time] // when the last renewal that succeeded was sent
}

// ErrLost is wrapped by Keep when the lease is another node's, is gone, or was not renewed for its whole term.
var ErrLost = errors.New("the lease was lost")

// Fresh reports whether the lease was renewed less than half a term ago. Others wait 4/5 of a term, so a reply that is
// decided now is still this node's when it arrives. The clock goes on while the process is stopped.
func (l *Lease) Fresh() bool { return time.Since(*l.renewed.Load()) < l.term/2 }

// Keep renews the lease three times in its term. It returns nil when ctx is done, and else an error that wraps ErrLost.
func (l *Lease) Keep(ctx context.Context) error {
	ticker := time.NewTicker(l.term / 3)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		sent := time.Now()
		attempt, cancel := context.WithTimeout(ctx, l.term/3)
		revision, err := l.kv.Update(attempt, l.key, l.value, l.revision)
		cancel()
		switch {
		case err == nil:
			l.revision = revision
			l.renewed.Store(&sent)
			continue
		case ctx.Err() != nil:
			return nil
		case l.isLost(ctx, l.term/3):
			return fmt.Errorf("%w: %w", ErrLost, err)
		case time.Since(*l.renewed.Load()) >= l.term:
			return fmt.Errorf("%w: not renewed for %s: %w", ErrLost, l.term, err)
		}
	}
}

// isLost reports whether the lease is known to be another's or gone. A lease that has our value was renewed by an
// Update whose answer was lost. The next Update replaces that revision.
func (l *Lease) isLost(ctx context.Context, timeout time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	current, err := l.kv.Get(ctx, l.key)
	if err != nil {
		return errors.Is(err, jetstream.ErrKeyNotFound)
	}
	if string(current.Value()) != string(l.value) {
		return true // and its revision is not ours to delete
	}
	l.revision = current.Revision()
	return false
}

const (
	releaseTimeout = 2 * time.Second       // of giving a lease up; one that fails runs out by itself
	releasePause   = 20 * time.Millisecond // before another look whether the last renewal went through
)

// Release gives the lease up if this node still holds it, so that others need not wait for its end. It does so also
// when ctx is done, and takes 2 s at most.
//
// The last renewal may have gone through unheard when its ctx ended. Release finds the revision that it left.
func (l *Lease) Release(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	for {
		err := l.kv.Delete(ctx, l.key, jetstream.LastRevision(l.revision))
		if err == nil || ctx.Err() != nil || l.isLost(ctx, releaseTimeout) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(releasePause):
		}
	}
}
