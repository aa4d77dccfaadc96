package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// runCommand runs a command line in this process.
func runCommand(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errOut bytes.Buffer
	code = run(t.Context(), args, strings.NewReader(""), &out, &errOut)
	return code, out.String(), errOut.String()
}

func TestUsageErrorsExitWith2(t *testing.T) {
	for _, tc := range []struct{ args, says string }{
		{"nonsense", "unknown command"},
		{"serve extra", "unknown command"},
		{"serve --nonsense", "unknown flag"},
		{"serve --max-delay soon", "max-delay"},
		{"serve --max-delay 0s", "--max-delay must be positive"},
		{"serve --max-bytes lots", "is no size"},
		{"serve --trim sometimes", "auto, always, never"},
		{"serve --roles reader", "neither ingest nor worker"},
		{"serve --workers 0", "--workers"},
		{"serve --tick 1us", "--tick"},
		{"serve --nats-url x --nats-context y", "not both"},
		{"serve --nats-creds x", "--nats-url"},
		{"serve --trim-delay 1s --sync-interval 2s", "--trim-delay"},
		{"serve --trim-delay 1s --nats-url x", "--sync-interval"},
		{"serve --trim-delay 2m --nats-url x", "2m0s unless they are told otherwise"},
		{"serve --trim-delay 10s --sync-interval 10s --nats-url x", "--trim-delay 10s must exceed --sync-interval 10s"},
		{"serve --trim-delay -1s", "--trim-delay must be at least 0s"},
		{"serve --sync-interval 2h", "--sync-interval must be at most 1h0m0s"},
		{"serve --buffer-limit 50", "--buffer-limit must be at least 1.0MiB, it is 50B"},
		{"serve --buffer-limit 2MiB --max-bytes 3MiB", "--max-bytes must be at most 2.0MiB"},
		{"serve --segment-bytes 1", "--segment-bytes must be at least 4.0KiB"},
		{"serve --segment-bytes 3GiB", "--segment-bytes must be at most 2.0GiB"},
		{"serve --max-delay 1us", "--max-delay must be at least 1ms"},
		{"serve --max-delay 10000h", "--max-delay must be at most 744h0m0s"},
		{"serve --tick 4s --max-delay 2s", "--tick must be at most 2s, it is 4s"},
		{"serve --linger 40s", "--linger must be at most 30s"},
		{"serve --requeue-after 1ms", "--requeue-after must be at least 100ms"},
		{"serve --requeue-after 48h", "--requeue-after must be at most 24h0m0s"},
		{"serve --lease 1ms", "--lease must be at least 100ms"},
		{"serve --lease 1h", "--lease must be at most 10m0s"},
		{"serve --grace 2h", "--grace must be at most 1h0m0s"},
		{"serve --workers 5000", "--workers must be at most 4096"},
		{"serve --merge-share 0", "--merge-share must be at least 0.01"},
		{"serve --merge-share -0.5", "--merge-share must be at least 0.01"},
		{"serve --merge-share NaN", "--merge-share must be at least 0.01"},
		{"serve --merge-share 1.01", "--merge-share must be at most 1"},
		{"serve --replicas 2 --nats-url x", "--replicas must be 1, 3 or 5"},
		{"serve --replicas 3", "give --nats-url"},
		{"serve --shards 2000", "--shards must be from 1 to 1024"},
		{"provision --replicas 4", "--replicas must be 1, 3 or 5"},
		{"provision --shards -1", "--shards must be from 1 to 1024"},
		{"provision --lease 1h", "--lease must be at most"},
		{"read", "accepts 1 arg"},
		{"read acme", "no log token"},
		{"read a.b --output xml", "raw, jsonl"},
		{"publish a", "no log token"},
		{"verify a", "no log token"},
		{"ls --config /does/not/exist.yaml", "/does/not/exist.yaml"},
	} {
		code, stdout, stderr := runCommand(t, strings.Fields(tc.args)...)
		if code != exitUsage || !strings.Contains(stderr, tc.says) || !strings.Contains(stderr, "--help") || stdout != "" {
			t.Errorf("%s: exit %d, %q, want 2 and %q", tc.args, code, stderr, tc.says)
		}
	}
}

