package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dormouse/internal/proc"
)

// deleting is a system whose tenants are deleted.
type deleting struct {
	*instance
	archive string
	written float64 // entries since the process began
}

// write publishes a line to each log and waits until all of them are archived.
func (d *deleting) write(line string, logs ...string) {
	d.t.Helper()
	for _, log := range logs {
		d.must(line+"\n", "publish", log)
		d.written++
	}
}

func (d *deleting) settled() {
	d.t.Helper()
	d.until("all to be archived", func() bool {
		return d.metrics()["dormouse_entries_synced_total"] == d.written
	})
}

// reads holds that a log is, or is not, read, with NATS and without.
func (d *deleting) reads(when, log, want string) {
	d.t.Helper()
	for _, args := range [][]string{{"read", log}, {"read", log, "--no-nats", "--archive", d.archive}} {
		got := d.anyhow(args...)
		if strings.Join(strings.Fields(got.Out), " ") != want || want == "" && got.Code == 0 && got.Out != "" {
			d.t.Errorf("%s: %v has %q, want %q; %s", when, args, got.Out, want, got.Err)
		}
	}
}

// anyhow runs a command that need not succeed.
func (d *deleting) anyhow(args ...string) proc.Result {
	d.t.Helper()
	return d.run("", args...)
}

// absent holds that verify --absent finds what is there, and nothing else.
func (d *deleting) absent(when, pattern string, want bool) {
	d.t.Helper()
	got := d.anyhow("verify", "--absent", pattern, "--no-nats", "--archive", d.archive)
	if (got.Code == 0) != want {
		d.t.Errorf("%s: %s is absent: %d, %s%s", when, pattern, got.Code, got.Out, got.Err)
	}
}

// TestDelete: a tenant is gone from reads when delete returns and from the bucket when --wait does, also through kill
// -9 and the loss of the local disk right behind it; others stay, and the tenant can begin again.
func TestDelete(t *testing.T) {
	for name, bucket := range map[string]func(t *testing.T) string{
		"file": func(t *testing.T) string { return "file://" + filepath.Join(t.TempDir(), "archive") },
		"s3":   func(t *testing.T) string { return startGateway(t).url },
	} {
		t.Run(name, func(t *testing.T) {
			archive := bucket(t)
			d := &deleting{instance: newInstance(t, "--max-delay", "300ms", "--gc-grace", "4s", "--archive", archive),
				archive: archive}
			d.start()
			d.write("one", "acme.web", "acme.db", "beta.x")
			d.settled()
			d.write("two", "acme.web", "beta.x")
			d.settled()
			d.write("three", "acme.web") // buffered, or in the hands of a worker
			d.absent("before", "acme.>", false)
			d.must("", "delete", "acme.>", "--yes")
			d.reads("when it returns", "acme.web", "")
			d.reads("when it returns", "acme.db", "")
			d.reads("when it returns", "beta.x", "one two")
			d.kill()
			d.written = 0
			if err := os.RemoveAll(filepath.Join(d.data, "pebble")); err != nil {
				t.Fatal(err)
			}
			d.start()
			d.reads("after a crash", "acme.web", "")
			d.write("again", "acme.web")
			d.settled()
			d.reads("when it began again", "acme.web", "again")
			d.must("", "delete", "acme.>", "--wait", "--yes")
			d.absent("when the wait is over", "acme.>", true)
			d.absent("when the wait is over", "beta.>", false)
			d.reads("when the wait is over", "acme.web", "")
			d.reads("when the wait is over", "beta.x", "one two")
			if out := d.must("", "verify"); !strings.Contains(out, ": 0 bad") {
				t.Errorf("verify says %s", out)
			}
			if out := d.must("", "ls"); strings.Contains(out, "acme") || !strings.Contains(out, "beta.x") {
				t.Errorf("ls says %s", out)
			}
			d.must("", "gc")
			if out := d.must("", "gc", "--dry-run"); !strings.Contains(out, "shard 0: 0 objects") {
				t.Errorf("gc says %s", out)
			}
		})
	}
}
