package reader

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/topology"
	"dormouse/internal/wire"
	"dormouse/store/manifest"
)

// Status is a system as JetStream and the processes that answer say it is.
type Status struct {
	Processes []wire.Process
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
	// Oldest is when the oldest entry above the floor was stored: a bound for the oldest that is not archived. Zero is none.
	Oldest time.Time

	Queued uint64            // work items in the SyncQueue
	Holder string            // of the lease
	Owner  *wire.ShardStatus // what the owner says; nil when none answers
}

// Lag returns how many sequences are above the floor.
func (s ShardStatus) Lag() uint64 { return s.Last - min(s.Last, s.Floor) }

// QueueStatus is the SyncQueue.
type QueueStatus struct {
	Items   uint64 // in the stream
	InWork  int    // delivered and not acknowledged
	Waiting int    // pulls of idle workers
}

// Processes answer at once; the first that is silent for statusSilence ends the wait, and statusTimeout ends it in any case.
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
	if s.Processes, err = c.processes(ctx); err != nil {
		return s, err
	}
	items, err := c.queue(ctx, &s.Queue)
	if err != nil {
		return s, err
	}
	for _, source := range sources {
		one, err := c.shardStatus(ctx, source, s.Processes)
		if err != nil {
			return s, err
		}
		one.Queued = items[source.Shard.SyncSubject()]
		s.Shards = append(s.Shards, one)
	}
	return s, nil
}

// processes collects what the processes say, ascending by host and ID.
func (c *Client) processes(ctx context.Context) (all []wire.Process, err error) {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	inbox := c.nc.NewInbox()
	sub, err := c.nc.SubscribeSync(inbox)
	if err != nil {
		return nil, fmt.Errorf("asking the processes: %w", err)
	}
	defer func() { _ = sub.Unsubscribe() }() // nothing is left to stop if it fails
	if err := c.nc.PublishRequest(wire.StatusSubject, inbox, nil); err != nil {
		return nil, fmt.Errorf("asking the processes: %w", err)
	}
	for {
		silence, cancel := context.WithTimeout(ctx, statusSilence)
		msg, err := sub.NextMsgWithContext(silence)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrNoResponders) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("asking the processes: %w", err)
		}
		var p wire.Process
		if wire.Decode(msg.Data, &p) == nil { // else somebody who is none of them
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b wire.Process) int { return cmp.Or(cmp.Compare(a.Host, b.Host), cmp.Compare(a.ID, b.ID)) })
	return all, nil
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

func (c *Client) shardStatus(ctx context.Context, source topology.Source, processes []wire.Process) (s ShardStatus, err error) {
	stream, err := c.js.Stream(ctx, source.Stream)
	if err != nil {
		return s, fmt.Errorf("opening stream %s: %w", source.Stream, err)
	}
	info := stream.CachedInfo()
	s = ShardStatus{Source: source, Replicas: info.Config.Replicas, Messages: info.State.Msgs, Bytes: info.State.Bytes, Last: info.State.LastSeq}
	if info.Cluster != nil {
		s.Leader = info.Cluster.Leader
	}
	m, err := manifest.Open(ctx, c.js, source.Shard)
	if err != nil {
		return s, err
	}
	last, _ := m.Last()
	s.Epoch, s.ClaimedBy, s.Floor = last.Epoch, last.Owner, last.Floor
	if s.Lag() > 0 {
		oldest, err := stream.GetMsg(ctx, s.Floor+1, jetstream.WithGetMsgSubject(">"))
		switch {
		case err == nil:
			s.Oldest = oldest.Time
		case !errors.Is(err, jetstream.ErrMsgNotFound):
			return s, fmt.Errorf("reading stream %s: %w", source.Stream, err)
		}
	}
	for _, p := range processes {
		for _, one := range p.Shards {
			if one.Shard == source.Shard && (one.State == wire.ShardOwned || one.State == wire.ShardClaiming) && (s.Owner == nil || one.Epoch > s.Owner.Epoch) {
				s.Owner, s.Holder = &one, p.ID
			}
		}
	}
	if s.Owner == nil {
		s.Holder, err = c.leaseHolder(ctx, source.Shard)
	}
	return s, err
}

// leaseHolder returns the ID of the process that holds a shard's lease, "" when nobody does.
func (c *Client) leaseHolder(ctx context.Context, shard wire.Shard) (string, error) {
	kv, err := c.js.KeyValue(ctx, wire.LeaseBucket)
	if err != nil {
		return "", fmt.Errorf("reading the leases: %w", err)
	}
	entry, err := kv.Get(ctx, wire.LeaseKey(shard))
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("reading the lease of shard %s: %w", shard, err)
	}
	var lease wire.Lease
	if err := json.Unmarshal(entry.Value(), &lease); err != nil {
		return "", fmt.Errorf("reading the lease of shard %s: %w", shard, err)
	}
	return lease.Node, nil
}
