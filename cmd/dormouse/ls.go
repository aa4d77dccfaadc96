package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"dormouse/internal/logid"
	"dormouse/internal/wire"
	"dormouse/store/client"
	"dormouse/store/reader"
)

func newLsCommand() *cobra.Command {
	var output *choice
	cmd := &cobra.Command{
		Use:   "ls [PREFIX]",
		Short: "List logs, archived and still buffered",
		Long: `Ls lists the logs whose LogID begins with PREFIX, ascending. It asks NATS for what is buffered and where the
rest is, and reads the tables of contents of the archive's segments, for which it needs the bucket's credentials.`,
		Example: `  dormouse ls
  dormouse ls acme. --output jsonl | jq .log
  dormouse ls --no-nats --archive file:///var/lib/dormouse/archive`,
		Args:              usageArgs(cobra.MaximumNArgs(1)),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			prefix := ""
			if len(args) > 0 {
				prefix = args[0]
			}
			show, flush := lsTable(cmd.OutOrStdout())
			if output.value == "jsonl" {
				enc := json.NewEncoder(cmd.OutOrStdout())
				show, flush = func(l wire.LogInfo) error { return enc.Encode(summaryOf(l)) }, func() error { return nil }
			}
			logs, shut, err := logsOf(cmd, prefix)
			if err != nil {
				return err
			}
			defer shut()
			for l, err := range logs {
				if err == nil {
					err = show(l)
				}
				if err != nil {
					return errors.Join(flush(), anotherWay(cmd, err))
				}
			}
			return flush()
		},
	}
	output = addChoice(cmd, "output", "output format", "table", "jsonl")
	addConnectFlags(cmd)
	addArchiveFlag(cmd, "bucket that has the archived ones (default: the one that the server names)")
	addAloneFlag(cmd)
	return cmd
}

// logsOf yields the logs that begin with prefix, of a system or of a bucket alone.
func logsOf(cmd *cobra.Command, prefix string) (logs iter.Seq2[wire.LogInfo, error], shut func(), err error) {
	bucketAlone, shut, err := aloneOf(cmd)
	if err != nil {
		return nil, nil, err
	}
	if bucketAlone != nil {
		return bucketAlone.Logs(cmd.Context(), prefix), shut, nil
	}
	nc, js, err := connect(cmd)
	if err != nil {
		return nil, nil, err
	}
	open, closeArchive := archiveOf(cmd, js)
	return reader.Logs(cmd.Context(), client.New(nc, js), open, prefix), func() { closeArchive(); nc.Close() }, nil
}

// alignedRows is how many rows lsTable aligns together.
const alignedRows = 512

// lsTable prints rows aligned with their neighbours only, so that a million logs stream.
func lsTable(w io.Writer) (show func(wire.LogInfo) error, flush func() error) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	rows := 0
	show = func(l wire.LogInfo) error {
		if rows == 0 {
			if _, err := fmt.Fprintln(t, "LOGID\tENTRIES\tBYTES\tEXTENTS\tARCHIVED\tBUFFERED\tFIRST\tLAST\tFIRST "+
				"TIME\tLAST TIME"); err != nil {
				return err
			}
		}
		s := summaryOf(l)
		_, err := fmt.Fprintf(t, "%s\t%d\t%s\t%d\t%d\t%d\t%d\t%d\t%s\t%s\n", s.Log, s.Entries, humanize.IBytes(s.Bytes),
			s.Extents, s.Archived.Entries, s.Buffered.Entries, s.First, s.Last, s.FirstTime.Format(time.DateTime),
			s.LastTime.Format(time.DateTime))
		if rows++; err == nil && rows%alignedRows == 0 {
			err = t.Flush()
		}
		return err
	}
	return show, t.Flush
}

