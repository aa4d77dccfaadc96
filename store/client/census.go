package client

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/shardid"
	"dormouse/internal/wire"
)

// Silent is a process that lives by what it left in the lease bucket, and does not answer.
type Silent struct {
	ID     string
	Name   string
	Shards []shardid.Shard // whose leases it holds, ascending
}

// leases are the keys of the lease bucket.
type leases struct {
	shards map[shardid.Shard]wire.Lease
	nodes  map[string]wire.Lease // of processes that renew a key, by ID; those that hold a lease are among them
}

const (
	leasesTimeout = 5 * time.Second
	mostKeys      = 20_000 // of the lease bucket, that are looked at
	mostProcesses = 10_000 // that are listened to
)

// leases reads the lease bucket.
func (c *Client) leases(ctx context.Context) (l leases, err error) {
	ctx, cancel := context.WithTimeout(ctx, leasesTimeout)
	defer cancel()
	kv, err := c.js.KeyValue(ctx, wire.LeaseBucket)
	if err != nil {
		return l, fmt.Errorf("reading the leases: %w", err)
	}
	watcher, err := kv.WatchAll(ctx, jetstream.IgnoreDeletes())
	if err != nil {
		return l, fmt.Errorf("reading the leases: %w", err)
	}
	defer func() { _ = watcher.Stop() }() // fails only where the consumer is gone already
	l = leases{shards: make(map[shardid.Shard]wire.Lease), nodes: make(map[string]wire.Lease)}
	for range mostKeys {
		select {
		case <-ctx.Done():
			return l, fmt.Errorf("reading the leases: %w", ctx.Err())
		case entry := <-watcher.Updates():
			if entry == nil {
				return l, nil
			}
			l.add(entry)
		}
	}
	return l, fmt.Errorf("reading the leases: bucket %s has more than %d keys", wire.LeaseBucket, mostKeys)
}

func (l *leases) add(entry jetstream.KeyValueEntry) {
	var lease wire.Lease
	if json.Unmarshal(entry.Value(), &lease) != nil || lease.Node == "" {
		return // somebody else's
	}
	if number, ok := strings.CutPrefix(entry.Key(), wire.ShardKeys); ok {
		shard, err := shardid.Parse(number)
		if err != nil {
			return
		}
		l.shards[shard] = lease
	} else if !strings.HasPrefix(entry.Key(), wire.NodeKeys) && !strings.HasPrefix(entry.Key(), wire.WaitingKeys) {
		return
	}
	l.nodes[lease.Node] = lease
}

// without returns the processes among them that have not answered, ascending by name.
func (l leases) without(answered []wire.Process) (silent []Silent) {
	for id, lease := range l.nodes {
		if slices.ContainsFunc(answered, func(p wire.Process) bool { return p.ID == id }) {
			continue
		}
		one := Silent{ID: id, Name: lease.Holder()}
		for shard, held := range l.shards {
			if held.Node == id {
				one.Shards = append(one.Shards, shard)
			}
		}
		slices.Sort(one.Shards)
		silent = append(silent, one)
	}
	slices.SortFunc(silent, func(a, b Silent) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
	return silent
}

// lookAgain is after how long a process that was still looking at its bucket knows.
const lookAgain = 3500 * time.Millisecond

// census asks who is there. The leases are read first: who ends in order answers until it has given them up.
func (c *Client) census(ctx context.Context, s *Status) (leases, error) {
	held, err := c.leases(ctx)
	if err != nil {
		return held, err
	}
	if s.Processes, err = c.processes(ctx, held.nodes); err != nil {
		return held, err
	}
	if slices.ContainsFunc(s.Processes, func(p wire.Process) bool { return p.Looking }) {
		select {
		case <-ctx.Done():
			return held, ctx.Err()
		case <-time.After(lookAgain):
		}
		if s.Processes, err = c.processes(ctx, held.nodes); err != nil {
			return held, err
		}
	}
	if s.Silent = held.without(s.Processes); len(s.Silent) == 0 {
		return held, nil
	}
	if held, err = c.leases(ctx); err != nil { // some may have ended meanwhile
		return held, err
	}
	still := held.without(s.Processes)
	s.Silent = slices.DeleteFunc(still, func(now Silent) bool { // who came meanwhile was not asked
		return !slices.ContainsFunc(s.Silent, func(before Silent) bool { return before.ID == now.ID })
	})
	return held, nil
}

// processes collects what the processes say, ascending by host and ID. It waits longer for those that are known to
// live.
func (c *Client) processes(ctx context.Context, known map[string]wire.Lease) (all []wire.Process, err error) {
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
	answered := make(map[string]bool)
	for len(all) < mostProcesses {
		silence, cancel := context.WithTimeout(ctx, statusSilence)
		msg, err := sub.NextMsgWithContext(silence)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil && len(answered) < len(known) {
			continue
		}
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrNoResponders) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("asking the processes: %w", err)
		}
		var p wire.Process
		if wire.Decode(msg.Data, &p) != nil {
			continue // somebody who is none of them
		}
		all = append(all, p)
		if _, ok := known[p.ID]; ok {
			answered[p.ID] = true
		}
	}
	slices.SortFunc(all, func(a, b wire.Process) int {
		return cmp.Or(cmp.Compare(a.Host, b.Host), cmp.Compare(a.ID, b.ID))
	})
	return all, nil
}
