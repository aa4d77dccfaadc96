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
	code, _, stderr := runCommand(t, "serve", "--data", t.TempDir(), "--nats-listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--archive", "ftp://x")
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
	if code, stdout, _ := runCommand(t, "__complete", "read", "a.b", "--output", ""); code != exitOK || !strings.Contains(stdout, "jsonl") {
		t.Errorf("completion of --output: exit %d, %q", code, stdout)
	}
}

// TestPrecedence: the flag wins over the environment, and that over the file.
func TestPrecedence(t *testing.T) {
	file := filepath.Join(t.TempDir(), "dormouse.yaml")
	if err := os.WriteFile(file, []byte("max-delay: 1s\nmax-bytes: 2MiB\nworkers: 3\nroles: [worker]\nprefix: x\n"), 0o600); err != nil {
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
		for name, want := range map[string]string{"max-delay": "1s", "max-bytes": "4.0MiB", "workers": "7", "roles": "[worker]", "lease": "10s"} {
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
