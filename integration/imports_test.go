package integration

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "dormouse/"

// mayImport says which of our own folders a folder may import, tests left aside. Arrows point one way; ingest and
// workers do not know each other. integration is the benchmark: it starts the program as a process of its own, so that
// it knows neither.
var mayImport = map[string][]string{
	"cmd":         {"cmd", "ingest", "workers", "scheduler", "store", "internal", "integration"},
	"integration": {"integration", "scheduler", "store", "internal"},
	"ingest":      {"ingest", "scheduler", "store", "internal"},
	"workers":     {"workers", "scheduler", "store", "internal"},
	"scheduler":   {"scheduler", "store", "internal"},
	"store":       {"store", "internal"},
	"internal":    {"internal"},
}

// mustNotImport names packages that a folder has no business with: the scheduler stays pure, and
// what travels between processes stays light.
var mustNotImport = map[string][]string{
	"scheduler": {"github.com/nats-io/", "github.com/cockroachdb/pebble"},
	// Who should own a shard, and owning one: package ingest alone joins the two.
	"ingest/membership": {"dormouse/ingest", "dormouse/scheduler", "dormouse/store", "github.com/cockroachdb/pebble"},
	"ingest/shard":      {"dormouse/ingest/membership"},
	"ingest/ingesttest": {"dormouse/ingest", "dormouse/scheduler"},
	"internal/wire":     {"github.com/nats-io/", "github.com/cockroachdb/pebble"},
	"internal/entry":    {"github.com/nats-io/nats-server", "github.com/cockroachdb/pebble"},
	// What is true knows nothing of what can be rebuilt from it, and who asks owners knows no bucket.
	"store/bucket": {"dormouse/store/cache", "dormouse/store/client", "dormouse/store/reader"},
	"store/segment": {"dormouse/store/cache", "dormouse/store/client", "dormouse/store/reader",
		"dormouse/store/bucket"},
	"store/manifest": {"dormouse/store/cache", "dormouse/store/client", "dormouse/store/reader",
		"dormouse/store/bucket"},
	"store/cache": {"dormouse/store/client", "dormouse/store/reader", "dormouse/store/bucket"},
	"store/client": {"dormouse/store/bucket", "dormouse/store/segment", "dormouse/store/reader",
		"dormouse/store/cache"},
	"store/verify":      {"dormouse/store/reader"},
	"store/policies":    {"dormouse/store/", "github.com/cockroachdb/pebble"},
	"internal/policy":   {"github.com/nats-io/", "github.com/cockroachdb/pebble"},
	"cmd":               toolsOfTests,
	"integration/bench": toolsOfTests,
	// It judges the program from outside.
	"internal/proc": {"dormouse/"},
	"internal/programtest": {"dormouse/cmd", "dormouse/ingest", "dormouse/workers", "dormouse/scheduler",
		"dormouse/store", "dormouse/integration"},
}

// toolsOfTests must not be in what is released.
var toolsOfTests = []string{"dormouse/integration/relay", "dormouse/internal/golden", "dormouse/internal/metricdoc",
	"dormouse/internal/natstest", "dormouse/internal/programtest", "dormouse/store/storetest",
	"dormouse/store/bucket/buckettest", "dormouse/ingest/ingesttest"}

// TestImportDirections asserts the direction of imports from `go list`.
func TestImportDirections(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=Dir,GoFiles,ImportPath,Imports", "dormouse/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for decoder := json.NewDecoder(strings.NewReader(string(out))); decoder.More(); {
		var p struct {
			Dir, ImportPath  string
			GoFiles, Imports []string
		}
		if err := decoder.Decode(&p); err != nil {
			t.Fatal(err)
		}
		touch(t, filepath.Dir(p.Dir), p.Dir)
		for _, file := range p.GoFiles {
			touch(t, filepath.Join(p.Dir, file))
		}
		path := strings.TrimPrefix(p.ImportPath, module)
		folder, _, _ := strings.Cut(path, "/")
		allowed, known := mayImport[folder]
		if !known {
			continue // deploy holds tests only
		}
		seen++
		for _, imported := range p.Imports {
			if own, ok := strings.CutPrefix(imported, module); ok {
				if to, _, _ := strings.Cut(own, "/"); !slices.Contains(allowed, to) {
					t.Errorf("%s imports %s: %s may import only %v", path, own, folder, allowed)
				}
			}
			for where, banned := range mustNotImport {
				for _, b := range banned {
					if (path == where || strings.HasPrefix(path, where+"/")) && strings.HasPrefix(imported, b) {
						t.Errorf("%s imports %s, which %s must not know", path, imported, where)
					}
				}
			}
		}
	}
	if seen < len(mayImport) {
		t.Errorf("go list showed only %d packages", seen)
	}
}

// touch looks at paths so that go test runs the test again when they change. What go list reads it does not know of.
func touch(t *testing.T, paths ...string) {
	t.Helper()
	for _, path := range paths {
		if _, err := os.Stat(path); err != nil {
			t.Fatal(err)
		}
	}
}

// TestReleaseHasNoTools: what is released has no S3 server and nothing of tests in it.
func TestReleaseHasNoTools(t *testing.T) {
	out, err := exec.Command("go", "list", "-tags", "clouds,release", "-deps", "dormouse/cmd/dormouse").Output()
	if err != nil {
		t.Fatal(err)
	}
	deps := strings.Fields(string(out))
	for _, tool := range append([]string{"testing", "net/http/httptest", "github.com/johannesboyne/gofakes3",
		"go.uber.org/goleak"}, toolsOfTests...) {
		if slices.Contains(deps, tool) {
			t.Errorf("%s is released", tool)
		}
	}
	if !slices.Contains(deps, "gocloud.dev/blob/gcsblob") {
		t.Errorf("of %d packages none is the driver of a cloud: is that what is released?", len(deps))
	}
}