// summary is what ls and stat say of a log.
type summary struct {
	Log       string    `json:"log"`
	Entries   uint64    `json:"entries"`
	Bytes     uint64    `json:"bytes"`
	Extents   uint64    `json:"extents"`
	First     uint64    `json:"first"`
	Last      uint64    `json:"last"`
	FirstTime time.Time `json:"first_time"`
	LastTime  time.Time `json:"last_time"`
	Archived  part      `json:"archived"`
	Buffered  part      `json:"buffered"`
}

type part struct {
	Entries uint64 `json:"entries"`
	Bytes   uint64 `json:"bytes"`
	First   uint64 `json:"first,omitempty"`
	Last    uint64 `json:"last,omitempty"`
}

func summaryOf(l wire.LogInfo) summary {
	a, b := l.Archived, l.Buffered
	s := summary{Log: l.Log, Entries: a.Entries + b.Entries, Bytes: a.Bytes + b.Bytes, Extents: l.Extents,
		Archived: part{a.Entries, a.Bytes, a.First, a.Last}, Buffered: part{b.Entries, b.Bytes, b.First, b.Last}}
	first, last := a, b
	if a.Entries == 0 {
		first = b
	}
	if b.Entries == 0 {
		last = a
	}
	s.First, s.Last = first.First, last.Last
	s.FirstTime, s.LastTime = time.Unix(0, first.MinTime).UTC(), time.Unix(0, last.MaxTime).UTC()
	return s
}

func newStatCommand() *cobra.Command {
	var output *choice
	cmd := &cobra.Command{
		Use:               "stat LOGID",
		Short:             "Show what is known of one log",
		Example:           `  dormouse stat acme.web`,
		Args:              usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := logid.Validate(args[0]); err != nil {
				return usageError{err}
			}
			l, err := statLog(cmd, args[0])
			if err != nil {
				return anotherWay(cmd, err)
			}
			if output.value == "json" {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(summaryOf(l))
			}
			return printStat(cmd.OutOrStdout(), summaryOf(l))
		},
	}
	output = addChoice(cmd, "output", "output format", "text", "json")
	addConnectFlags(cmd)
	addArchiveFlag(cmd, "bucket that has the archived part (default: the one that the server names)")
	addAloneFlag(cmd)
	return cmd
}

// statLog asks every shard, or a bucket alone.
func statLog(cmd *cobra.Command, log string) (wire.LogInfo, error) {
	bucketAlone, shut, err := aloneOf(cmd)
	if err != nil {
		return wire.LogInfo{}, err
	}
	defer shut()
	if bucketAlone != nil {
		return bucketAlone.Log(cmd.Context(), log)
	}
	nc, js, err := connect(cmd)
	if err != nil {
		return wire.LogInfo{}, err
	}
	defer nc.Close()
	open, closeArchive := archiveOf(cmd, js)
	defer closeArchive()
	owners, ctx := client.New(nc, js), cmd.Context() // which a refusal by NATS ends from here on
	sources, err := owners.Sources(ctx)
	if err != nil {
		return wire.LogInfo{}, err
	}
	for _, source := range sources {
		info, ok, err := reader.Log(ctx, owners, open, source, log)
		if err != nil || ok {
			return info, err
		}
	}
	return wire.LogInfo{}, fmt.Errorf("%w: %s (see 'dormouse ls')", client.ErrNoLog, log)
}

func printStat(w io.Writer, s summary) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(t, name+"\t"+format+"\n", args...) }
	row("log", "%s", s.Log)
	row("entries", "%d (%s)", s.Entries, humanize.IBytes(s.Bytes))
	row("sequences", "%d to %d", s.First, s.Last)
	row("times", "%s to %s", s.FirstTime.Format(time.RFC3339Nano), s.LastTime.Format(time.RFC3339Nano))
	row("archived", "%d entries (%s) in %d extents", s.Archived.Entries, humanize.IBytes(s.Archived.Bytes), s.Extents)
	row("buffered", "%d entries (%s)", s.Buffered.Entries, humanize.IBytes(s.Buffered.Bytes))
	return t.Flush() // tabwriter reports the errors of the writes here
}
