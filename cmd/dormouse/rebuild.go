package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"dormouse/internal/dirlock"
	"dormouse/internal/natsserver"
	"dormouse/internal/topology"
	"dormouse/store/bucket"
	"dormouse/store/rebuild"
)

// rebuildOrder is what the flags of rebuild say.
type rebuildOrder struct {
	topology.Config
	data    string
	quiet   time.Duration
	despite bool
}

func newRebuildCommand() *cobra.Command {
	o := &rebuildOrder{}
	cmd := &cobra.Command{
		Use:   "rebuild",
		Short: "Make a system out of a bucket when JetStream was lost",
		Long: `Rebuild makes a system out of what the bucket has, on a NATS server or cluster that knows nothing of it: all
streams were lost, and all local disks. Afterwards dormouse serve goes on with everything that was committed, and new
entries come above. What was acknowledged and not archived yet is gone with JetStream, and so are the policies: set
them again (dormouse policy set).

It names the objects that are missing or damaged, and goes on without them only with --despite-damage. It deletes
nothing, and can be run again when it was interrupted. It refuses when the manifest has a record of an owner, when a
process of the system runs, when a source stream has messages under sequences that are archived, and when somebody puts
objects into the bucket meanwhile. A process of another NATS that still uses the bucket and is at rest does not show:
stop it before.

With --data it starts the NATS server that serve embeds, on the same directory, for as long as it runs. Where tenants
were spread over shards, say over how many (--shards): the bucket does not, but a number that is wrong for a log that it
has is refused.`,
		Example: `  dormouse rebuild --archive 's3://logs?region=eu-central-1' --nats-context prod --shards 8 --replicas 3
  dormouse rebuild --archive file:///var/lib/dormouse/archive --data /var/lib/dormouse`,
		Args:              usageArgs(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return o.run(cmd) },
	}
	f := cmd.Flags()
	f.StringVar(&o.data, "data", "", "start the embedded NATS server of this `DIR` of serve's, instead of an outside one")
	f.IntVar(&o.Shards, "shards", 0, "source streams that tenants were spread over (default what there is, or 1 when the "+
		"bucket has no more)")
	f.IntVar(&o.Replicas, "replicas", 1, "replicas of the streams that are made: 1, 3 or 5")
	f.DurationVar(&o.quiet, "quiet-for", time.Minute, "for so long nobody must have put an object")
	f.BoolVar(&o.despite, "despite-damage", false, "go on for good without what is missing or damaged")
	f.DurationVar(&o.RequeueAfter, "requeue-after", time.Minute, "as in serve")
	f.DurationVar(&o.Lease, "lease", 10*time.Second, "as in serve")
	addConnectFlags(cmd)
	addArchiveFlag(cmd, "`URL` of the bucket that there is")
	return cmd
}

func (o *rebuildOrder) run(cmd *cobra.Command) error {
	if err := errors.Join(checkSystem(o.Replicas, o.Shards),
		checkBounds(sharedBounds(o.RequeueAfter, o.Lease)...)); err != nil {
		return usageError{err}
	}
	switch {
	case archiveURL(cmd) == "":
		return usageErrorf("give --archive: without NATS nobody says where the bucket is")
	case o.quiet < 0:
		return usageErrorf("--quiet-for %s: want no time below 0", o.quiet)
	}
	b, err := bucket.OpenToRead(cmd.Context(), archiveURL(cmd))
	if err != nil {
		return err
	}
	defer func() { _ = b.Close() }() // what was put is durable
	js, shut, err := o.connect(cmd)
	if err != nil {
		return err
	}
	shards, err := o.rebuild(cmd, js, b)
	if err = errors.Join(err, shut()); err != nil {
		return err
	}
	for _, s := range shards {
		fmt.Fprintf(cmd.OutOrStdout(), "shard %s: %d segments with %d entries are live, %d of them beyond its checkpoint as "+
			"they were and %d written anew; its stream goes on at sequence %d\n", s.ID, s.Segments, s.Entries, s.Taken,
			s.Written, s.Next)
		if s.Other > 0 {
			fmt.Fprintf(cmd.OutOrStdout(), "shard %s: %d entries gave way to later ones with their sequences, as after a power "+
				"failure of the NATS servers\n", s.ID, s.Other)
		}
	}
	fmt.Fprintln(cmd.OutOrStdout(), "the system is rebuilt: start dormouse serve")
	return nil
}

