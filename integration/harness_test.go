// Package integration tests the whole program: the built binary in processes of its own, real publishers, kill -9, a
// real S3 server. It asserts the direction of imports too.
package integration

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"dormouse/internal/proc"
	"dormouse/internal/programtest"
)

// binary is the program under test, built with the race detector.
var binary string

func TestMain(m *testing.M) {
	programtest.Main(m, func(dir string) error {
		binary = filepath.Join(dir, "dormouse")
		return errors.Join(s3Credentials(), programtest.Build(binary, programtest.Dormouse, "-race"))
	})
}

// s3Credentials lets every process of the tests reach the S3 servers that they start.
func s3Credentials() error {
	return errors.Join(os.Setenv("AWS_ACCESS_KEY_ID", "dormouse"),
		os.Setenv("AWS_SECRET_ACCESS_KEY", "asleep-in-the-hedge"), os.Setenv("AWS_EC2_METADATA_DISABLED", "true"))
}

// plainBinary is the program without the race detector, which slows it down several times.
var plainBinary = sync.OnceValues(func() (string, error) {
	name := binary + "-plain"
	return name, programtest.Build(name, programtest.Dormouse)
})

// patience bounds every wait; reaching it is a failure.
const patience = 60 * time.Second

// instance is one `dormouse serve`, or what is left of it between two runs.
type instance struct {
	proc.Process
	t       *testing.T
	program string // the binary
	data    string
	nats    string // address of its NATS server, or of the outside one
	http    string
	outside bool
	args    []string
}

// newInstance prepares a server on free ports with a data directory of its own. args are further flags of serve.
func newInstance(t *testing.T, args ...string) *instance {
	t.Helper()
	return &instance{Process: proc.Process{Log: logFile(t)}, t: t, program: binary, data: t.TempDir(),
		nats: programtest.FreeAddr(t), http: programtest.FreeAddr(t), args: args}
}

// logFile names a file for the output of a process.
func logFile(t *testing.T) string { return filepath.Join(t.TempDir(), "output") }

// fast are flags with which things happen within test time.
var fast = []string{"--max-delay", "200ms", "--linger", "20ms", "--lease", "2s", "--requeue-after", "3s",
	"--sync-interval", "1s", "--trim-delay", "1100ms", "--grace", "5s"}

// launch starts the process without waiting for it to be ready.
func (in *instance) launch() {
	in.t.Helper()
	args := []string{"serve", "--data", in.data, "--http", in.http}
	if in.outside {
		args = append(args, "--nats-url", "nats://"+in.nats)
	} else {
		args = append(args, "--nats-listen", in.nats)
	}
	if err := in.Start(exec.Command(in.program, append(args, in.args...)...)); err != nil {
		in.t.Fatal(err)
	}
	in.t.Cleanup(in.kill)
}

// start launches the process and waits until it is ready.
func (in *instance) start() *instance {
	in.t.Helper()
	in.launch()
	in.until("readiness", in.ready)
	return in
}

func (in *instance) ready() bool {
	_, err := proc.Get(in.t.Context(), "http://"+in.http+"/readyz")
	return err == nil
}

// until polls a condition; a process that has ended meanwhile fails the test with its output.
func (in *instance) until(what string, ok func() bool) {
	in.t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-in.Ended():
			in.t.Fatalf("the process ended with %d while waiting for %s:\n%s", in.wait(), what, in.Tail())
		case <-tick.C:
		}
		if time.Now().After(deadline) {
			in.t.Fatalf("waited %s for %s:\n%s", patience, what, in.Tail())
		}
	}
}

// untilEnded waits until the process has ended by itself.
func (in *instance) untilEnded() {
	in.t.Helper()
	select {
	case <-in.Ended():
	case <-time.After(patience):
		in.t.Fatalf("waited %s for the process to end:\n%s", patience, in.Tail())
	}
}

// kill ends the process as a power switch does to it, and waits for its end. One that has ended by itself, and was not
// waited for, fails the test.
func (in *instance) kill() {
	if !in.Up() {
		return
	}
	select {
	case <-in.Ended():
		in.t.Errorf("the process had ended by itself, with %d:\n%s", in.wait(), in.Tail())
		return
	default:
	}
	if err := in.Kill(); err != nil {
		in.t.Fatal(err)
	}
	in.wait()
}

// wait waits for the end of the process and returns its exit code. A race that was detected fails the test.
func (in *instance) wait() int {
	err := in.Wait()
	http.DefaultClient.CloseIdleConnections()
	if strings.Contains(in.Output(), "DATA RACE") {
		in.t.Errorf("data race in the process:\n%s", in.Tail())
	}
	return proc.ExitCode(err)
}

// stop ends the process with SIGTERM and returns its exit code.
func (in *instance) stop() int {
	in.t.Helper()
	in.signal(syscall.SIGTERM)
	return in.wait()
}

func (in *instance) signal(s syscall.Signal) {
	in.t.Helper()
	if err := in.Signal(s); err != nil {
		in.t.Fatal(err)
	}
}

func (in *instance) metrics() map[string]float64 { return proc.Metrics(in.t.Context(), in.http) }

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

// cli is how users meet the instance.
func (in *instance) cli() proc.CLI {
	return proc.CLI{Binary: binary, NATS: "nats://" + in.nats}
}

// run runs a command of the program against the instance.
func (in *instance) run(stdin string, args ...string) proc.Result {
	in.t.Helper()
	ctx, cancel := context.WithTimeout(in.t.Context(), patience)
	defer cancel()
	return in.cli().Run(ctx, stdin, args...)
}

// must runs a command that has to succeed and returns what it printed.
func (in *instance) must(stdin string, args ...string) string {
	in.t.Helper()
	o := in.run(stdin, args...)
	if o.Code != 0 {
		in.t.Fatalf("dormouse %s: exit %d, %s\nserver: %s", strings.Join(args, " "), o.Code, o.Err, in.Tail())
	}
	return o.Out
}
