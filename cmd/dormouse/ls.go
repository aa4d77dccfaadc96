package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"dormouse/internal/logid"
	"dormouse/internal/wire"
	"dormouse/store/client"
)

func newLsCommand() *cobra.Command {
	var output *choice
	cmd := &cobra.Command{
		Use:   "ls [PREFIX]",
		Short: "List logs, archived and still buffered",
		Long:  `Ls lists the logs whose LogID begins with PREFIX, ascending.`,
		Example: `  dormouse ls
  dormouse ls acme. --output jsonl | jq .log`,
		Args:              usageArgs(cobra.MaximumNArgs(1)),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			prefix := ""
			if len(args) > 0 {
				prefix = args[0]
			}
			nc, js, err := connect(cmd)
			if err != nil {
				return err
			}
			defer nc.Close()
			show, flush := lsTable(cmd.OutOrStdout())
			if output.value == "jsonl" {
				enc := json.NewEncoder(cmd.OutOrStdout())
				show, flush = func(l wire.LogInfo) error { return enc.Encode(summaryOf(l)) }, func() error { return nil }
			}
			for l, err := range client.New(nc, js).Logs(cmd.Context(), prefix) {
				if err == nil {
					err = show(l)
				}
				if err != nil {
					return errors.Join(flush(), err)
				}
			}
			return flush()
		},
	}
	output = addChoice(cmd, "output", "output format", "table", "jsonl")
	addConnectFlags(cmd)
	return cmd
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
			nc, js, err := connect(cmd)
			if err != nil {
				return err
			}
			defer nc.Close()
			l, err := statLog(cmd.Context(), client.New(nc, js), args[0])
			if err != nil {
				return err
			}
			if output.value == "json" {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(summaryOf(l))
			}
			return printStat(cmd.OutOrStdout(), summaryOf(l))
		},
	}
	output = addChoice(cmd, "output", "output format", "text", "json")
	addConnectFlags(cmd)
	return cmd
}

// statLog asks every shard.
func statLog(ctx context.Context, owners *client.Client, log string) (wire.LogInfo, error) {
	sources, err := owners.Sources(ctx)
	if err != nil {
		return wire.LogInfo{}, err
	}
	for _, source := range sources {
		info, ok, err := owners.Log(ctx, source.Shard, log)
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
