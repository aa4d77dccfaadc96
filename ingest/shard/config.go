// Package shard serves one shard in one epoch: it takes entries in from the source stream, answers the workers' drains
// and commits, and trims what is archived. Whether this process should do that is decided elsewhere, by the lease; that
// it alone can is seen to here, by the epoch of its claim.
//
// Claim (claim.go) begins an epoch and makes an Owner, which serves until the epoch ends. An entry's way through it is
// intake.go (source stream to ledger.go), server.go and drain.go (ledger to worker), committer.go (worker to manifest
// and ledger), trim.go (source stream shortened). What is archived is a tree of segments: merger.go plans what workers
// merge, checkpointer.go puts the tree into the bucket and keeps the manifest short, garbage.go deletes what merges
// have replaced. The ledger is the only one that changes what Pebble has of the shard. Nothing is started for a log.
package shard

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/extent"
	"dormouse/internal/topology"
	"dormouse/scheduler"
	"dormouse/store/cache"
	"dormouse/store/tree"
)

// Trim says whether the source stream is shortened behind the archive.
type Trim string

// The trim modes.
const (
	TrimAuto   Trim = "auto"   // only a stream that Dormouse made
	TrimAlways Trim = "always" // any source stream
	TrimNever  Trim = "never"
)

// Bucket is where an owner keeps the checkpoints of its tree, and where the segments are.
type Bucket interface {
	// Put stores an object for good; an existing key is refused.
	Put(ctx context.Context, key string, data []byte) error
	// Get reads a whole object of a known size.
	Get(ctx context.Context, s extent.Segment) ([]byte, error)
	// Contents reads the table of contents of a segment.
	Contents(ctx context.Context, s extent.Segment) ([]extent.Extent, error)
	// Delete deletes an object. That there is none may be an error that wraps bucket.ErrNotFound.
	Delete(ctx context.Context, key string) error
	// List yields the objects whose keys begin with prefix, ascending.
	List(ctx context.Context, prefix string) iter.Seq2[extent.Segment, error]
	// Check returns nil when the bucket answers and lets this process in.
	Check(ctx context.Context) error
}

// Config is what the owners of a node have in common. Durations and sizes without a stated default must be positive.
type Config struct {
	NC     *nats.Conn
	JS     jetstream.JetStream
	DB     *cache.DB
	Bucket Bucket // of the archive; a node whose bucket does not answer takes no shard from others
	// Accepts returns nil when a segment in the bucket with that ID may be committed; an error that wraps
	// identity.ErrRefused lasts. nil accepts every one.
	Accepts    func(ctx context.Context, bucketID string) error
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
	GCGrace      time.Duration // how long what merges have replaced stays, at most a minute
	Keeps        func() []Keep // how long entries are kept, as of now; nil: for ever

	Logger *slog.Logger // nil: slog.Default()
}

// Completed returns the configuration with its defaults, or an error that says what is wrong with it.
func (c Config) Completed() (Config, error) {
	switch {
	case c.NC == nil || c.JS == nil || c.DB == nil || c.Bucket == nil || c.NodeID == "":
		return c, errors.New("shard: NC, JS, DB, Bucket and NodeID are required")
	case c.MaxDelay <= 0 || c.RequeueAfter <= 0 || c.Lease <= 0 || c.TrimDelay <= 0 || c.GCGrace <= 0:
		return c, errors.New("shard: MaxDelay, RequeueAfter, Lease, TrimDelay and GCGrace must be positive")
	case c.MaxBytes == 0 || c.BufferLimit == 0:
		return c, errors.New("shard: MaxBytes and BufferLimit must be positive")
	case c.Trim != TrimAuto && c.Trim != TrimAlways && c.Trim != TrimNever:
		return c, fmt.Errorf("shard: trim mode %q, want auto, always or never", c.Trim)
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Accepts == nil {
		c.Accepts = func(context.Context, string) error { return nil }
	}
	return c, nil
}

// Site is one shard at one node for one turn at owning it: what its owner is made of.
type Site struct {
	Config  // completed
	Source  topology.Source
	Tail    uint64       // records beyond the newest checkpoint at which another one is taken; zero: 1,024
	Merge   *tree.Limits // nil: tree.Defaults
	Metrics *Metrics     // of all shards of the node
	// Outages, Advance and Progress outlast an epoch: a claim that fails is followed by another one.
	Outages  Outages
	Advance  *Advance
	Progress *Progress

	Share    func() int             // shards that the node owns; what it may hold in memory is divided by it
	Buffered func() scheduler.Stats // of all shards of the node
	Trimmed  func()                 // called when the source stream was shortened
	Fresh    func() bool            // the lease is sure to be held while an answer is on its way
	Policies scheduler.Policies     // which logs have another MaxDelay or MaxBytes; nil: none
}
