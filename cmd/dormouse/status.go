package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"dormouse/internal/shardid"
	"dormouse/internal/topology"
	"dormouse/internal/wire"
	"dormouse/store/client"
)

func newStatusCommand() *cobra.Command {
	var output *choice
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show processes, shards, owners and the queue",
		Long: `Status asks every process of a system and JetStream, and shows the processes that answer, for each shard its
owner, its epoch and how far the archive is behind the stream, and the queue of logs that wait for workers. LAG counts
the sequences that are not archived, OLDEST is the age of the first of them; <= marks what is known without an owner.

What is wrong comes first, a line each with what to try: a shard without an owner, a process that is dead, frozen or
cut off and so does not answer, a bucket that fails, processes with different archives, a subject mapping that is
missing. To see whether tenants' entries arrive it publishes messages to logs.dormouse-check-... that no stream stores,
if it may.

Exit codes: 0 all is well, 1 there are problems (or no answer from NATS), 2 wrong usage.`,
		Example: `  dormouse status
  dormouse status --output json | jq -r '.problems[]'
  watch -n 2 dormouse status --nats-context prod`,
		Args:              usageArgs(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			nc, js, err := connect(cmd)
			if err != nil {
				return err
			}
			defer nc.Close()
			s, err := client.New(nc, js).Status(cmd.Context())
			if err != nil {
				return err
			}
			report := reportOf(s, time.Now())
			report.addMapping(cmd, s)
			if output.value == "json" {
				_, err = fmt.Fprintln(cmd.OutOrStdout(), unescaped(report, "  "))
			} else {
				err = report.print(cmd.OutOrStdout())
			}
			return errors.Join(err, problemsError(report.Problems))
		},
	}
	output = addChoice(cmd, "output", "output format", "table", "json")
	addConnectFlags(cmd)
	return cmd
}

// statusReport is what status prints; its JSON form is for scripts.
type statusReport struct {
	Problems  []string           `json:"problems"`
	Processes []processReport    `json:"processes"`
	Shards    []shardReport      `json:"shards"`
	Queue     client.QueueStatus `json:"queue"`
	// whether tenants' entries reach their shards; "" where there is only one
	Mapping string `json:"mapping,omitempty"`
}

type processReport struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"` // what logs and leases call it
	Host    string    `json:"host"`
	Roles   []string  `json:"roles"`
	Version string    `json:"version"`
	Started time.Time `json:"started"`
	HTTP    string    `json:"http"`
	Archive string    `json:"archive"`
	Ready   bool      `json:"ready"`
	Shards  int       `json:"shards"` // owned
	Workers int       `json:"workers"`
	Busy    int       `json:"busy"`

	up time.Duration
}

type shardReport struct {
	Shard    shardid.Shard `json:"shard"`
	Stream   string        `json:"stream"`
	Leader   string        `json:"leader,omitempty"`
	Replicas int           `json:"replicas"`
	State    string        `json:"state"`
	Owner    string        `json:"owner"` // ID of the process that answers as the owner; "" when none does
	Holder   string        `json:"lease_holder,omitempty"`
	Name     string        `json:"holder_name,omitempty"` // what that process is called
	Epoch    uint64        `json:"epoch"`
	Messages uint64        `json:"messages"`
	Bytes    uint64        `json:"bytes"`
	Last     uint64        `json:"last"`
	Floor    uint64        `json:"floor"`
	Lag      uint64        `json:"lag"`                    // sequences of the stream that are not archived
	Bound    bool          `json:"lag_is_bound,omitempty"` // lag and oldest are not above this: no owner knows them
	Applied  uint64        `json:"applied,omitempty"`
	Logs     int           `json:"active_logs"`
	Buffered uint64        `json:"buffered_entries"`
	Queued   uint64        `json:"queued_items"`
	Full     bool          `json:"buffer_full,omitempty"` // the owner takes nothing in until workers have made room
	Stuck    *stuckReport  `json:"stuck,omitempty"`       // what the shard has not got past for longer than a lease
	// RecordsLeft and EntriesLeft are what a takeover still has to apply and to replay.
	RecordsLeft uint64     `json:"takeover_records,omitempty"`
	EntriesLeft uint64     `json:"takeover_entries,omitempty"`
	Oldest      *time.Time `json:"oldest,omitempty"` // arrival of the oldest entry that is not archived
	OldestAge   float64    `json:"oldest_age_seconds"`
}

func reportOf(s client.Status, now time.Time) statusReport {
	r := statusReport{Problems: problemsOf(s), Processes: []processReport{}, Shards: []shardReport{},
		Queue: s.Queue}
	for _, p := range s.Processes {
		one := processReport{ID: p.ID, Name: p.Name(), Archive: p.Archive, Ready: p.Bucket == "" && p.NotReady == "" &&
			!p.Looking, Host: p.Host, Roles: p.Roles, Version: p.Version, Started: p.Started, HTTP: p.HTTP,
			Workers: p.Workers, Busy: p.Busy, up: now.Sub(p.Started)}
		for _, shard := range p.Shards {
			if shard.State == wire.ShardOwned {
				one.Shards++
			}
		}
		r.Processes = append(r.Processes, one)
	}
	for _, shard := range s.Shards {
		one := shardReport{Shard: shard.Source.Shard, Stream: shard.Source.Stream, Leader: shard.Leader,
			Replicas: shard.Replicas, State: "unowned", Holder: shard.Holder, Name: shard.Name, Epoch: shard.Epoch,
			Messages: shard.Messages, Bytes: shard.Bytes,
			Last: shard.Last, Floor: shard.Floor, Lag: shard.Lag, Bound: shard.Bound, Queued: shard.Queued}
		switch owner := shard.Owner; {
		case owner != nil:
			one.State, one.Owner, one.Applied = string(owner.State), shard.Holder, owner.Applied
			one.Logs, one.Buffered = owner.Logs, owner.Entries
			one.RecordsLeft, one.EntriesLeft, one.Full = owner.RecordsLeft, owner.EntriesLeft, owner.Full
		case shard.Holder != "":
			one.State = "silent"
		}
		if stuck := stuckIn(s.Processes, one.Shard); stuck != nil {
			one.Stuck = &stuckReport{stuck.Seq, stuck.Subject, stuck.Since, stuck.Reason}
		}
		if !shard.Oldest.IsZero() {
			one.Oldest, one.OldestAge = &shard.Oldest, now.Sub(shard.Oldest).Seconds()
		}
		r.Shards = append(r.Shards, one)
	}
	return r
}

