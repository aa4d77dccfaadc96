package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"dormouse/internal/extent"
	"dormouse/internal/logid"
	"dormouse/internal/shardid"
	"dormouse/internal/topology"
	"dormouse/internal/wire"
	"dormouse/store/alone"
	"dormouse/store/bucket"
	"dormouse/store/client"
	"dormouse/store/reader"
)

func newDeleteCommand() *cobra.Command {
	var before string
	var wait, yes bool
	cmd := &cobra.Command{
		Use:   "delete LOGID | 'PREFIX.>'",
		Short: "Delete the entries of a log, or of all logs below a prefix",
		Long: `Delete takes the entries of a log, or of all logs below a prefix ('acme.>', or '>' for everything), out of the
archive, the buffer and the source stream: all that was published up to now or, with --before, what is older. When it
returns nothing of that is read any more, with NATS or without. A log may be written again: what comes later stays.

The objects that have such entries are written anew, and the old ones deleted after a grace for readers, within about a
minute after that. --wait waits for it, until no object in the bucket holds such an entry. It cannot be undone. Who
deleted what, and when, stays in the bucket, in the folders SHARD/deleted/.`,
		Example: `  dormouse delete acme.web
  dormouse delete 'acme.>' --wait --yes
  dormouse delete acme.web --before 2026-01-31T00:00:00Z`,
		Args:              usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			c := extent.Cut{Logs: args[0], ID: uuid.NewString(), By: whoAsks()}
			if err := validatePattern(c.Logs); err != nil {
				return usageError{err}
			}
			seq, at, err := parseBound(before, time.Now())
			switch {
			case err != nil:
				return usageErrorf("--before %w", err)
			case seq == 1:
				return usageErrorf("--before 1: there is nothing before the first sequence")
			case seq > 0:
				c.UpTo = seq - 1
			case !at.IsZero():
				c.Before = at.UnixNano()
			}
			return deleteLogs(cmd, c, wait, yes)
		},
	}
	f := cmd.Flags()
	f.StringVar(&before, "before", "", "only entries before a sequence, a time (RFC 3339) or a duration ago (720h)")
	f.BoolVar(&wait, "wait", false, "wait until no object in the bucket holds such an entry")
	f.BoolVar(&yes, "yes", false, "do not ask")
	addConnectFlags(cmd)
	addArchiveFlag(cmd, "bucket to look at with --wait (default: the one that the server names)")
	return cmd
}

// validatePattern accepts a LogID, PREFIX.> and >.
func validatePattern(pattern string) error {
	if pattern == ">" {
		return nil
	}
	if prefix, ok := strings.CutSuffix(pattern, ".>"); ok {
		pattern = prefix + ".x"
	}
	for token := range strings.SplitSeq(pattern, ".") {
		if token == "*" || token == ">" {
			return fmt.Errorf("%s: the only wildcard is a > at the end, as in 'acme.>'", pattern)
		}
	}
	if err := logid.Validate(pattern); err != nil {
		return fmt.Errorf("want a LogID like acme.web, or a prefix like 'acme.>': %w", err)
	}
	return nil
}

// whoAsks names the user and the machine.
func whoAsks() string {
	name, host := "somebody", "somewhere"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if h, err := os.Hostname(); err == nil {
		host = h
	}
	who := name + "@" + host
	return strings.ToValidUTF8(who[:min(len(who), wire.MaxCutText)], "") // a name may be any bytes, and be cut within one
}

func deleteLogs(cmd *cobra.Command, c extent.Cut, wait, yes bool) error {
	owners, shut, err := ownersOf(cmd)
	if err != nil {
		return err
	}
	defer shut()
	ctx := cmd.Context()
	sources, err := owners.Sources(ctx)
	if err != nil {
		return err
	}
	if c.UpTo > 0 && len(sources) > 1 && strings.HasSuffix(c.Logs, ">") {
		return usageErrorf("--before a sequence needs a LOGID: there are %d shards, each of which has its own sequences; "+
			"give a time", len(sources))
	}
	if !yes {
		open, shutArchive := archiveOf(cmd, owners.JS())
		defer shutArchive()
		what, err := whatIsThere(ctx, owners, open, c.Logs)
		if err != nil {
			return anotherWay(cmd, err)
		}
		if c.UpTo > 0 || c.Before != 0 {
			what += ", some of which"
		}
		if err := confirm(cmd, what+" will be deleted for good"); err != nil {
			return err
		}
	}
	d := &deletion{cmd: cmd, owners: owners, cuts: make(alone.Sought)}
	if err := d.cut(ctx, sources, c); err != nil || !wait || len(d.cuts) == 0 {
		return err
	}
	return d.wait(ctx)
}

// mostCounted is how many logs are counted for a question.
const mostCounted = 100_000