func TestFailuresExitWith1AndSayWhatToTry(t *testing.T) {
	for _, args := range [][]string{{"ls"}, {"read", "a.b"}, {"stat", "a.b"}, {"verify"}, {"publish", "a.b"}} {
		code, _, stderr := runCommand(t, append(args, "--nats-url", "nats://127.0.0.1:1")...)
		if code != exitFailed || !strings.Contains(stderr, "--nats-url") {
			t.Errorf("%v: exit %d, %q", args, code, stderr)
		}
	}
	code, _, stderr := runCommand(t, "serve", "--data", t.TempDir(), "--nats-listen", "127.0.0.1:0", "--http",
		"127.0.0.1:0", "--archive", "ftp://x")
	if code != exitFailed || !strings.Contains(stderr, "ftp") {
		t.Errorf("a wrong archive: exit %d, %q", code, stderr)
	}
}

func TestHelpHasExamples(t *testing.T) {
	for _, command := range []string{"serve", "publish", "read", "ls", "stat", "verify"} {
		code, stdout, _ := runCommand(t, command, "--help")
		if code != exitOK || !strings.Contains(stdout, "Examples:") || !strings.Contains(stdout, "--nats-url") {
			t.Errorf("%s --help: exit %d, %q", command, code, stdout)
		}
	}
	if code, stdout, _ := runCommand(t, "__complete", "read", "a.b", "--output", ""); code != exitOK ||
		!strings.Contains(stdout, "jsonl") {
		t.Errorf("completion of --output: exit %d, %q", code, stdout)
	}
}

