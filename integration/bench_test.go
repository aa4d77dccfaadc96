package integration

import (
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"

	"dormouse/integration/bench"
)

// TestBench runs two small scenarios of the benchmark, of which the short form has one: it must measure all that they
// promise, and clean up behind itself.
func TestBench(t *testing.T) {
	t.Parallel()
	want := map[string]bool{ // and whether it has a baseline
		"drain: claim to last commit": true, "drain: peak memory": false, "drain: peak goroutines": false,
	}
	args := []string{"bench", "--short", "--entries", "2000", "--logs", "1000", "--json", "drain"}
	if !testing.Short() {
		args = append(args, "read")
		want["read: fetched"], want["read: time to first entry"] = true, false
	}
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), binary, append(args, "--dir", dir)...)
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