// whatIsThere says how much there is of what a pattern covers.
func whatIsThere(ctx context.Context, owners *client.Client, open reader.Archive, pattern string) (string, error) {
	from, _ := extent.Cut{Logs: pattern}.Range()
	var logs, entries, bytes uint64
	more := ""
	for l, err := range reader.Logs(ctx, owners, open, from) {
		if err != nil {
			return "", err
		}
		if !(extent.Cut{Logs: pattern}).Covers(l.Log) {
			continue
		}
		if logs++; logs > mostCounted {
			more = "more than "
			break
		}
		entries += l.Archived.Entries + l.Buffered.Entries
		bytes += l.Archived.Bytes + l.Buffered.Bytes
	}
	return fmt.Sprintf("%s%d logs with %d entries (%s)", more, logs, entries, humanize.IBytes(bytes)), nil
}

// deletion is one under way.
type deletion struct {
	cmd     *cobra.Command
	owners  *client.Client
	cuts    alone.Sought // as the owners keep them
	archive string       // as they name it
}

// cut has each shard cut: up to what its stream has now, also when the owner hears of it only later.
func (d *deletion) cut(ctx context.Context, sources []topology.Source, c extent.Cut) error {
	upTo := make(map[shardid.Shard]uint64)
	for _, source := range sources {
		stream, err := d.owners.JS().Stream(ctx, source.Stream)
		if err != nil {
			return fmt.Errorf("opening stream %s: %w", source.Stream, err)
		}
		if upTo[source.Shard] = stream.CachedInfo().State.LastSeq; c.UpTo > 0 {
			upTo[source.Shard] = c.UpTo
		}
	}
	for _, source := range sources {
		c.UpTo = upTo[source.Shard]
		reply, err := d.owners.Cut(ctx, source.Shard, wire.CutRequest{Cut: c})
		if err != nil {
			return fmt.Errorf("deleting %s in shard %s: %w (run it again: what is done stays done)", c.Logs, source.Shard, err)
		}
		if reply.Cut.Record == 0 {
			continue // nothing was ever published there
		}
		d.cuts[source.Shard], d.archive = reply.Cut, reply.Archive
		fmt.Fprintf(d.cmd.OutOrStdout(), "deleted %s up to sequence %d of shard %s\n", c.Logs, reply.Cut.UpTo, source.Shard)
	}
	if len(d.cuts) == 0 {
		fmt.Fprintln(d.cmd.OutOrStdout(), "there is nothing to delete")
	}
	return nil
}

const (
	deletePoll = 500 * time.Millisecond // between questions how far owners are
	sweepAgain = 20 * time.Second       // between requests to delete what nothing names
)

// wait waits until no object holds an entry that was cut.
func (d *deletion) wait(ctx context.Context) error {
	b, err := openArchive(ctx, d.cmd, d.archive)
	if err != nil {
		return err
	}
	defer func() { _ = b.Close() }() // only read from
	step, end := steps(d.cmd)
	defer end()
	for {
		if err := d.written(ctx, step); err != nil {
			return err
		}
		step("looking at the tables of contents of all objects")
		keys, err := alone.Find(ctx, b, d.cuts, nil)
		if err != nil {
			return err
		}
		if len(keys) == 0 {
			end()
			fmt.Fprintln(d.cmd.OutOrStdout(), "no object holds an entry of it any more")
			return nil
		}
		if err := d.gone(ctx, b, keys, step); err != nil {
			return err
		}
	}
}

// written waits until no live segment has anything of the cuts.
func (d *deletion) written(ctx context.Context, step func(string)) error {
	for shard, c := range d.cuts {
		for said := ""; ; {
			reply, err := d.owners.Cut(ctx, shard, wire.CutRequest{Cut: c, Look: true})
			if err != nil {
				return err
			}
			if reply.Segments+reply.Pending == 0 {
				break
			}
			if now := fmt.Sprintf("shard %s: %d objects (%s) are to be written anew, %d sequences to be archived or passed",
				shard, reply.Segments, humanize.IBytes(reply.Bytes), reply.Pending); now != said {
				step(now)
				said = now
			}
			if err := sleep(ctx, deletePoll); err != nil {
				return err
			}
		}
	}
	return nil
}

// gone waits until objects are gone, and asks now and then that those are deleted which nothing names.
func (d *deletion) gone(ctx context.Context, b *bucket.Bucket, keys []string, step func(string)) error {
	var asked time.Time
	for said := 0; len(keys) > 0; {
		if len(keys) != said {
			step(fmt.Sprintf("%d objects that were replaced or never committed are to be deleted", len(keys)))
			said = len(keys)
		}
		if time.Since(asked) > sweepAgain {
			asked = time.Now()
			for shard := range d.cuts {
				if _, err := d.owners.Sweep(ctx, shard, wire.SweepRequest{Young: true}); err != nil {
					return err
				}
			}
		}
		object, err := b.Object(ctx, keys[0])
		switch {
		case errors.Is(err, bucket.ErrNotFound):
			keys = keys[1:]
			continue
		case err != nil:
			return err
		}
		if err := errors.Join(object.Close(), sleep(ctx, deletePoll)); err != nil {
			return err
		}
	}
	return nil
}

// sleep waits, unless ctx is done.
func sleep(ctx context.Context, wait time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(wait):
		return nil
	}
}
