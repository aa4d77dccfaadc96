package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"dormouse/internal/logid"
	"dormouse/internal/wire"
	"dormouse/store/policies"
)

func newPolicyLsCommand() *cobra.Command {
	var output *choice
	var history bool
	cmd := &cobra.Command{
		Use:   "ls [LOGID]",
		Short: "List policies, or those of one log",
		Long: `Ls lists the policies, those that fit best first. With a LOGID it lists those that match, and what comes of
them: for each setting the first that has it. --history shows the last few policies of each pattern, also of those that
were removed, so that a mistake can be taken back with 'dormouse policy set'.

` + patternHelp,
		Example: `  dormouse policy ls
  dormouse policy ls iot.berlin.temperature
  dormouse policy ls --output json | jq '.policies[]'`,
		Args:              usageArgs(cobra.MaximumNArgs(1)),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			log := ""
			if len(args) > 0 {
				if log = args[0]; logid.Validate(log) != nil {
					return usageError{logid.Validate(log)}
				}
			}
			nc, bucket, err := openPolicies(cmd)
			if err != nil {
				return err
			}
			defer nc.Close()
			read := bucket.List
			if history {
				read = bucket.History
			}
			all, err := read(cmd.Context())
			if err != nil {
				return err
			}
			report := policiesOf(all, log)
			if log != "" && !history {
				set, _, err := policies.InForce(all)
				if err != nil {
					return err
				}
				p := wordsOf(set.Lookup(log))
				report.Effective = &p
			}
			if output.value == "json" {
				_, err = fmt.Fprintln(cmd.OutOrStdout(), unescaped(report, "  "))
				return err
			}
			return report.print(cmd.OutOrStdout())
		},
	}
	cmd.Flags().BoolVar(&history, "history", false, "also what the policies were before, and those that were removed")
	output = addChoice(cmd, "output", "output format", "table", "json")
	addConnectFlags(cmd)
	return cmd
}

// policyReport is what policy ls prints; its JSON form is for scripts.
type policyReport struct {
	Policies []policyRow `json:"policies"`
	Log      string      `json:"log,omitempty"`
	// Effective is what comes of all policies for Log.
	Effective *policyWords `json:"effective,omitempty"`
}

type policyRow struct {
	Pattern string `json:"pattern"`
	policyWords
	By      string    `json:"by,omitempty"`
	At      time.Time `json:"at"`
	Removed bool      `json:"removed,omitempty"`
	Fault   string    `json:"fault,omitempty"` // why it cannot be read
}

// policiesOf reports all policies, or those that match a log.
func policiesOf(all []policies.Kept, log string) policyReport {
	r := policyReport{Policies: []policyRow{}, Log: log}
	for _, k := range all {
		if log != "" && (k.Pattern == "" || !k.Pattern.Matches(log)) {
			continue
		}
		row := policyRow{Pattern: string(k.Pattern), policyWords: wordsOf(k.Policy), By: k.By, At: k.At.UTC(),
			Removed: k.Removed}
		if k.Fault != nil {
			row.Fault = k.Fault.Error()
		}
		r.Policies = append(r.Policies, row)
	}
	return r
}

// print writes a table for people.
func (r policyReport) print(w io.Writer) error {
	dash := func(s string) string {
		if s == "" {
			return "-"
		}
		return s
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "PATTERN\tKEEP\tMAX-DELAY\tMAX-BYTES\tRATE\tSET\tBY\t")
	for _, p := range r.Policies {
		note := ""
		switch {
		case p.Fault != "":
			note = "cannot be read, and nothing of its logs expires: " + wire.Printable(p.Fault)
		case p.Removed:
			note = "removed"
		case p.KeepBytes > 0:
			note = "keep-bytes " + sizeWord(p.KeepBytes)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", dash(wire.Printable(p.Pattern)), dash(p.Keep),
			dash(p.MaxDelay), dash(sizeWord(p.MaxBytes)), dash(numberWord(p.Rate)), p.At.Format(time.DateTime),
			dash(wire.Printable(p.By)), note)
	}
	if err := t.Flush(); err != nil || r.Effective == nil { // tabwriter reports the errors of the writes here
		return err
	}
	_, err := fmt.Fprintf(w, "\n%s: %s\n", wire.Printable(r.Log), r.Effective)
	return err
}
