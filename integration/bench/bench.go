// Package bench measures a whole Dormouse process, as a user runs it, against what users run today.
//
// Each scenario starts the program in a process of its own on an empty directory, loads it over NATS and looks at it
// from outside: resident memory and processor time from the operating system, goroutines from /metrics, and when what
// was committed from the manifest. Baselines run on the same machine in the same run, in a process of their own too
// where memory counts. Open program.go for the process under test, scenarios.go for the list.
package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
)

// Config is what a Suite needs.
type Config struct {
	Program []string // command line of the program under test: `serve` and `bench baseline` are appended
	Dir     string   // where temporary directories are made; "" is the system's
	NATSURL string   // a NATS with JetStream that has no Dormouse streams yet; "" embeds one for each scenario

	Logs    []int         // numbers of sleeping logs, for idle and wake
	Entries int           // of drain, hot and delay
	Runs    int           // the figures are medians over these
	Idle    time.Duration // how long an idle process is watched
	Steady  time.Duration // how long the load of the delay scenario lasts

	Step func(what string) // told what is being done now; nil: nobody is
	Keep bool              // leave the temporary directories behind
}

// Short is a run of a few minutes that exercises every scenario.
func Short() Config {
	return Config{Logs: []int{20_000}, Entries: 50_000, Runs: 1, Idle: 5 * time.Second, Steady: 5 * time.Second}
}

// Full is the run whose figures are worth quoting.
func Full() Config {
	return Config{Logs: []int{100_000, 1_000_000}, Entries: 500_000, Runs: 3, Idle: 30 * time.Second,
		Steady: 20 * time.Second}
}

// Check returns what is wrong with a configuration or with the names of scenarios.
func Check(cfg Config, names []string) error {
	if _, err := choose(cfg, names); err != nil {
		return err
	}
	return cfg.check()
}

func (c *Config) check() error {
	switch {
	case c.Runs < 1 || c.Entries < 1000 || len(c.Logs) == 0 || slices.Min(c.Logs) < 1000:
		return errors.New("at least 1 run, 1000 entries and 1000 logs are needed")
	case c.Idle <= 0 || c.Steady <= 0:
		return errors.New("the times to watch and to load must be positive")
	}
	return nil
}

// Figure is one measured number: the median of all runs, with the smallest and the largest.
type Figure struct {
	Scenario string  `json:"scenario"`
	Name     string  `json:"name"`
	Unit     string  `json:"unit"`
	Value    float64 `json:"value"`
	Min      float64 `json:"min"`
	Max      float64 `json:"max"`

	BaselineName string  `json:"baseline_name,omitempty"`
	Baseline     float64 `json:"baseline,omitempty"` // median, same unit
	Ratio        float64 `json:"ratio,omitempty"`    // median over the runs of Value / Baseline

	Target string `json:"target,omitempty"` // what it was built to reach
	Met    *bool  `json:"met,omitempty"`    // whether the median does
}

// sample is a Figure of one run.
type sample struct {
	name, unit   string
	value        float64
	baselineName string
	baseline     float64
	target       *target
}

// target is a bound of a figure or, with ofRatio, of its ratio to the baseline.
type target struct {
	atMost, ofRatio bool
	bound           float64
}

func atMost(bound float64) *target       { return &target{atMost: true, bound: bound} }
func atLeast(bound float64) *target      { return &target{bound: bound} }
func ratioAtLeast(bound float64) *target { return &target{ofRatio: true, bound: bound} }

func (t target) String() string {
	sign, what := "≥", ""
	if t.atMost {
		sign = "≤"
	}
	if t.ofRatio {
		what = " of baseline"
	}
	return fmt.Sprintf("%s %g%s", sign, t.bound, what)
}

func (t target) met(f Figure) *bool {
	value := f.Value
	if t.ofRatio {
		value = f.Ratio
	}
	ok := value >= t.bound
	if t.atMost {
		ok = value <= t.bound
	}
	return &ok
}

// Run runs the named scenarios (all when none is named), each as often as the Config says, and hands the figures of
// each to report as soon as its last run is done.
func Run(ctx context.Context, cfg Config, names []string, report func([]Figure) error) error {
	if err := Check(cfg, names); err != nil {
		return err
	}
	if len(cfg.Program) == 0 {
		return errors.New("bench: no program to measure")
	}
	if cfg.Step == nil {
		cfg.Step = func(string) {}
	}
	chosen, err := choose(cfg, names)
	if err != nil {
		return err
	}
	for _, sc := range chosen {
		var runs [][]sample
		for n := range cfg.Runs {
			step := func(what string) { cfg.Step(fmt.Sprintf("%s, run %d of %d: %s", sc.name, n+1, cfg.Runs, what)) }
			samples, err := runOnce(ctx, cfg, sc, step)
			if err != nil {
				return fmt.Errorf("scenario %s: %w", sc.name, err)
			}
			runs = append(runs, samples)
		}
		if err := report(summarize(sc.name, runs)); err != nil {
			return err
		}
	}
	return nil
}

// runOnce runs a scenario once in a directory of its own.
func runOnce(ctx context.Context, cfg Config, sc scenario, step func(string)) (samples []sample, err error) {
	dir, err := os.MkdirTemp(cfg.Dir, "dormouse-bench-")
	if err != nil {
		return nil, fmt.Errorf("making a directory for the run: %w", err)
	}
	if !cfg.Keep {
		defer func() {
			if rerr := os.RemoveAll(dir); err == nil {
				err = rerr
			}
		}()
	}
	b := &run{Config: cfg, dir: dir, step: step}
	defer func() {
		if cerr := b.close(ctx); err == nil {
			err = cerr
		}
	}()
	err = sc.measure(ctx, b)
	return b.samples, err
}

// summarize makes figures out of the samples of all runs of a scenario, which all have the same samples.
func summarize(scenario string, runs [][]sample) []Figure {
	var figures []Figure
	for i, first := range runs[0] {
		var values, baselines, ratios []float64
		for _, samples := range runs {
			s := samples[i]
			values = append(values, s.value)
			baselines = append(baselines, s.baseline)
			if s.baseline != 0 {
				ratios = append(ratios, s.value/s.baseline)
			}
		}
		f := Figure{Scenario: scenario, Name: first.name, Unit: first.unit,
			Value: median(values), Min: slices.Min(values), Max: slices.Max(values),
			BaselineName: first.baselineName, Baseline: median(baselines), Ratio: median(ratios)}
		if first.target != nil {
			f.Target, f.Met = first.target.String(), first.target.met(f)
		}
		figures = append(figures, f)
	}
	return figures
}

func median(values []float64) float64 { return quantile(values, 0.5) }

// quantile returns the q-quantile by nearest rank, the middle of two for a median; 0 without values.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	if n := len(sorted); q == 0.5 && n%2 == 0 {
		return (sorted[n/2-1] + sorted[n/2]) / 2
	}
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}
