package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"

	"dormouse/internal/proc"
)

// TestRebuild: JetStream and the local disk are lost. What was archived is read from the bucket at once, and by a
// system that is made out of it, also through objects that nobody committed; new entries come above. Rebuild refuses a
// second time, and beside a process that runs.
func TestRebuild(t *testing.T) {
	for name, bucket := range map[string]func(t *testing.T) string{
		"file": func(t *testing.T) string { return "file://" + filepath.Join(t.TempDir(), "archive") },
		"s3":   func(t *testing.T) string { return startGateway(t).url },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			archive := bucket(t)
			in := newInstance(t, append([]string{"--archive", archive}, fast...)...).start()
			logs := []string{"t.a", "t.b", "u.c"}
			n := uint64(0)
			for round := range 4 {
				for _, log := range logs {
					in.must(lines(10, fmt.Sprintf("%s %d", log, round)), "publish", log)
					n += 10
				}
				in.awaitQuiet(n)
			}
			in.must("", "delete", "u.c", "--yes")
			in.must(lines(10, "since the checkpoint"), "publish", "t.a")
			in.awaitQuiet(n + 10)
			before := make(map[string]string)
			for _, log := range logs[:2] {
				before[log] = in.must("", "read", log, "--output", "jsonl")
			}
			rebuild := []string{"rebuild", "--archive", archive, "--quiet-for", "100ms"}
			if r := in.run("", rebuild...); r.Code != 1 || !strings.Contains(r.Err, "processes of this system run") {
				t.Errorf("beside a process: exit %d, %s", r.Code, r.Err)
			}
			if code := in.stop(); code != 0 {
				t.Fatalf("it ended with %d", code)
			}
			for _, lost := range []string{"nats", "pebble", "node-id"} {
				if err := os.RemoveAll(filepath.Join(in.data, lost)); err != nil {
					t.Fatal(err)
				}
			}
			if folder, isFolder := strings.CutPrefix(archive, "file://"); isFolder {
				orphan(t, filepath.Join(folder, "0"))
			}
			if out := in.must("", "ls", "--no-nats", "--archive", archive); !strings.Contains(out, "t.a") ||
				!strings.Contains(out, "t.b") || strings.Contains(out, "u.c") {
				t.Errorf("from the bucket alone ls says %s", out)
			}
			if said := in.ends(); !strings.Contains(said, "dormouse rebuild") {
				t.Errorf("serve ends with %s", said)
			}
			rebuild = append(rebuild, "--data", in.data)
			alone := proc.CLI{Binary: binary} // no address of a server
			if r := alone.Run(t.Context(), "", rebuild...); r.Code != 0 || !strings.Contains(r.Out, "the system is rebuilt") {
				t.Fatalf("rebuild: exit %d, %s%s", r.Code, r.Out, r.Err)
			}
			if r := alone.Run(t.Context(), "", rebuild...); r.Code != 1 || !strings.Contains(r.Err, "manifest is not empty") {
				t.Errorf("a second time: exit %d, %s", r.Code, r.Err)
			}
			in.start()
			in.goesOn(before, n+10)
		})
	}
}

// goesOn holds that a rebuilt system reads what there was, and takes more in above the sequences of so many entries.
func (in *instance) goesOn(before map[string]string, n uint64) {
	in.t.Helper()
	for log, want := range before {
		if got := in.must("", "read", log, "--output", "jsonl"); got != want {
			in.t.Errorf("%s reads %d lines, want %d", log, strings.Count(got, "\n"), strings.Count(want, "\n"))
		}
	}
	if r := in.run("", "read", "u.c"); r.Out != "" {
		in.t.Errorf("what was deleted reads %s", r.Out)
	}
	in.must(lines(10, "more"), "publish", "t.a")
	in.must(lines(10, "again"), "publish", "u.c")
	in.until("new entries to be archived", func() bool { return in.metrics()["dormouse_entries_synced_total"] == 20 })
	if got := in.must("", "read", "t.a", "--output", "jsonl"); !strings.HasPrefix(got, before["t.a"]) ||
		strings.Count(got, "\n") != strings.Count(before["t.a"], "\n")+10 {
		in.t.Errorf("with new entries it reads %s", got)
	}
	if got := in.must("", "read", "t.a", "--to", fmt.Sprint(n), "--output", "jsonl"); got != before["t.a"] {
		in.t.Errorf("new entries have sequences up to %d", n)
	}
	if got := in.must("", "read", "u.c"); strings.Count(got, "\n") != 10 {
		in.t.Errorf("what began again reads %s", got)
	}
	if out := in.must("", "verify"); !strings.Contains(out, ": 0 bad") {
		in.t.Errorf("verify says %s", out)
	}
	if lost := in.metrics()["dormouse_entries_lost_total"]; lost != 0 {
		in.t.Errorf("%v entries are counted as lost", lost)
	}
}

// orphan puts the newest segment a second time, as a worker does that died before it could commit it.
func orphan(t *testing.T, folder string) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(folder, "*.sst"))
	if err != nil || len(found) == 0 {
		t.Fatal(found, err)
	}
	data, err := os.ReadFile(found[len(found)-1])
	if err != nil {
		t.Fatal(err)
	}
	id, err := uuid.NewV7()
	if err == nil {
		err = os.WriteFile(filepath.Join(folder, id.String()+".sst"), data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}
