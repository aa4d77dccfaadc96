// Package integration tests the whole program: the built binary in processes of its own, real publishers, kill -9, a real
// S3 server. It asserts the direction of imports too.
package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// binary is the program under test, built with the race detector.
var binary string

func TestMain(m *testing.M) {
	// For the processes under test: a race ends them, and their end does not wait a second for one, which is the default.
	if err := os.Setenv("GORACE", "halt_on_error=1 atexit_sleep_ms=0"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	dir, err := os.MkdirTemp("", "dormouse-integration-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binary = filepath.Join(dir, "dormouse")
	build := exec.Command("go", "build", "-race", "-o", binary, "dormouse/cmd/dormouse")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building the program: %v\n%s", err, out)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(dir)
		os.Exit(code)
	}))
}

// plainBinary is the program as it is released: static, and without the race detector, which slows it down several times.
var plainBinary = sync.OnceValues(func() (string, error) {
	name := binary + "-plain"
	build := exec.Command("go", "build", "-o", name, "dormouse/cmd/dormouse")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the program: %w\n%s", err, out)
	}
	return name, nil
})

// patience bounds every wait; reaching it is a failure.
const patience = 60 * time.Second

// instance is one `dormouse serve`, or what is left of it between two runs.
type instance struct {
	t       *testing.T
	program string // the binary
	data    string
	nats    string // address of its NATS server, or of the outside one
	http    string
	outside bool
	args    []string

	cmd    *exec.Cmd
	exited chan error
	log    *syncBuffer
}

// syncBuffer collects a process's output.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// newInstance prepares a server on free ports with a data directory of its own. args are further flags of serve.
func newInstance(t *testing.T, args ...string) *instance {
	t.Helper()
	return &instance{t: t, program: binary, data: t.TempDir(), nats: freeAddr(t), http: freeAddr(t), args: args, log: &syncBuffer{}}
}

// fast are flags with which things happen within test time.
var fast = []string{"--max-delay", "200ms", "--linger", "20ms", "--lease", "2s", "--requeue-after", "3s", "--trim-delay", "1100ms", "--grace", "5s"}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// launch starts the process without waiting for it to be ready.
func (in *instance) launch() {
	in.t.Helper()
	args := []string{"serve", "--data", in.data, "--http", in.http}
	if in.outside {
		args = append(args, "--nats-url", "nats://"+in.nats)
	} else {
		args = append(args, "--nats-listen", in.nats)
	}
	in.cmd = exec.Command(in.program, append(args, in.args...)...)
	in.cmd.Stdout, in.cmd.Stderr = in.log, in.log
	if err := in.cmd.Start(); err != nil {
		in.t.Fatal(err)
	}
	in.exited = make(chan error, 1)
	go func(cmd *exec.Cmd, exited chan<- error) { exited <- cmd.Wait() }(in.cmd, in.exited)
	in.t.Cleanup(in.kill)
}

// start launches the process and waits until it is ready.
func (in *instance) start() *instance {
	in.t.Helper()
	in.launch()
	in.until("readiness", func() bool { return in.ready() })
	return in
}

func (in *instance) ready() bool {
	response, err := http.Get("http://" + in.http + "/readyz")
	if err != nil {
		return false
	}
	defer response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// until polls a condition; a process that has ended meanwhile fails the test with its output.
func (in *instance) until(what string, ok func() bool) {
	in.t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case err := <-in.exited:
			in.exited <- err
			in.t.Fatalf("the process ended (%v) while waiting for %s:\n%s", err, what, in.tailOfLog())
		case <-tick.C:
		}
		if time.Now().After(deadline) {
			in.t.Fatalf("waited %s for %s:\n%s", patience, what, in.tailOfLog())
		}
	}
}

func (in *instance) tailOfLog() string {
	text := in.log.String()
	return text[max(0, len(text)-4000):]
}

// kill ends the process as a power switch does to it, and waits for its end. A race that was detected fails the test.
func (in *instance) kill() {
	if in.cmd == nil {
		return
	}
	_ = in.cmd.Process.Kill() // it may have ended
	in.wait()
}

func (in *instance) wait() error {
	err := <-in.exited
	in.exited <- err
	in.cmd = nil
	http.DefaultClient.CloseIdleConnections()
	if strings.Contains(in.log.String(), "DATA RACE") {
		in.t.Errorf("data race in the process:\n%s", in.tailOfLog())
	}
	return err
}

// stop ends the process with SIGTERM and returns its exit code.
func (in *instance) stop() int {
	in.t.Helper()
	if err := in.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		in.t.Fatal(err)
	}
	return exitCode(in.wait())
}

func exitCode(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return 0
}

// metrics returns all samples without labels.
func (in *instance) metrics() map[string]float64 {
	response, err := http.Get("http://" + in.http + "/metrics")
	if err != nil {
		return nil
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil
	}
	values := make(map[string]float64)
	for line := range strings.Lines(string(body)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if v, err := strconv.ParseFloat(value, 64); ok && err == nil {
			values[name] = v
		}
	}
	return values
}

// awaitMetric waits until a metric has a value.
func (in *instance) awaitMetric(name string, want float64) {
	in.t.Helper()
	in.until(fmt.Sprintf("%s to be %v", name, want), func() bool {
		got, ok := in.metrics()[name]
		return ok && got == want
	})
}

// awaitQuiet waits until everything in the stream is ingested and archived.
func (in *instance) awaitQuiet(ingested uint64) {
	in.t.Helper()
	in.until("everything to be archived", func() bool {
		m := in.metrics()
		return m != nil && in.streamLast() >= ingested && m["dormouse_logs_active"] == 0 && in.sourceEmpty()
	})
}

// output is what a command printed and how it ended.
type output struct {
	out, err string
	code     int
}

// run runs a command of the program against the instance.
func (in *instance) run(stdin string, args ...string) output {
	in.t.Helper()
	ctx, cancel := context.WithTimeout(in.t.Context(), patience)
	defer cancel()
	return in.runContext(ctx, stdin, args...)
}

func (in *instance) runContext(ctx context.Context, stdin string, args ...string) output {
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = append(os.Environ(), "DORMOUSE_NATS_URL=nats://"+in.nats)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	return output{out.String(), errOut.String(), exitCode(err)}
}

// must runs a command that has to succeed and returns what it printed.
func (in *instance) must(stdin string, args ...string) string {
	in.t.Helper()
	o := in.run(stdin, args...)
	if o.code != 0 {
		in.t.Fatalf("dormouse %s: exit %d, %s\nserver: %s", strings.Join(args, " "), o.code, o.err, in.tailOfLog())
	}
	return o.out
}
