// Package ingest is the owners' side of Dormouse at one process: a Node keeps its share of the shards.
//
// Package membership says who should own which shard, and shardrunner.go joins that with package shard, which serves
// one shard in one epoch. watch.go looks whether each gets on; state.go is what readiness, status and metrics are told.
// Open ingest/shard next for an entry's way, scheduler for when a log becomes ready, and workers for who drains it.
package ingest

import (
	"context"
	"errors"
	"maps"
	"runtime"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"dormouse/ingest/membership"
	"dormouse/ingest/shard"
	"dormouse/internal/outage"
	"dormouse/internal/policy"
	"dormouse/internal/shardid"
	"dormouse/internal/topology"
	"dormouse/internal/wire"
	"dormouse/store/policies"
	"dormouse/store/tree"
)

// Config is what a Node needs.
type Config struct {
	shard.Config
	Host       string                // where the process runs, for those who read its leases; may be empty
	Registerer prometheus.Registerer // nil: metrics are kept but not exposed

	tail  uint64       // the default, but for tests
	merge *tree.Limits // likewise
}

// Node is one process's part in owning shards: a shardRunner for each shard, which owns it or stands by.
type Node struct {
	cfg     Config
	metrics *metrics
	owners  *shard.Metrics
	shards  *shardStates
	outages shard.Outages                         // of its shards
	trims   atomic.Uint64                         // of source streams
	members atomic.Pointer[membership.Membership] // nil until the lease bucket was found

	policies *policies.Watcher
}

// HasPeers reports whether other nodes live, as far as this one knows: who takes its shards over.
func (n *Node) HasPeers() bool {
	members := n.members.Load()
	return members != nil && members.Peers() > 0
}

// unowned returns how many shards nobody holds the lease of, as far as this node sees; 0 while it sees nothing.
func (n *Node) unowned() int {
	if members := n.members.Load(); members != nil {
		return members.Unowned()
	}
	return 0
}

// Share returns how many shards this node should own, and has for half a lease, of how many there are; 0 of 0 while
// that is not known. Of processes that start together the first has all of them for a moment.
func (n *Node) Share() (mine, all int) {
	if members := n.members.Load(); members != nil {
		return members.Share(n.cfg.Lease / 2)
	}
	return 0, 0
}

// New checks the configuration and makes a node; Run starts it.
func New(cfg Config) (*Node, error) {
	var err error
	if cfg.Config, err = cfg.Completed(); err != nil {
		return nil, err
	}
	n := &Node{cfg: cfg, outages: shard.NewOutages(cfg.Logger), shards: newShardStates()}
	n.metrics = newMetrics(cfg.Registerer, n.shards, n.unowned)
	n.owners = shard.NewMetrics(cfg.Registerer)
	n.policies = policies.NewWatcher(n.cfg.JS, n.cfg.Logger, cfg.Registerer)
	return n, nil
}

// Run keeps the node's share of the shards until ctx is done, and then gives them up. It returns when no goroutine of
// the node is left; nil after ctx was done, else what made it impossible to go on.
func (n *Node) Run(ctx context.Context) error {
	sources, leases, err := n.begin(ctx)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	members := membership.New(leases, n.cfg.Bucket.Check, n.cfg.Logger)
	n.members.Store(members)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return members.Run(ctx) })
	group.Go(func() error { return n.policies.Run(ctx) })
	group.Go(func() error {
		n.policies.Await(ctx, policiesWait)
		if members.Meet(ctx); ctx.Err() != nil {
			return nil
		}
		return n.runShards(ctx, sources, members)
	})
	group.Go(func() error { return n.restWhenIdle(ctx) })
	return group.Wait()
}

// policiesWait is how long a node waits for the policies before it takes shards over: without them, what may wait
// longer would all be due. They are where the leases are, so that an answer is near.
const policiesWait = 5 * time.Second

// keeps says how long entries are kept by the policies in force.
func (n *Node) keeps() (keeps []shard.Keep) {
	for _, k := range n.policies.Current().Keeps() {
		if k.Keep == policy.Forever {
			continue
		}
		keep := shard.Keep{Logs: string(k.Pattern), For: k.Keep}
		for _, pattern := range k.Except {
			keep.Except = append(keep.Except, string(pattern))
		}
		keeps = append(keeps, keep)
	}
	return keeps
}

// begin finds the source streams and the lease bucket, which may have no leader for a while.
func (n *Node) begin(ctx context.Context) (sources []topology.Source, leases *membership.Leases, err error) {
	begun := outage.New(n.cfg.Logger, "ingest cannot begin; trying again", "ingest begins")
	_, err = backoff.Retry(ctx, func() (struct{}, error) {
		var err error
		if sources, err = topology.Sources(ctx, n.cfg.JS); errors.Is(err, topology.ErrRefused) {
			return struct{}{}, backoff.Permanent(err)
		}
		if err == nil && len(sources) == 0 {
			err = errors.New("ingest: there is no source stream: no stream carries the metadata of a shard")
		}
		if err == nil {
			leases, err = membership.OpenLeases(ctx, n.cfg.JS, n.cfg.NodeID, n.cfg.Host, n.cfg.Lease)
		}
		if err != nil && ctx.Err() == nil {
			begun.Failed(err)
		}
		return struct{}{}, err
	}, backoff.WithMaxElapsedTime(0))
	if err == nil {
		begun.Over()
	}
	return sources, leases, err
}

