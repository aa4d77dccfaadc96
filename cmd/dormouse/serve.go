package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"dormouse/ingest/shard"
	"dormouse/scheduler"
)

// serveConfig is what the flags of serve say.
type serveConfig struct {
	data, archive, natsListen, http string
	target                          target
	roles                           []string
	workers                         int
	mergeShare                      float64

	maxDelay, requeueAfter, tick, lease, trimDelay, linger, syncInterval, grace, gcGrace time.Duration
	maxBytes, bufferLimit, segmentBytes                                                  byteSize
	trim, compression, logFormat, logLevel                                               *choice
	syncAlways                                                                           bool
	replicas, shards                                                                     int
}

// The roles of a process.
const (
	roleIngest = "ingest"
	roleWorker = "worker"
)

// embedded reports whether the process runs its own NATS server.
func (c *serveConfig) embedded() bool { return c.target.url == "" && c.target.context == "" }

func (c *serveConfig) has(role string) bool { return slices.Contains(c.roles, role) }

func newServeCommand() *cobra.Command { return serveCommand(&serveConfig{}) }

// serveCommand makes the command, whose flags c is to hold.
func serveCommand(c *serveConfig) *cobra.Command {
	c.maxBytes, c.bufferLimit, c.segmentBytes = 1<<20, 512<<20, 8<<20
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
			log := newLogger(cmd.ErrOrStderr(), c.logFormat.value, c.logLevel.value)
			adoptLog(cmd.ErrOrStderr(), log)
			return c.tell(log, c.serve(cmd, log))
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.data, "data", "./data", "`DIR` for the state of this process, which locks it: a second one is refused")
	addConnectFlags(cmd)
	f.StringVar(&c.natsListen, "nats-listen", "127.0.0.1:4222", "`ADDR` of the embedded NATS server for clients")
	f.IntVar(&c.shards, "shards", 0, "`N` source streams that tenants are spread over, fixed when they are made "+
		"(default what there is, or 1)")
	f.IntVar(&c.replicas, "replicas", 1, "replicas, 1, 3 or 5, of the streams that dormouse makes; `N` servers at least")

	addArchiveFlag(cmd, "`URL` of the bucket: file://DIR, s3://BUCKET/PREFIX?region=..&endpoint=.., gs://, azblob:// "+
		"or mem:// "+
		"(default file://DATA/archive)")
	f.DurationVar(&c.gcGrace, "gc-grace", time.Hour, "how long an object stays in the bucket that is not part of the "+
		"archive any more; a merged segment a minute, or this if it is less")
	c.compression = addChoice(cmd, "compression", "compression of segments", "zstd", "snappy", "none")
	f.Var(&c.segmentBytes, "segment-bytes", "a segment is closed at this `size`; each worker holds about one in memory, "+
		"and up to eight messages of the largest size that NATS takes")

	f.DurationVar(&c.maxDelay, "max-delay", 5*time.Second, "bound from an entry's arrival to its archive commit being due")
	f.Var(&c.maxBytes, "max-bytes", "a log with this `size` buffered is ready at once")
	f.DurationVar(&c.requeueAfter, "requeue-after", time.Minute,
		"a ready log that is not committed by then is queued again")
	f.DurationVar(&c.lease, "lease", 10*time.Second, "how long a silent owner keeps others from taking its shard")
	f.DurationVar(&c.grace, "grace", 10*time.Second,
		"how long work in hand may go on after SIGTERM; a second signal ends at once")

	c.trim = addChoice(cmd, "trim", "shorten the source stream behind the archive; auto: only a stream that dormouse made",
		string(shard.TrimAuto), string(shard.TrimAlways), string(shard.TrimNever))
	f.DurationVar(&c.trimDelay, "trim-delay", 0, "how far trimming trails the archive; must exceed --sync-interval, and "+
		"10s in a cluster (default 5s embedded, 3m otherwise, or twice --sync-interval if that is more)")
	f.DurationVar(&c.syncInterval, "sync-interval", 0,
		"how often the embedded NATS server syncs its files, or outside ones do as their configuration says: what a "+
			"power failure can take (default 1s embedded, 2m otherwise)")
	f.BoolVar(&c.syncAlways, "sync-always", false, "the embedded NATS server syncs before every ack, or outside ones do "+
		"as their configuration says")

	f.IntVar(&c.workers, "workers", 2*runtime.GOMAXPROCS(0),
		"`N` workers in the pool; a slow bucket wants more, since they wait for it")
	f.Float64Var(&c.mergeShare, "merge-share", 0.25,
		"`PART` of the pool that may merge segments, at least one worker; syncs go first")
	f.DurationVar(&c.linger, "linger", 100*time.Millisecond,
		"how long a worker waits for more ready logs to pack together")
	f.Var(&c.bufferLimit, "buffer-limit", "buffered `size` above which this process stops pulling")
	f.DurationVar(&c.tick, "tick", scheduler.DefaultTick, "width of a scheduler slot")

	f.StringSliceVar(&c.roles, "roles", []string{roleIngest, roleWorker}, "what this process does: ingest, worker or both")
	f.StringVar(&c.http, "http", "127.0.0.1:9422", "`ADDR` for metrics and health")
	c.logFormat = addChoice(cmd, "log-format", "format of the log, and of all else on standard error", "text", "json")
	c.logLevel = addChoice(cmd, "log-level", "what to log", "info", "debug", "warn", "error")
	cmd.SetUsageFunc(usageOfGroups(serveFlags))
	return cmd
}

