package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/url"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"dormouse/ingest"
	"dormouse/internal/natsserver"
	"dormouse/internal/topology"
	"dormouse/scheduler"
)

// serveConfig is what the flags of serve say.
type serveConfig struct {
	data, archive, natsListen, http string
	target                          target
	roles                           []string
	workers                         int

	maxDelay, requeueAfter, tick, lease, trimDelay, linger, syncInterval, grace time.Duration
	maxBytes, bufferLimit, segmentBytes                                         byteSize
	trim, compression, logFormat, logLevel                                      *choice
	syncAlways                                                                  bool
	replicas, shards                                                            int
}

// The roles of a process.
const (
	roleIngest = "ingest"
	roleWorker = "worker"
)

// embedded reports whether the process runs its own NATS server.
func (c *serveConfig) embedded() bool { return c.target.url == "" && c.target.context == "" }

func (c *serveConfig) has(role string) bool { return slices.Contains(c.roles, role) }

func newServeCommand() *cobra.Command {
	c := &serveConfig{maxBytes: 1 << 20, bufferLimit: 512 << 20, segmentBytes: 8 << 20}
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Archive logs: take entries in, pack them into segments, keep the record of it",
		Long: `Serve does everything in one process. Without --nats-url and --nats-context it embeds a NATS server with
JetStream, to which clients connect.`,
		Example: `  dormouse serve
  dormouse serve --data /var/lib/dormouse --archive 's3://logs/prod?region=eu-central-1'
  dormouse serve --nats-context prod --roles worker --workers 16 --archive 's3://logs?endpoint=http://minio:9000'`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if c.target, err = targetOf(cmd); err != nil {
				return err
			}
			if err := c.complete(archiveURL(cmd)); err != nil {
				return usageError{err}
			}
			log := newLogger(cmd.ErrOrStderr(), c.logFormat.value, c.logLevel.value)
			if err := limitMemory(log); err != nil {
				return err
			}
			p, err := newProgram(cmd.Context(), c, log)
			if cmd.Context().Err() != nil && errors.Is(err, context.Canceled) {
				log.Info("told to end before it served", "waited_for", err)
				return nil
			}
			if err != nil {
				return err
			}
			return p.run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.data, "data", "./data", "directory for the state of this process")
	addConnectFlags(cmd)
	f.StringVar(&c.natsListen, "nats-listen", "127.0.0.1:4222", "the embedded NATS server's address for clients")
	addArchiveFlag(cmd, "bucket: file://DIR, s3://BUCKET/PREFIX?region=..&endpoint=.., gs://, azblob:// or mem:// (default file://DATA/archive)")
	f.StringVar(&c.http, "http", "127.0.0.1:9422", "address for metrics and health")
	f.StringSliceVar(&c.roles, "roles", []string{roleIngest, roleWorker}, "what this process does: ingest, worker or both")
	f.DurationVar(&c.maxDelay, "max-delay", 5*time.Second, "bound from an entry's arrival to its archive commit being due")
	f.Var(&c.maxBytes, "max-bytes", "a log with this much buffered is ready at once")
	f.IntVar(&c.workers, "workers", 2*runtime.GOMAXPROCS(0), "pool size")
	f.DurationVar(&c.requeueAfter, "requeue-after", time.Minute, "a ready log that is not committed by then is queued again")
	f.DurationVar(&c.tick, "tick", scheduler.DefaultTick, "width of a scheduler slot")
	f.Var(&c.bufferLimit, "buffer-limit", "buffered bytes above which this process stops pulling")
	f.Var(&c.segmentBytes, "segment-bytes", "a segment is closed at this size")
	f.DurationVar(&c.linger, "linger", 100*time.Millisecond, "how long a worker waits for more ready logs to pack together")
	c.compression = addChoice(cmd, "compression", "compression of segments", "zstd", "snappy", "none")
	f.DurationVar(&c.lease, "lease", 10*time.Second, "how long a silent owner keeps others from taking its shard")
	c.trim = addChoice(cmd, "trim", "shorten the source stream behind the archive; auto: only a stream that dormouse made",
		string(ingest.TrimAuto), string(ingest.TrimAlways), string(ingest.TrimNever))
	f.DurationVar(&c.trimDelay, "trim-delay", 0, "how far trimming trails the archive; must exceed NATS's sync interval (default 5s embedded, 3m otherwise)")
	f.DurationVar(&c.syncInterval, "sync-interval", natsserver.DefaultSyncInterval, "how often the embedded NATS server syncs: what a power failure can take")
	f.BoolVar(&c.syncAlways, "sync-always", false, "the embedded NATS server syncs before every ack")
	f.IntVar(&c.replicas, "replicas", 1, "replicas of the streams that dormouse makes")
	f.IntVar(&c.shards, "shards", 0, "source streams that tenants are spread over, fixed when they are made (default what there is, or 1)")
	f.DurationVar(&c.grace, "grace", 10*time.Second, "how long work in hand may go on at shutdown")
	c.logFormat = addChoice(cmd, "log-format", "format of the log on standard error", "text", "json")
	c.logLevel = addChoice(cmd, "log-level", "what to log", "info", "debug", "warn", "error")
	return cmd
}