// stuckIn returns what a process says that a shard does not get past: its owner, or one that cannot own it.
func stuckIn(processes []wire.Process, shard shardid.Shard) *wire.Stuck {
	for _, p := range processes {
		for _, one := range p.Shards {
			if one.Shard == shard && one.Stuck != nil {
				return one.Stuck
			}
		}
	}
	return nil
}

// stuckReport is a wire.Stuck as scripts read it.
type stuckReport struct {
	Seq     uint64    `json:"seq"`
	Subject string    `json:"subject"`
	Since   time.Time `json:"since"`
	Reason  string    `json:"reason"`
}

// print writes tables for people.
func (r statusReport) print(w io.Writer) error {
	for i, problem := range r.Problems {
		end := "\n"
		if i == len(r.Problems)-1 {
			end = "\n\n"
		}
		if _, err := fmt.Fprint(w, "PROBLEM: ", problem, end); err != nil {
			return err
		}
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "PROCESS\tROLES\tVERSION\tUP\tSHARDS\tWORKERS\tBUSY\tHTTP\tARCHIVE")
	for _, p := range r.Processes {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%d\t%d\t%s\t%s\n", p.Name, wire.Printable(strings.Join(p.Roles, ",")),
			wire.Printable(p.Version), p.up.Round(time.Second), p.Shards, p.Workers, p.Busy, wire.Printable(p.HTTP),
			wire.Printable(p.Archive))
	}
	fmt.Fprintln(t, "\nSHARD\tSTREAM\tSTATE\tOWNER\tEPOCH\tMESSAGES\tFLOOR\tLAG\tLOGS\tBUFFERED\tQUEUED\tOLDEST\t")
	for _, s := range r.Shards {
		oldest, note, bound := "-", "", ""
		if s.Bound {
			bound = "<="
		}
		if s.Oldest != nil {
			oldest = bound + time.Duration(s.OldestAge*float64(time.Second)).Round(100*time.Millisecond).String()
		}
		switch {
		case s.Stuck != nil:
			note = fmt.Sprintf("stuck%s: %.300s", wire.Stuck{Seq: s.Stuck.Seq, Subject: s.Stuck.Subject}.At(), s.Stuck.Reason)
		case s.RecordsLeft > 0:
			note = fmt.Sprintf("taking over: %s manifest records to go", humanize.Comma(int64(s.RecordsLeft)))
		case s.EntriesLeft > 0:
			note = fmt.Sprintf("replaying: %s entries to go", humanize.Comma(int64(s.EntriesLeft)))
		case s.Full:
			note = "its owner's buffer is at its limit: waiting for workers"
		case s.Owner == "" && s.Holder != "":
			note = "its owner does not answer"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%d\t%d\t%s%d\t%d\t%d\t%d\t%s\t%s\n", s.Shard, s.Stream, wire.Printable(s.State),
			cmp.Or(s.Name, "-"), s.Epoch, s.Messages, s.Floor, bound, s.Lag, s.Logs, s.Buffered, s.Queued, oldest, note)
	}
	fmt.Fprintf(t, "\nQUEUE\tITEMS\tIN WORK\tWAITING PULLS\n\t%d\t%d\t%d\n", r.Queue.Items, r.Queue.InWork,
		r.Queue.Waiting)
	if err := t.Flush(); err != nil || r.Mapping == "" { // tabwriter reports the errors of the writes here
		return err
	}
	_, err := fmt.Fprintf(w, "\nMAPPING\n%s\n", r.Mapping)
	return err
}

// problemsError makes a command fail that has told of problems.
func problemsError(problems []string) error {
	switch len(problems) {
	case 0:
		return nil
	case 1:
		return errors.New("there is a problem, see above")
	default:
		return fmt.Errorf("there are %d problems, see above", len(problems))
	}
}

// mostProbes is how many shards status probes: what a mapping does to one tenant it does to all.
const mostProbes = 8

// addMapping says whether what tenants publish arrives. It has a connection of its own, so that credentials which may
// only read do for everything else.
func (r *statusReport) addMapping(cmd *cobra.Command, s client.Status) {
	var sources []topology.Source
	for _, shard := range s.Shards {
		sources = append(sources, shard.Source)
	}
	n := topology.Partitions(sources)
	if n == 0 {
		return
	}
	probed, err := probeApart(cmd, sources)
	switch {
	case err != nil:
		r.Mapping = fmt.Sprintf("not checked, these credentials may not publish (%v): see dormouse provision --check", err)
	case len(probed) > 0:
		r.Mapping = "tenants are not spread over their shards as they must be"
		for _, problem := range probed {
			r.Problems = append(r.Problems, problem+": see dormouse provision --check")
		}
	default:
		r.Mapping = fmt.Sprintf("tenants are spread over %d shards", n)
	}
}
