package main

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// lockedText is written by a server and read by its test.
type lockedText struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lockedText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lockedText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// jsonLines parses a log in which everything has to be JSON.
func jsonLines(t *testing.T, text string) (lines []map[string]any) {
	t.Helper()
	for line := range strings.Lines(text) {
		var one map[string]any
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			t.Errorf("not JSON: %q", line)
		}
		lines = append(lines, one)
	}
	return lines
}

// TestJSONLog: of a life in order everything on standard error is JSON, names the process, has durations that say their
// unit, and ends with how long it served and why it stopped.
func TestJSONLog(t *testing.T) {
	var said lockedText
	ctx, end := context.WithCancel(t.Context())
	defer end()
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, []string{"serve", "--data", t.TempDir(), "--http", "127.0.0.1:0", "--nats-listen", "127.0.0.1:0",
			"--log-format", "json"}, nil, io.Discard, &said)
	}()
	until(t, "the shard is owned", func() bool { return strings.Contains(said.String(), "owning the shard") })
	end()
	if c := <-code; c != exitOK {
		t.Errorf("exit %d", c)
	}
	lines := jsonLines(t, said.String())
	by := make(map[any]map[string]any)
	for _, line := range lines {
		by[line["msg"]] = line
		if name, ok := line["process"].(string); !ok || name != lines[0]["process"] {
			t.Errorf("of the process %v, not %v: %v", line["process"], lines[0]["process"], line)
		}
		for key, value := range line {
			if n, ok := value.(float64); ok && n > 1e6 {
				t.Errorf("%s is %v, perhaps nanoseconds: %v", key, n, line)
			}
		}
	}
	if d := by["dormouse is serving"]["max_delay"]; d != "5s" {
		t.Errorf("max_delay is %v", d)
	}
	stopped := lines[len(lines)-1]
	served, isText := stopped["served"].(string)
	if d, err := time.ParseDuration(served); stopped["msg"] != "dormouse has stopped" || stopped["why"] != "told to end" ||
		!isText || err != nil || d <= 0 {
		t.Errorf("the last line is %v", stopped)
	}
	if by["the shard is handed over"] == nil {
		t.Error("the handover is not told")
	}
}

// TestErrorsAtStartAreJSON: what keeps a process from starting is told in the format of its log, once; in text as ever.
func TestErrorsAtStartAreJSON(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, tc := range map[string]struct {
		args []string
		code int
		says string
	}{
		"a port that is taken": {[]string{"--http", taken.Addr().String()}, exitFailed, "choose another --http"},
		"a flag out of bounds": {[]string{"--max-delay", "-1s"}, exitUsage, "--max-delay"},
		"two NATS":             {[]string{"--nats-url", "nats://a", "--nats-context", "b"}, exitUsage, "not both"},
		"no NATS":              {[]string{"--nats-url", "nats://127.0.0.1:1"}, exitFailed, "nats://127.0.0.1:1"},
	} {
		args := append([]string{"serve", "--data", t.TempDir(), "--nats-listen", "127.0.0.1:0", "--http", "127.0.0.1:0"},
			tc.args...)
		got := command(t.Context(), nil, append(args, "--log-format", "json")...)
		lines := jsonLines(t, got.errors)
		if len(lines) == 0 || got.code != tc.code {
			t.Errorf("%s: exit %d, %q", name, got.code, got.errors)
			continue
		}
		last := lines[len(lines)-1]
		if text, _ := last["error"].(string); last["level"] != "ERROR" || !strings.Contains(text, tc.says) ||
			strings.Count(got.errors, tc.says) != 1 {
			t.Errorf("%s: %q", name, got.errors)
		}
		if got := command(t.Context(), nil, args...); got.code != tc.code || !strings.Contains(got.errors, "\ndormouse: ") &&
			!strings.HasPrefix(got.errors, "dormouse: ") {
			t.Errorf("%s, in text: %d, %q", name, got.code, got.errors)
		}
	}
}
