package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestReport: what passes is a line for its package, and of what fails nothing is missing.
func TestReport(t *testing.T) {
	var events strings.Builder
	tell := func(e event) {
		if err := json.NewEncoder(&events).Encode(e); err != nil {
			t.Fatal(err)
		}
	}
	const good, bad, broken = "dormouse/good", "dormouse/bad", "dormouse/broken"
	for _, e := range []event{
		{Action: "start", Package: good}, {Action: "run", Package: good, Test: "TestA"},
		{Action: "output", Package: good, Test: "TestA", Output: "chatter\n"},
		{Action: "start", Package: bad}, {Action: "run", Package: bad, Test: "TestB"},
		{Action: "run", Package: bad, Test: "TestB/sub"},
		{Action: "output", Package: bad, Test: "TestB/sub", Output: "why it failed\n"},
		{Action: "fail", Package: bad, Test: "TestB/sub"},
		{Action: "fail", Package: bad, Test: "TestB"}, {Action: "run", Package: bad, Test: "TestHangs"},
		{Action: "output", Package: bad, Test: "TestHangs", Output: "what it last said\n"},
		{Action: "output", Package: bad, Output: "panic: timed out\n"},
		{Action: "pass", Package: good, Test: "TestA", Elapsed: 2}, {Action: "pass", Package: good, Elapsed: 3},
		{Action: "fail", Package: bad, Elapsed: 9},
		{Action: "build-output", ImportPath: broken + " [x]", Output: "undefined: x\n"},
		{Action: "build-fail", ImportPath: broken + " [x]"},
		{Action: "start", Package: broken}, {Action: "fail", Package: broken, FailedBuild: broken + " [x]"},
		{Action: "pass", Package: "dormouse/none"},
	} {
		tell(e)
	}
	events.WriteString("no event\n")
	var out strings.Builder
	if !report(strings.NewReader(events.String()), &out) {
		t.Error("nothing failed")
	}
	for _, want := range []string{"ok    good", "1 tests, the slowest TestA 2 s", "FAIL  bad", "why it failed",
		"what it last said", "panic: timed out",
		"undefined: x", "bad TestB/sub", "no event"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing", want)
		}
	}
	if strings.Contains(out.String(), "chatter") || strings.Contains(out.String(), "none") {
		t.Error("what passes is shown")
	}
	if t.Failed() {
		t.Log(out.String())
	}
	out.Reset()
	if report(strings.NewReader(`{"Action":"pass","Package":"dormouse/good"}`), &out) ||
		!strings.Contains(out.String(), "0 tests passed") {
		t.Errorf("all is well, and the report is %s", out.String())
	}
}

func TestLongForms(t *testing.T) {
	dir := t.TempDir()
	code := "package x\nfunc TestA(t *testing.T) { if testing.Short() { n = 1 } }\nfunc TestB(t *testing.T) { " +
		"t.helper() }\n" + "func (x) TestC() { testing.Short() }\nfunc TestD(t *testing.T) { start(t).run() }\nfunc " +
		"start(t *testing.T) x { return helper() }\n" +
		"func helper() x { if testing.Short() { start(nil) } }\n"
	if err := os.WriteFile(filepath.Join(dir, "x_test.go"), []byte(code), 0o600); err != nil {
		t.Fatal(err)
	}
	if names, err := longIn(dir); err != nil || !slices.Equal(slices.Sorted(slices.Values(names)),
		[]string{"TestA", "TestD"}) {
		t.Errorf("the long forms are %v, %v", names, err)
	}
}
