package ingest

import (
	"errors"
	"time"

	"dormouse/internal/wire"
	"dormouse/scheduler"
)

// figures are what an owner says of its shard, all as of one moment.
type figures struct {
	scheduler.Stats
	applied uint64
	oldest  time.Time // when the oldest buffered entry was stored in the stream; zero without any
}

// figures needs the database only when there are buffered entries, so that a node at rest stays at rest whoever asks
// it. An owner that has ended does not tell the oldest.
func (o *owner) figures() (f figures, err error) {
	o.use.RLock()
	defer o.use.RUnlock()
	f, log, first, cursor, err := o.ledger.earliest(o.ended)
	if cursor == nil {
		return f, err
	}
	_, f.oldest, _, err = cursor.Seek(log, first)
	return f, errors.Join(err, cursor.Close())
}

// owned returns the owners of this node that serve.
func (s *shardStates) owned() (owners []*owner) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, status := range s.by {
		if status.owner != nil && status.state == wire.ShardOwned {
			owners = append(owners, status.owner)
		}
	}
	return owners
}

// streamLag sums up the lags of the shards that this node owns.
func (s *shardStates) streamLag() (lag float64) {
	for _, o := range s.owned() {
		lag += float64(o.from.lag())
	}
	return lag
}

// oldestAge is the age of the oldest buffered entry of all shards that this node owns. A shard that cannot tell is left
// out.
func (s *shardStates) oldestAge(now time.Time) (age time.Duration) {
	for _, o := range s.owned() {
		if f, err := o.figures(); err == nil && !f.oldest.IsZero() {
			age = max(age, now.Sub(f.oldest))
		}
	}
	return age
}