// serve runs the server until it is told to end or fails.
func (c *serveConfig) serve(cmd *cobra.Command, log *slog.Logger) error {
	var err error
	if c.target, err = targetOf(cmd); err != nil {
		return err
	}
	if err := c.complete(archiveURL(cmd)); err != nil {
		return usageError{err}
	}
	if err := limitMemory(log); err != nil {
		return err
	}
	c.warn(cmd.Root(), log)
	p, err := newServer(cmd.Context(), c, log)
	if cmd.Context().Err() != nil && errors.Is(err, context.Canceled) {
		log.Info("stopped before it was serving", "waited_for", err)
		return nil
	}
	if err != nil {
		return err
	}
	began := time.Now()
	return c.tellEnd(p.log, began, p.run(cmd.Context()))
}

// complete checks the flags and fills in what depends on others.
func (c *serveConfig) complete(archive string) error {
	if err := c.checkBounds(); err != nil {
		return err
	}
	if err := checkSystem(c.replicas, c.shards); err != nil {
		return err
	}
	switch {
	case c.embedded() && c.replicas > 1:
		return fmt.Errorf("--replicas %d needs as many NATS servers, and the embedded one is alone: give --nats-url, or "+
			"leave --replicas out", c.replicas)
	case c.embedded() && c.target.creds != "":
		return fmt.Errorf("--nats-creds is for an outside NATS: give --nats-url too")
	case len(c.roles) == 0:
		return fmt.Errorf("--roles must name ingest, worker or both")
	}
	for _, r := range c.roles {
		if r != roleIngest && r != roleWorker {
			return fmt.Errorf("--roles: %q is neither ingest nor worker", r)
		}
	}
	if err := c.completeSync(); err != nil {
		return err
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

// deposedLeader is about how long a leader that was cut off does not know it.
const deposedLeader = 10 * time.Second

// warn names what is allowed and may not be what was meant.
func (c *serveConfig) warn(root *cobra.Command, log *slog.Logger) {
	for _, name := range strayVariables(root, os.Environ()) {
		log.Warn("an environment variable is no setting of dormouse and is ignored", "variable", name)
	}
	if !c.embedded() && c.has(roleIngest) && c.trimDelay <= deposedLeader {
		log.Warn("--trim-delay is shorter than a NATS server may take that leads a stream and was cut off from its "+
			"cluster: reads may miss what was trimmed meanwhile. Beside a single server that is no matter", "trim_delay",
			c.trimDelay, "want_above", deposedLeader)
	}
	if room := debug.SetMemoryLimit(-1); c.has(roleWorker) && int64(c.segmentBytes) > room/2/int64(c.workers) {
		log.Warn("the workers' segments can take more than half of the memory; lower --workers or --segment-bytes",
			"workers", c.workers, "segment_bytes", c.segmentBytes.String(), "memory_limit", room)
	}
}
