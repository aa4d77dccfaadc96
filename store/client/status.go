package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/jsapi"
	"dormouse/internal/topology"
	"dormouse/internal/wire"
	"dormouse/store/manifest"
)

// Status is a system as JetStream and the processes that answer say it is.
type Status struct {
	Processes []wire.Process
	Silent    []Silent // that should have been among them
	Shards    []ShardStatus
	Queue     QueueStatus
}

// ShardStatus is one shard: what JetStream holds of it, and what its owner says.
type ShardStatus struct {
	Source   topology.Source
	Replicas int
	Leader   string // of the stream, "" without a cluster
	Messages uint64 // in the stream
	Bytes    uint64
	Last     uint64 // sequence in the stream

	Epoch     uint64
	ClaimedBy string // who appended the manifest's last record
	Floor     uint64
	// Lag is how many sequences of the stream are not archived, and Oldest when the oldest entry that is not was stored;
	// zero is none. With Bound nobody knows, since no owner has taken in what its stream has: there are not more of them,
	// and of what is still in the stream none is older.
	Lag    uint64
	Oldest time.Time
	Bound  bool

	Queued uint64            // work items in the SyncQueue
	Holder string            // ID of the owner that answers, or else of who holds the lease
	Name   string            // of the same
	Owner  *wire.ShardStatus // what the owner says; nil when none answers
}

// QueueStatus is the SyncQueue, in the form that status --output json has too.
type QueueStatus struct {
	Items   uint64 `json:"items"`         // in the stream
	InWork  int    `json:"in_work"`       // delivered and not acknowledged
	Waiting int    `json:"waiting_pulls"` // pulls of idle workers
}

// Processes answer at once; the first that is silent for statusSilence ends the wait, and statusTimeout ends it in any
// case.
const (
	statusTimeout = 2 * time.Second
	statusSilence = 300 * time.Millisecond
)

// Status asks JetStream and all processes.
func (c *Client) Status(ctx context.Context) (s Status, err error) {
	sources, err := c.Sources(ctx)
	if err != nil {
		return s, err
	}
	for _, source := range sources { // before the processes are asked: what comes meanwhile is not what they are behind
		one, err := c.streamStatus(ctx, source)
		if err != nil {
			return s, err
		}
		s.Shards = append(s.Shards, one)
	}
	held, err := c.census(ctx, &s)
	if err != nil {
		return s, err
	}
	items, err := c.queue(ctx, &s.Queue)
	if err != nil {
		return s, err
	}
	for i := range s.Shards {
		one := &s.Shards[i]
		one.Queued = items[wire.SyncSubject(one.Source.Shard)]
		if err := c.ownerStatus(ctx, one, s.Processes, held); err != nil {
			return s, err
		}
	}
	return s, nil
}

// queue fills in the SyncQueue's status and returns its items by subject.
func (c *Client) queue(ctx context.Context, q *QueueStatus) (map[string]uint64, error) {
	stream, err := c.js.Stream(ctx, wire.SyncQueueStream)
	if err != nil {
		return nil, fmt.Errorf("reading the SyncQueue: %w", err)
	}
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(wire.SyncQueueSubjects))
	if err != nil {
		return nil, fmt.Errorf("reading the SyncQueue: %w", err)
	}
	consumer, err := stream.Consumer(ctx, wire.SyncQueuePool)
	if err != nil {
		return nil, fmt.Errorf("reading the SyncQueue's consumer: %w", err)
	}
	pool := consumer.CachedInfo()
	*q = QueueStatus{Items: info.State.Msgs, InWork: pool.NumAckPending, Waiting: pool.NumWaiting}
	return info.State.Subjects, nil
}

// streamStatus says what JetStream holds of a shard.
func (c *Client) streamStatus(ctx context.Context, source topology.Source) (s ShardStatus, err error) {
	stream, err := c.js.Stream(ctx, source.Stream)
	if err != nil {
		return s, fmt.Errorf("opening stream %s: %w", source.Stream, err)
	}
	info := stream.CachedInfo()
	s = ShardStatus{Source: source, Replicas: info.Config.Replicas, Messages: info.State.Msgs, Bytes: info.State.Bytes,
		Last: info.State.LastSeq}
	if info.Cluster != nil {
		s.Leader = info.Cluster.Leader
	}
	return s, nil
}

// ownerStatus adds who owns a shard, and how far it is.
func (c *Client) ownerStatus(ctx context.Context, s *ShardStatus, processes []wire.Process, held leases) error {
	m, err := manifest.Open(ctx, c.js, s.Source.Shard)
	if err != nil {
		return err
	}
	last, _ := m.Last()
	s.Epoch, s.ClaimedBy, s.Floor = last.Epoch, last.Owner, last.Floor
	for _, p := range processes {
		for _, one := range p.Shards {
			if one.Shard == s.Source.Shard && (one.State == wire.ShardOwned || one.State == wire.ShardClaiming) &&
				(s.Owner == nil || one.Epoch > s.Owner.Epoch) {
				s.Owner, s.Holder, s.Name = &one, p.ID, p.Name()
			}
		}
	}
	if lease, ok := held.shards[s.Source.Shard]; ok && s.Owner == nil {
		s.Holder, s.Name = lease.Node, lease.Holder()
	}
	return c.measureLag(ctx, s)
}

// measureLag tells how far the archive is behind the stream: what the owner has buffered, and what it has not taken in.
// While it takes in anew what may be archived already, or there is none, it is known only that all below the floor is.
func (c *Client) measureLag(ctx context.Context, s *ShardStatus) error {
	taken := s.Floor
	if o := s.Owner; o != nil && o.State == wire.ShardOwned && o.EntriesLeft == 0 {
		taken, s.Lag = o.Applied, o.Entries
		if o.Oldest != 0 {
			s.Oldest = time.Unix(0, o.Oldest).UTC()
		}
	} else {
		s.Bound = true
	}
	if s.Last > taken {
		oldest, err := c.storedAfter(ctx, s.Source.Stream, taken)
		if err != nil {
			return err
		}
		if !oldest.IsZero() { // else it is all gone
			s.Lag += s.Last - taken
		}
		if s.Oldest.IsZero() {
			s.Oldest = oldest
		}
	}
	s.Bound = s.Bound && s.Lag > 0
	return nil
}

// storedAfter returns when the first entry that a stream has after a sequence was stored; zero when it has none.
func (c *Client) storedAfter(ctx context.Context, stream string, seq uint64) (time.Time, error) {
	msg, err := jsapi.GetNext(ctx, c.js, stream, ">", seq+1)
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return time.Time{}, nil
	case err != nil:
		return time.Time{}, fmt.Errorf("reading stream %s: %w", stream, err)
	}
	return msg.Time, nil
}
