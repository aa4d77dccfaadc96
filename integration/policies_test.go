package integration

import (
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestPolicies: what is settled at run time is obeyed by all processes within seconds, for what waits already too,
// after a crash, and until it is removed.
func TestPolicies(t *testing.T) {
	t.Parallel()
	const soon = 5 * time.Second
	nats := shardedNATS(t, 2)
	args := append([]string{"--archive", "file://" + filepath.Join(t.TempDir(), "archive")}, fast...)
	args = append(args, "--max-delay", "1h")
	a, b := nats.instance(args...).start(), nats.instance(args...).start()
	a.until("even shares", func() bool { return a.owned() == 1 && b.owned() == 1 })
	_, js := dial(t, nats.addr)
	o := newOracle()
	waiting := func() (logs float64) {
		return a.metrics()["dormouse_logs_active"] + b.metrics()["dormouse_logs_active"]
	}
	publish := func(what string, logs []string) {
		t.Helper()
		before := waiting()
		publishAll(t, js, o, "logs", logs, 1, what)
		a.until("the entries to be taken in", func() bool { return waiting() == before+float64(len(logs)) })
	}
	within := func(what string, ok func() bool) {
		t.Helper()
		began := time.Now()
		a.until(what, ok)
		if took := time.Since(began); took > soon {
			t.Errorf("%s took %s, want at most %s", what, took.Round(time.Millisecond), soon)
		}
	}
	logs := tenantLogs(8, 2) // of both shards
	publish("first", logs)
	a.must("", "policy", "set", "*.log.0", "--max-delay", "1s")
	within("those of the pattern to be archived", func() bool { return waiting() == float64(len(logs)/2) })
	if a.metrics()["dormouse_policies"] != 1 || b.metrics()["dormouse_policies"] != 1 {
		t.Errorf("the processes know of %v and %v policies", a.metrics()["dormouse_policies"],
			b.metrics()["dormouse_policies"])
	}
	a.must("", "policy", "set", ">", "--max-bytes", "10")
	within("the others, which are full now", func() bool { return waiting() == 0 })

	a.must("", "policy", "rm", ">")
	a.kill()
	b.until("the takeover", func() bool { return b.owned() == 2 })
	b.kill()
	a.start().until("all shards", func() bool { return a.owned() == 2 })
	b = a
	waiting = func() float64 { return a.metrics()["dormouse_logs_active"] }
	publishAll(t, js, o, "logs", logs, 1, "second")
	within("those of the pattern to be archived after a restart", func() bool {
		// First that all have come: half of them may wait before that, too.
		return a.metrics()["dormouse_entries_ingested_total"] >= float64(len(logs)) && waiting() == float64(len(logs)/2)
	})

	a.must("", "policy", "rm", "*.log.0")
	a.until("the removal", func() bool { return a.metrics()["dormouse_policies"] == 0 })
	time.Sleep(soon / 5)
	if got := waiting(); got != float64(len(logs)/2) {
		t.Errorf("%v logs wait, want %d", got, len(logs)/2)
	}
	publish("third", []string{"tenant-00.log.0"})
	time.Sleep(soon / 2)
	if got := waiting(); got != float64(len(logs)/2+1) {
		t.Errorf("%v logs wait after the removal, want %d: serve's --max-delay holds again", got, len(logs)/2+1)
	}
	if out := a.must("", "policy", "ls", "--history"); strings.Count(out, "removed") != 2 {
		t.Errorf("the history is\n%s", out)
	}
	a.must("", "policy", "set", ">", "--max-delay", "100ms")
	within("all", func() bool { return waiting() == 0 })
	o.check(a)
}
