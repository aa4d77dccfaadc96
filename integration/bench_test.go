package integration

import (
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"

	"dormouse/integration/bench"
)

// TestBench runs small scenarios of the benchmark, of which the short form has one: each must measure all that it
// promises, and clean up behind itself.
func TestBench(t *testing.T) {
	t.Parallel()
	measures(t, map[string]bool{
		"drain: claim to last commit": true, "drain: peak memory": false, "drain: peak goroutines": false,
	}, "--entries", "2000", "--logs", "1000", "drain")
	if testing.Short() {
		return
	}
	measures(t, map[string]bool{"read: fetched": true, "read: time to first entry": false},
		"--entries", "2000", "--logs", "1000", "read")
	measures(t, map[string]bool{ // with so many entries that several records are made of them
		"slow-bucket: 1 worker": false, "slow-bucket: 16 workers": true,
		"scale-workers: 1 worker process": false, "scale-workers: 4 worker processes": true,
	}, "--entries", "50000", "slow-bucket", "scale-workers")
}

// measures runs the benchmark, which must have these figures. Each says whether it has a baseline.
func measures(t *testing.T, want map[string]bool, args ...string) {
	t.Helper()
	dir := t.TempDir()
	args = append([]string{"bench", "--short", "--json", "--dir", dir}, args...)
	cmd := exec.CommandContext(t.Context(), binary, args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	for decoder := json.NewDecoder(strings.NewReader(string(out))); decoder.More(); {
		var f bench.Figure
		if err := decoder.Decode(&f); err != nil {
			t.Fatalf("%v in\n%s", err, out)
		}
		name := f.Scenario + ": " + f.Name
		if f.Value <= 0 || f.Min > f.Value || f.Max < f.Value {
			t.Errorf("%s is %g, from %g to %g", name, f.Value, f.Min, f.Max)
		}
		if compared, known := want[name]; known && compared != (f.Baseline > 0 && f.Ratio > 0) {
			t.Errorf("%s has baseline %g and ratio %g", name, f.Baseline, f.Ratio)
		}
		delete(want, name)
	}
	if len(want) > 0 {
		t.Errorf("not measured: %v; what was:\n%s", want, out)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