// sourcesEvery is how often a node looks for source streams that were added or deleted.
const sourcesEvery = 30 * time.Second

// running is a shard with a runner.
type running struct {
	source topology.Source
	stop   context.CancelFunc
}

// runShards runs a shardRunner for each source stream there is, until ctx is done.
func (n *Node) runShards(ctx context.Context, sources []topology.Source, members *membership.Membership) error {
	group, ctx := errgroup.WithContext(ctx)
	runners := make(map[shardid.Shard]running)
	looks := outage.New(n.cfg.Logger, "could not look for new source streams; trying again",
		"source streams can be looked for again")
	ticker := time.NewTicker(sourcesEvery)
	defer ticker.Stop()
	for ctx.Err() == nil {
		for _, source := range sources {
			have, ok := runners[source.Shard]
			if ok && have.source.Created.Equal(source.Created) && have.source.Prefix == source.Prefix {
				continue
			}
			if ok { // made anew under the same name: the runner's owner is of another stream
				n.cfg.Logger.Warn("a source stream was made anew, or has another prefix",
					"shard", source.Shard.String(), "stream", source.Stream)
				have.stop()
			}
			n.shards.set(source.Shard, shardStatus{state: wire.ShardStarting})
			r := newShardRunner(n, source, members)
			tending, stop := context.WithCancel(ctx)
			runners[source.Shard] = running{source, stop}
			group.Go(func() error { return r.run(tending) })
		}
		for shard, r := range runners {
			if n.isGone(ctx, r.source, sources) {
				n.cfg.Logger.Warn("a source stream is gone, or is another shard now",
					"shard", shard.String(), "stream", r.source.Stream)
				r.stop()
				delete(runners, shard)
				n.shards.drop(shard)
			}
		}
		members.SetShards(slices.Sorted(maps.Keys(runners)))
		n.shards.begin()
		select {
		case <-ctx.Done():
		case <-ticker.C:
			if found, err := topology.Sources(ctx, n.cfg.JS); err != nil {
				looks.Failed(err)
			} else {
				looks.Over()
				sources = found
			}
		}
	}
	for _, r := range runners {
		r.stop()
	}
	return group.Wait()
}

// isGone reports whether a stream was deleted. That a list lacks it proves nothing: it may have had no leader at the
// time.
func (n *Node) isGone(ctx context.Context, source topology.Source, list []topology.Source) bool {
	for _, s := range list {
		if s.Stream == source.Stream {
			return s.Shard != source.Shard // it was added anew, with another prefix
		}
	}
	_, err := n.cfg.JS.Stream(ctx, source.Stream)
	return errors.Is(err, jetstream.ErrStreamNotFound)
}

// restAfter is how long a node without active logs waits before it gives its memory back: long enough that a log which
// is written every few seconds does not have it built up anew each time.
const restAfter = 10 * time.Second

// restWhenIdle closes the database and gives back what a burst has grown, once all logs sleep and nothing is written or
// asked any more, until ctx is done. What an embedded server has grown becomes free only when its streams are trimmed.
func (n *Node) restWhenIdle(ctx context.Context) error {
	ticker := time.NewTicker(restAfter)
	defer ticker.Stop()
	type activity struct{ uses, trims uint64 }
	for seen, freed := (activity{}), uint64(0); ; {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		now := activity{n.cfg.DB.Uses(), n.trims.Load()}
		quiet := now == seen
		if seen = now; !quiet || n.shards.load().Active > 0 {
			continue
		}
		rested, err := n.cfg.DB.Rest()
		if err != nil {
			return err
		}
		if rested || now.trims > freed {
			freed = now.trims
			runtime.GC() // what lies in a sync.Pool outlives one collection
			debug.FreeOSMemory()
		}
	}
}

// Status says where the node stands with each shard, ascending.
func (n *Node) Status() []wire.ShardStatus { return n.shards.report() }

// Ready returns nil when every shard is served: by this node, which has caught up with the manifest, or by another one.
// The error says how far those are that are not.
func (n *Node) Ready() error { return n.shards.ready() }

// Remarks says what is slow but not wrong: how far a shard is that is served here and still replays its stream, and
// which shards take nothing in since the buffer is full; and what is wrong with the policies.
func (n *Node) Remarks() []string { return append(n.shards.remarks(), n.policies.Remarks()...) }
