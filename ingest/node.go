// Package ingest is the owner's side of a shard: it takes entries in from the source stream, answers the workers' drains
// and commits, and trims what is archived.
//
// An entry's way through the package is consume.go (source stream to buffer), drain.go (buffer to worker), commit.go
// (worker to manifest and catalog), trim.go (source stream shortened). Who may do all this is decided in keeper.go (which
// process tries) and claim.go (which one is right). It never touches the bucket and starts nothing for a log. Open
// scheduler next for when a log becomes ready, and workers for who drains it.
package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"dormouse/internal/topology"
	"dormouse/scheduler"
	"dormouse/store"
)

// Trim says whether the source stream is shortened behind the archive.
type Trim string

// The trim modes.
const (
	TrimAuto   Trim = "auto"   // only a stream that Dormouse made
	TrimAlways Trim = "always" // any source stream
	TrimNever  Trim = "never"
)

// Config is what a Node needs. Durations and sizes without a stated default must be positive.
type Config struct {
	NC         *nats.Conn
	JS         jetstream.JetStream
	DB         *store.DB
	NodeID     string // stable over restarts: a process that comes back takes its own lease over at once
	ArchiveURL string // told to readers; without secrets

	MaxDelay     time.Duration // first unarchived entry's arrival to the log being due
	RequeueAfter time.Duration // a queued log that is not committed is queued again
	Tick         time.Duration // scheduler slot width; 0 is the scheduler's default
	Lease        time.Duration // how long a silent owner keeps others from trying
	MaxBytes     uint64        // a log with this much buffered is ready at once
	BufferLimit  uint64        // buffered bytes (with 64 for each entry) above which the node stops pulling
	Trim         Trim
	TrimDelay    time.Duration // how far trimming trails the manifest; above NATS's sync interval

	Registerer prometheus.Registerer // nil: metrics are kept but not exposed
	Logger     *slog.Logger          // nil: slog.Default()
}

func (c Config) validate() error {
	switch {
	case c.NC == nil || c.JS == nil || c.DB == nil || c.NodeID == "":
		return errors.New("ingest: NC, JS, DB and NodeID are required")
	case c.MaxDelay <= 0 || c.RequeueAfter <= 0 || c.Lease <= 0 || c.TrimDelay <= 0:
		return errors.New("ingest: MaxDelay, RequeueAfter, Lease and TrimDelay must be positive")
	case c.MaxBytes == 0 || c.BufferLimit == 0:
		return errors.New("ingest: MaxBytes and BufferLimit must be positive")
	case c.Trim != TrimAuto && c.Trim != TrimAlways && c.Trim != TrimNever:
		return fmt.Errorf("ingest: trim mode %q, want auto, always or never", c.Trim)
	}
	return nil
}

// Node is one process's part in owning shards: a keeper for each shard, which owns it or stands by.
type Node struct {
	cfg       Config
	metrics   *metrics
	schedules *scheduler.Metrics
	shards    shardStates
	trims     atomic.Uint64 // of source streams
}

// New checks the configuration and makes a node; Run starts it.
func New(cfg Config) (*Node, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	n := &Node{cfg: cfg, shards: newShardStates()}
	n.metrics = newMetrics(cfg.Registerer, n.shards)
	n.schedules = scheduler.NewMetrics(cfg.Registerer)
	return n, nil
}

// Run keeps the node's shards until ctx is done, and then gives them up. It returns when no goroutine of the node is left;
// nil after ctx was done, else what made it impossible to go on.
func (n *Node) Run(ctx context.Context) error {
	sources, err := topology.Sources(ctx, n.cfg.JS)
	if err != nil {
		return err
	}
	if len(sources) == 0 {
		return errors.New("ingest: there is no source stream: no stream carries the metadata of a shard")
	}
	leases, err := openLeases(ctx, n.cfg)
	if err != nil {
		return err
	}
	for _, source := range sources {
		n.shards.set(source.Shard, stateStarting, nil)
	}
	n.shards.begin()
	group, ctx := errgroup.WithContext(ctx)
	for _, source := range sources {
		k := &keeper{node: n, source: source, leases: leases, log: n.cfg.Logger.With("shard", source.Shard.String(), "stream", source.Stream)}
		group.Go(func() error { return k.run(ctx) })
	}
	group.Go(func() error { return n.restWhenIdle(ctx) })
	return group.Wait()
}

// restAfter is how long a node without active logs waits before it gives its memory back: long enough that a log which is
// written every few seconds does not have it built up anew each time.
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
		if seen = now; !quiet || n.shards.stats().Active > 0 {
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

// Ready returns nil when every shard is served: by this node, which has caught up with the manifest, or by another one.
func (n *Node) Ready() error { return n.shards.ready() }
