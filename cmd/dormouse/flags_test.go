package main

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"dormouse/internal/golden"
)

// TestFlagsOfServe: each flag is in one group of --help, and README's table is what they say.
func TestFlagsOfServe(t *testing.T) {
	const readme, begin, end = "../../README.md", "<!-- flags of serve -->\n", "<!-- end of flags -->"
	root := newRootCommand()
	serve, _, err := root.Find([]string{"serve"})
	if err != nil {
		t.Fatal(err)
	}
	groups := make(map[string]int)
	for _, group := range serveFlags {
		for _, name := range group.names {
			groups[name]++
		}
	}
	has := func(f *pflag.Flag) {
		if groups[f.Name] != 1 {
			t.Errorf("--%s is in %d groups of serveFlags", f.Name, groups[f.Name])
		}
		delete(groups, f.Name)
	}
	serve.LocalFlags().VisitAll(has)
	serve.InheritedFlags().VisitAll(has)
	for name := range groups {
		t.Errorf("serveFlags has --%s, which serve has not", name)
	}
	got, err := os.ReadFile(readme)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(got), begin)
	table, after, ended := strings.Cut(rest, end)
	if !ok || !ended {
		t.Fatalf("%s has no %q and %q", readme, begin, end)
	}
	want := flagTable(serve, serveFlags)
	if golden.Update() {
		if err := os.WriteFile(readme, slices.Concat([]byte(before), []byte(begin+want+end), []byte(after)),
			0o644); err != nil {
			t.Fatal(err)
		}
	} else if table != want {
		t.Errorf("%s has another table of flags: run `go test ./cmd/dormouse -run TestFlagsOfServe -update`", readme)
	}
	help := command(t.Context(), nil, "serve", "--help").out
	for _, group := range serveFlags {
		if !strings.Contains(help, "\n"+group.title+":\n") {
			t.Errorf("--help has no group %s", group.title)
		}
	}
}