// TestPrecedence: the flag wins over the environment, and that over the file.
func TestPrecedence(t *testing.T) {
	file := filepath.Join(t.TempDir(), "dormouse.yaml")
	if err := os.WriteFile(file, []byte("max-delay: 1s\nmax-bytes: 2MiB\nworkers: 3\nroles: [worker]\nprefix: x\n"),
		0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("DORMOUSE_CONFIG", file)
	t.Setenv("DORMOUSE_MAX_BYTES", "4MiB")
	t.Setenv("DORMOUSE_WORKERS", "5")
	root := newRootCommand()
	var serve *cobra.Command
	for _, c := range root.Commands() {
		if c.Name() == "serve" {
			serve = c
		}
	}
	serve.RunE = func(cmd *cobra.Command, _ []string) error {
		for name, want := range map[string]string{"max-delay": "1s", "max-bytes": "4.0MiB", "workers": "7",
			"roles": "[worker]", "lease": "10s"} {
			if got := cmd.Flag(name).Value.String(); got != want {
				t.Errorf("%s is %s, want %s", name, got, want)
			}
		}
		return nil
	}
	root.SetArgs([]string{"serve", "--workers", "7"})
	if err := root.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestUnknownKeyIsNamed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "dormouse.yaml")
	if err := os.WriteFile(file, []byte("max-dealy: 1s\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, _, stderr := runCommand(t, "serve", "--config", file)
	if code != exitUsage || !strings.Contains(stderr, "max-dealy") || !strings.Contains(stderr, file) {
		t.Errorf("exit %d, %q", code, stderr)
	}
}

// TestSyncIntervals: what is not said of a server is taken from what it does by itself, and trimming trails behind
// that.
func TestSyncIntervals(t *testing.T) {
	for _, tc := range []struct{ args, sync, trails string }{
		{"", "1s", "5s"},
		{"--sync-interval 20s", "20s", "40s"},
		{"--sync-interval 20s --trim-delay 21s", "20s", "21s"},
		{"--sync-always --trim-delay 10ms", "1s", "10ms"},
		{"--nats-url x", "2m0s", "3m0s"},
		{"--nats-url x --trim-delay 150s", "2m0s", "2m30s"},
		{"--nats-url x --sync-interval 10s", "10s", "20s"},
		{"--nats-url x --sync-interval 5m", "5m0s", "10m0s"},
		{"--nats-url x --sync-always --trim-delay 1s", "2m0s", "1s"},
	} {
		c, err := serveConfigOf(t, tc.args)
		if err != nil || c.syncInterval.String() != tc.sync || c.trimDelay.String() != tc.trails {
			t.Errorf("%q: sync interval %s, trim delay %s, %v, want %s and %s", tc.args, c.syncInterval, c.trimDelay, err,
				tc.sync, tc.trails)
		}
	}
	if c, err := serveConfigOf(t, "--max-delay 5ms"); err != nil || c.tick > c.maxDelay {
		t.Errorf("the default tick is %s with --max-delay 5ms, %v", c.tick, err)
	}
}

// TestVariables: a misspelt setting is refused by name, and what is somebody else's is not.
func TestVariables(t *testing.T) {
	root := newRootCommand()
	for name, meant := range map[string]string{
		"DORMOUSE_ARCHVE": "DORMOUSE_ARCHIVE", "DORMOUSE_MAX_DEALY": "DORMOUSE_MAX_DELAY",
		"DORMOUSE_NATS_URLS":  "DORMOUSE_NATS_URL",
		"DORMOUSE_BUFERLIMIT": "DORMOUSE_BUFFER_LIMIT", "DORMOUSE_workers": "DORMOUSE_WORKERS",
		"DORMOUSE_MAX-DELAY": "DORMOUSE_MAX_DELAY",
		"DORMOUSE_CONFIGS":   "DORMOUSE_CONFIG", "DORMOUSE_TICKS": "DORMOUSE_TICK",
	} {
		if err := checkVariables(root, []string{name + "=x"}); err == nil ||
			!strings.Contains(err.Error(), name+" is no setting: is "+meant+" meant") {
			t.Errorf("%s: %v", name, err)
		}
	}
	free := []string{
		"DORMOUSE_ARCHIVE=x", "DORMOUSE_CONFIG=x", "DORMOUSE_ARCHVE=", "dormouse_archve=x", "PATH=x", "DORMOUSE",
		// What Kubernetes sets for Services named dormouse, dormouse-http and dormouse-nats.
		"DORMOUSE_SERVICE_HOST=10.0.0.1", "DORMOUSE_SERVICE_PORT=9422", "DORMOUSE_SERVICE_PORT_HTTP=9422",
		"DORMOUSE_PORT=tcp://10.0.0.1:9422",
		"DORMOUSE_PORT_9422_TCP=tcp://10.0.0.1:9422", "DORMOUSE_PORT_9422_TCP_PROTO=tcp", "DORMOUSE_PORT_9422_TCP_PORT=9422",
		"DORMOUSE_PORT_9422_TCP_ADDR=10.0.0.1",
		"DORMOUSE_HTTP_SERVICE_HOST=10.0.0.1", "DORMOUSE_HTTP_PORT=tcp://10.0.0.1:9422",
		"DORMOUSE_NATS_SERVICE_PORT_CLIENT=4222",
	}
	if stray := strayVariables(root, free); len(stray) > 0 {
		t.Errorf("stray are %q", stray)
	}
	others := []string{"DORMOUSE_PASSWORD=x", "DORMOUSE_SEED=1", "DORMOUSE_CHAOS_TIME=1m", "DORMOUSE_CHAOS_SHARDS=4",
		"DORMOUSE_CRASH_RESTARTS=3"}
	if err := checkVariables(root, append(free, others...)); err != nil {
		t.Error(err)
	}
	if stray := strayVariables(root, others); len(stray) != len(others) {
		t.Errorf("stray are only %q", stray)
	}
	t.Setenv("DORMOUSE_ARCHVE", "x")
	if code, _, stderr := runCommand(t, "serve"); code != exitUsage || !strings.Contains(stderr, "DORMOUSE_ARCHIVE") {
		t.Errorf("exit %d, %q", code, stderr)
	}
}

// serveConfigOf returns what serve makes of flags.
func serveConfigOf(t *testing.T, args string) (*serveConfig, error) {
	t.Helper()
	c := &serveConfig{}
	cmd := serveCommand(c)
	if err := cmd.ParseFlags(strings.Fields(args)); err != nil {
		t.Fatal(err)
	}
	var err error
	if c.target, err = targetOf(cmd); err != nil {
		t.Fatal(err)
	}
	return c, c.complete("")
}
