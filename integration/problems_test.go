package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/wire"
)

// problems returns what status says is wrong. Its exit code has to say the same.
func (in *instance) problems() []string {
	in.t.Helper()
	o := in.run("", "status", "--output", "json")
	var s struct{ Problems []string }
	if err := json.Unmarshal([]byte(o.Out), &s); err != nil || s.Problems == nil {
		in.t.Fatalf("exit %d, %q, %q: %v", o.Code, o.Out, o.Err, err)
	}
	if (o.Code == 1) != (len(s.Problems) > 0) || o.Code > 1 {
		in.t.Errorf("exit %d with the problems %q", o.Code, s.Problems)
	}
	return s.Problems
}

// awaitProblems waits until status tells of problems with all of these parts, or of none.
func (in *instance) awaitProblems(parts ...string) {
	in.t.Helper()
	var got []string
	in.until(fmt.Sprintf("the problems %q", parts), func() bool {
		got = in.problems()
		all := strings.Join(got, "\n")
		return (len(got) == 0) == (len(parts) == 0) && !slices.ContainsFunc(parts, func(part string) bool {
			return !strings.Contains(all, part)
		})
	})
	in.t.Logf("%q", got)
}

// TestStatusExitCode: status fails, and says why, while a process is frozen, is dead, or while nobody is there; and
// succeeds in between. The one that died is called by one name everywhere.
func TestStatusExitCode(t *testing.T) {
	t.Parallel()
	const shards = 2
	outside := shardedNATS(t, shards)
	bucket := "file://" + filepath.Join(t.TempDir(), "archive")
	with := func(args ...string) *instance {
		return outside.instance(append(append(append([]string{"--archive", bucket}, fast...), "--lease", "6s"), args...)...)
	}
	first := with()
	first.checkNobody()
	first.start()
	first.awaitProblems()
	second := with("--roles", "ingest").start()
	second.until("both to own", func() bool { return first.owned() == 1 && second.owned() == 1 })
	second.awaitProblems()
	text := first.must("", "status")
	if strings.Contains(text, "PROBLEM") || strings.Count(text, bucket) != 2 {
		t.Errorf("a healthy system is shown as\n%s", text)
	}

	second.signal(syscall.SIGSTOP)
	first.awaitProblems(second.name() + " does not answer")
	second.signal(syscall.SIGCONT)
	first.awaitProblems()

	second.kill()
	first.awaitProblems(second.name() + " does not answer")
	first.awaitProblems() // the other one has taken the shard over
	if n := first.owned(); n != shards {
		t.Errorf("it owns %v shards", n)
	}
	if out := first.Output(); !strings.Contains(out, "node="+second.name()) {
		t.Errorf("the log calls the dead one otherwise:\n%s", first.Tail())
	}

	if code := first.stop(); code != 0 {
		t.Errorf("exit %d\n%s", code, first.Tail())
	}
	first.checkNobody()
}

// name is what the process is called, by its data directory.
func (in *instance) name() string {
	in.t.Helper()
	id, err := os.ReadFile(filepath.Join(in.data, "node-id"))
	if err != nil {
		in.t.Fatal(err)
	}
	host, err := os.Hostname()
	if err != nil {
		in.t.Fatal(err)
	}
	return wire.ProcessName(host, string(id))
}

// checkNobody checks that status says that no shard has an owner.
func (in *instance) checkNobody() {
	in.t.Helper()
	got := in.problems()
	if len(got) != 1 || !strings.HasPrefix(got[0], "shards 0, 1 have no owner") ||
		!strings.Contains(got[0], "serve --roles ingest") {
		in.t.Errorf("of a system without processes it says %q", got)
	}
}

// TestProvisionCheck: a mapping that is missing or wrong is found before tenants find out, and nothing is stored by
// that.
func TestProvisionCheck(t *testing.T) {
	t.Parallel()
	const shards = 4
	outside := startOutsideNATS(t)
	in := outside.instance()
	empty := in.run("", "provision", "--check")
	if empty.Code != 1 || !strings.Contains(empty.Out, "PROBLEM: ") || !strings.Contains(empty.Out, "DORMOUSE_MANIFEST") {
		t.Errorf("of nothing: exit %d, %q, %q", empty.Code, empty.Out, empty.Err)
	}
	mapping := mappingsIn(t, in.must("", "provision", "--shards", fmt.Sprint(shards)))

	without := in.run("", "provision", "--check")
	if without.Code != 1 || !strings.HasPrefix(without.Out, "PROBLEM: nothing takes what tenants publish") ||
		mappingsIn(t, without.Out) != mapping {
		t.Errorf("without the mapping: exit %d, %q, %q", without.Code, without.Out, without.Err)
	}
	outside.restartWith(strings.Replace(mapping, "partition(4,", "partition(3,", 1))
	wrong := in.run("", "provision", "--check", "--output", "json")
	var report struct {
		Problems []string
		Mapping  struct{ From, To string }
	}
	if err := json.Unmarshal([]byte(wrong.Out), &report); err != nil || wrong.Code != 1 || len(report.Problems) == 0 ||
		!strings.Contains(report.Problems[0], "has to go to DORMOUSE_LOGS_") ||
		!strings.Contains(report.Mapping.To, "partition(4,1)") {
		t.Errorf("with a wrong mapping: exit %d, %+v, %v, %q", wrong.Code, report, err, wrong.Err)
	}
	outside.restartWith(mapping)
	in.must("", "provision", "--check")
	_, js := dial(t, outside.addr)
	for shard := range shards {
		stream, err := js.Stream(t.Context(), shardStream(uint64(shard)))
		if err != nil {
			t.Fatal(err)
		}
		if last := stream.CachedInfo().State.LastSeq; last != 0 {
			t.Errorf("the checks left %d messages in shard %d", last, shard)
		}
	}
	other := jetstream.StreamConfig{Name: "OTHER", Subjects: []string{"logs.dormouse-check-0.>"}}
	if _, err := js.CreateStream(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	in.must("", "provision", "--check") // the mapping comes before streams
	if o := in.run("", "provision", "--check", "--add-stream", "OTHER"); o.Code != 2 {
		t.Errorf("to check and to add: exit %d, %q", o.Code, o.Err)
	}
}