func (o *rebuildOrder) rebuild(cmd *cobra.Command, js jetstream.JetStream, b *bucket.Bucket) ([]rebuild.Shard, error) {
	tell := &telling{cmd: cmd}
	defer tell.end()
	return rebuild.Rebuild(cmd.Context(), rebuild.Config{Config: o.Config, JS: js, Bucket: b, Quiet: o.quiet,
		Despite: o.despite, Tell: rebuild.Tell{Step: tell.step, Progress: tell.progress,
			Bad: func(err error) { tell.line(redact(err.Error())) }}})
}

// connect connects to the outside NATS, or starts the embedded one.
func (o *rebuildOrder) connect(cmd *cobra.Command) (js jetstream.JetStream, shut func() error, err error) {
	if o.data == "" {
		nc, js, err := connect(cmd)
		return js, func() error { nc.Close(); return nil }, err
	}
	for _, name := range natsFlags {
		if cmd.Flags().Changed(name) {
			return nil, nil, usageErrorf("give either --data or --%s, not both", name)
		}
	}
	if o.Replicas > 1 {
		return nil, nil, usageErrorf("--replicas %d needs as many NATS servers, and the embedded one is alone", o.Replicas)
	}
	lock, err := dirlock.Take(o.data)
	release := func() error { return nil }
	switch {
	case err == nil:
		release = lock.Release
	case !errors.Is(err, dirlock.ErrUnsupported):
		return nil, nil, fmt.Errorf("--data: %w (stop dormouse serve first)", err)
	}
	server, err := natsserver.Start(natsserver.Config{Dir: filepath.Join(o.data, "nats"), Listen: "127.0.0.1:0",
		SyncAlways: true, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, nil, errors.Join(err, release())
	}
	stop := func() error { return errors.Join(server.Shutdown(), release()) }
	ctx, end := context.WithCancelCause(cmd.Context())
	cmd.SetContext(ctx)
	nc, err := nats.Connect("", server.InProcess(), nats.Name("dormouse rebuild"),
		nats.ClosedHandler(func(nc *nats.Conn) { end(natsEnd{closedError(nc.LastError())}) }),
		nats.NoCallbacksAfterClientClose())
	if err != nil {
		return nil, nil, errors.Join(err, stop())
	}
	if js, err = jetstream.New(nc); err != nil {
		nc.Close()
		return nil, nil, errors.Join(err, stop())
	}
	return js, func() error { nc.Close(); return stop() }, nil
}

// telling shows what a rebuild does: a line for each step, and a bar while one is long.
type telling struct {
	cmd *cobra.Command

	mu   sync.Mutex
	what string // of the bar, empty without one
	show func(done, total uint64)
	stop func()
}

func (t *telling) step(what string) { t.line(what) }

// line prints a line, below which a bar begins anew.
func (t *telling) line(text string) {
	t.end()
	fmt.Fprintln(t.cmd.ErrOrStderr(), "dormouse: "+text)
}

func (t *telling) progress(what string, done, total uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if what != t.what {
		t.endLocked()
		t.what = what
		t.show, t.stop = progress(t.cmd, what)
	}
	t.show(done, total)
}

func (t *telling) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.endLocked()
}

// endLocked removes the bar. mu must be held.
func (t *telling) endLocked() {
	if t.what != "" {
		t.stop()
		t.what = ""
	}
}
