package bench

import (
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestQuantile(t *testing.T) {
	for _, tc := range []struct {
		values []float64
		q      float64
		want   float64
	}{
		{nil, 0.5, 0}, {[]float64{7}, 0.99, 7}, {[]float64{3, 1, 2}, 0.5, 2}, {[]float64{4, 1, 2, 3}, 0.5, 2.5},
		{[]float64{5, 4, 3, 2, 1, 10, 9, 8, 7, 6}, 0.9, 10}, {[]float64{2, 1}, 1, 2}, {[]float64{2, 1}, 0, 1},
	} {
		if got := quantile(tc.values, tc.q); got != tc.want {
			t.Errorf("the %g-quantile of %v is %g, want %g", tc.q, tc.values, got, tc.want)
		}
	}
}

// TestFigures: medians over the runs, ratios taken run by run, and targets that can be missed.
func TestFigures(t *testing.T) {
	one := func(value, baseline float64) []sample {
		return []sample{
			{name: "rate", unit: "entries/s", value: value, baselineName: "bare", baseline: baseline, target: ratioAtLeast(0.5)},
			{name: "memory", unit: "MiB", value: value, target: atMost(10)},
			{name: "logs", value: value, target: atLeast(10)},
		}
	}
	figures := summarize("s", [][]sample{one(10, 100), one(30, 50), one(20, 100)})
	if len(figures) != 3 {
		t.Fatalf("%d figures", len(figures))
	}
	rate, memory, logs := figures[0], figures[1], figures[2]
	if rate.Value != 20 || rate.Min != 10 || rate.Max != 30 || rate.Baseline != 100 || rate.Ratio != 0.2 || *rate.Met {
		t.Errorf("rate: %+v, met %v", rate, *rate.Met)
	}
	if *memory.Met || !*logs.Met {
		t.Errorf("20 is at least 10 and not at most: %v, %v", *memory.Met, *logs.Met)
	}
	if figures = summarize("s", [][]sample{one(10, 20)}); !*figures[0].Met || !*figures[1].Met || !*figures[2].Met {
		t.Error("a figure at its bound meets it")
	}
}

func TestConfigIsChecked(t *testing.T) {
	for _, cfg := range []Config{Short(), Full()} {
		var names []string
		for _, described := range Names(cfg) {
			name, _, _ := strings.Cut(described, "\t")
			names = append(names, name)
		}
		if err := Check(cfg, names); err != nil {
			t.Error(err)
		}
	}
	for name, change := range map[string]func(*Config){
		"runs": func(c *Config) { c.Runs = 0 }, "entries": func(c *Config) { c.Entries = 1 },
		"logs": func(c *Config) { c.Logs = []int{100_000, 10} }, "idle": func(c *Config) { c.Idle = -time.Second },
	} {
		cfg := Short()
		if change(&cfg); Check(cfg, nil) == nil {
			t.Errorf("%s: a wrong value passed", name)
		}
	}
	if Check(Short(), []string{"drain", "nonsense"}) == nil {
		t.Error("a scenario that is none passed")
	}
}

// TestGoroutinesOfTheBaselineAreCounted: its figure is what was seen, not what was asked for.
func TestGoroutinesOfTheBaselineAreCounted(t *testing.T) {
	var out strings.Builder
	if err := goroutinePerLog(t.Context(), "1000", strings.NewReader(""), &out); err != nil {
		t.Fatal(err)
	}
	begin, counted, _ := strings.Cut(strings.TrimSpace(out.String()), "\n")
	if n, err := strconv.Atoi(counted); begin != "begin" || err != nil || n <= 1000 {
		t.Errorf("the baseline printed %q, want a count above 1000, %v", out.String(), err)
	}
}

// TestEveryLogIsWritten: the shuffled order leaves none out.
func TestEveryLogIsWritten(t *testing.T) {
	const n = 1000
	subject, seen := shuffled(n), make(map[string]int)
	for i := range 3 * n {
		seen[subject(i)]++
	}
	for i := range n {
		if seen[subjectOf(i)] != 3 {
			t.Fatalf("%s was written %d times in three rounds", subjectOf(i), seen[subjectOf(i)])
		}
	}
	if size := len(payloads(256)(5)); size != 256 {
		t.Errorf("a payload of 256 bytes has %d", size)
	}
}