// complete checks the flags and fills in what depends on others.
func (c *serveConfig) complete(archive string) error {
	for name, d := range map[string]time.Duration{"max-delay": c.maxDelay, "requeue-after": c.requeueAfter, "lease": c.lease,
		"sync-interval": c.syncInterval, "grace": c.grace, "linger": c.linger} {
		if d <= 0 {
			return fmt.Errorf("--%s must be positive, it is %s", name, d)
		}
	}
	switch {
	case c.tick < time.Millisecond:
		return fmt.Errorf("--tick must be at least 1ms, it is %s", c.tick)
	case c.requeueAfter < 100*time.Millisecond || c.lease < 100*time.Millisecond:
		return fmt.Errorf("--requeue-after and --lease must be at least 100ms, they are %s and %s", c.requeueAfter, c.lease)
	case c.trimDelay < 0:
		return fmt.Errorf("--trim-delay must not be negative")
	case c.embedded() && c.trimDelay > 0 && c.trimDelay <= c.syncInterval && !c.syncAlways:
		return fmt.Errorf("--trim-delay %s must exceed --sync-interval %s: after a power failure the entries must outlive the record of their archiving", c.trimDelay, c.syncInterval)
	case c.workers < 1 || c.workers > 4096:
		return fmt.Errorf("--workers must be from 1 to 4096, it is %d", c.workers)
	case c.replicas < 1 || c.replicas > 5:
		return fmt.Errorf("--replicas must be from 1 to 5, it is %d", c.replicas)
	case c.shards < 0 || c.shards > topology.MaxShards:
		return fmt.Errorf("--shards must be from 1 to %d, it is %d", topology.MaxShards, c.shards)
	case c.embedded() && c.target.creds != "":
		return fmt.Errorf("--nats-creds is for an outside NATS: give --nats-url too")
	case len(c.roles) == 0:
		return fmt.Errorf("--roles must name ingest, worker or both")
	case c.segmentBytes > math.MaxInt32:
		return fmt.Errorf("--segment-bytes must be below 2GiB: segments are built in memory")
	}
	for _, r := range c.roles {
		if r != roleIngest && r != roleWorker {
			return fmt.Errorf("--roles: %q is neither ingest nor worker", r)
		}
	}
	if c.trimDelay == 0 {
		if c.trimDelay = 3 * time.Minute; c.embedded() { // above NATS's default sync interval of 2 minutes
			c.trimDelay = max(5*time.Second, 2*c.syncInterval)
		}
	}
	if c.archive = archive; archive == "" {
		folder, err := filepath.Abs(filepath.Join(c.data, "archive"))
		if err != nil {
			return err
		}
		c.archive = (&url.URL{Scheme: "file", Path: filepath.ToSlash(folder)}).String()
	}
	return nil
}

// logLevels by their flag values.
var logLevels = map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
