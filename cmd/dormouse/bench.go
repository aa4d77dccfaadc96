package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"dormouse/integration/bench"
)

func newBenchCommand() *cobra.Command {
	cfg := bench.Full()
	short, asJSON := false, false
	cmd := &cobra.Command{
		Use:   "bench [SCENARIO...]",
		Short: "Measure this machine: sleeping logs, speed, lateness, packing, beside what others do",
		Long: `Bench starts this program in processes of its own, in temporary directories, loads them and measures each from
outside. Each figure is the median over --runs, beside a baseline of the same run where there is one, and what it was
built to reach on 2 cores. The full run takes about an hour; do nothing else on the machine meanwhile. --short takes
minutes.

Scenarios:
` + scenarioList(cfg),
		Example: `  dormouse bench --short
  dormouse bench drain hot --runs 5
  dormouse bench sleep-1M --logs 1000000 --json > sleep.json`,
		Args: usageArgs(cobra.ArbitraryArgs),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return bench.Names(cfg), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if short {
				preset := bench.Short()
				preset.Dir, preset.Keep = cfg.Dir, cfg.Keep
				keepChanged(cmd, &preset, cfg)
				cfg = preset
			}
			var err error
			if cfg.NATSURL, err = cmd.Flags().GetString("nats-url"); err != nil {
				return err
			}
			if _, err := parseServers(cfg.NATSURL); cfg.NATSURL != "" && err != nil {
				return usageErrorf("--nats-url: %w", err)
			}
			if err := bench.Check(cfg, args); err != nil {
				return usageError{err}
			}
			program, err := os.Executable()
			if err != nil {
				return fmt.Errorf("finding this program: %w", err)
			}
			cfg.Program = []string{program}
			var end func()
			cfg.Step, end = steps(cmd)
			defer end()
			report, flush := benchTable(cmd.OutOrStdout())
			if asJSON {
				enc := json.NewEncoder(cmd.OutOrStdout())
				report, flush = func(figures []bench.Figure) error {
					for _, f := range figures {
						if err := enc.Encode(f); err != nil {
							return err
						}
					}
					return nil
				}, func() error { return nil }
			}
			if err := bench.Run(cmd.Context(), cfg, args, report); err != nil {
				return err
			}
			return flush()
		},
	}
	f := cmd.Flags()
	f.BoolVar(&short, "short", false, "a run of a few minutes: fewer logs and entries, one run")
	f.BoolVar(&asJSON, "json", false, "one JSON object per figure and line")
	f.IntVar(&cfg.Runs, "runs", cfg.Runs, "runs of each scenario")
	f.IntSliceVar(&cfg.Logs, "logs", cfg.Logs, "numbers of sleeping logs")
	f.IntVar(&cfg.Entries, "entries", cfg.Entries, "entries of the drain, hot and delay scenarios")
	f.DurationVar(&cfg.Idle, "idle", cfg.Idle, "how long a sleeping process is watched")
	f.DurationVar(&cfg.Steady, "steady", cfg.Steady, "how long the load of the delay scenario lasts")
	f.StringVar(&cfg.Dir, "dir", "", "where temporary directories are made (default the system's)")
	f.BoolVar(&cfg.Keep, "keep", false, "leave the temporary directories behind")
	f.String("nats-url", "", "a NATS with JetStream and without Dormouse, instead of an embedded one; its streams are "+
		"deleted after each run")
	cmd.AddCommand(newBaselineCommand())
	return cmd
}

// keepChanged takes the flags that were given over into a preset.
func keepChanged(cmd *cobra.Command, preset *bench.Config, given bench.Config) {
	for name, take := range map[string]func(){
		"runs": func() { preset.Runs = given.Runs }, "logs": func() { preset.Logs = given.Logs },
		"entries": func() { preset.Entries = given.Entries }, "idle": func() { preset.Idle = given.Idle },
		"steady": func() { preset.Steady = given.Steady },
	} {
		if cmd.Flags().Changed(name) {
			take()
		}
	}
}

func scenarioList(cfg bench.Config) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, name := range bench.Names(cfg) {
		fmt.Fprintln(w, "  "+name)
	}
	_ = w.Flush() // into memory
	return strings.TrimRight(b.String(), "\n")
}

// newBaselineCommand is what bench starts for a baseline that needs a process of its own.
func newBaselineCommand() *cobra.Command {
	return &cobra.Command{
		Use: "baseline NAME ARG", Hidden: true,
		Args: usageArgs(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			baseline, ok := bench.Baselines[args[0]]
			if !ok {
				return usageErrorf("no baseline %q: there are %s", args[0],
					strings.Join(slices.Sorted(maps.Keys(bench.Baselines)), ", "))
			}
			return baseline(cmd.Context(), args[1], cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
}

// benchTable prints the figures of a scenario as an aligned block.
func benchTable(out io.Writer) (report func([]bench.Figure) error, flush func() error) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	report = func(figures []bench.Figure) error {
		fmt.Fprintln(w, "SCENARIO\tFIGURE\tMEDIAN\tMIN..MAX\tBASELINE\tRATIO\tBUILT FOR\t")
		for _, f := range figures {
			between, baseline, ratio, verdict := "", "", "", ""
			if f.Min != f.Max {
				between = number(f.Min) + ".." + number(f.Max)
			}
			if f.BaselineName != "" {
				baseline = number(f.Baseline) + " (" + f.BaselineName + ")"
				ratio = number(f.Ratio)
			}
			if f.Met != nil {
				verdict = "met"
				if !*f.Met {
					verdict = "MISSED"
				}
			}
			fmt.Fprintf(w, "%s\t%s\t%s %s\t%s\t%s\t%s\t%s\t%s\n", f.Scenario, f.Name, number(f.Value), f.Unit, between, baseline,
				ratio, f.Target, verdict)
		}
		fmt.Fprintln(w)
		return w.Flush() // the first write error shows here
	}
	return report, w.Flush
}

// number prints three significant digits, or all of a whole part.
func number(v float64) string {
	if a := math.Abs(v); a >= 100 {
		return humanize.Comma(int64(math.Round(v)))
	}
	return fmt.Sprintf("%.3g", v)
}
