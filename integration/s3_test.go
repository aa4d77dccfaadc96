package integration

import (
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"dormouse/integration/relay"
	"dormouse/internal/proc"
	"dormouse/internal/programtest"
)

// gateway is an S3 server behind a relay that the test can break: a real one (versitygw on a folder, built from the
// pinned module in tools), and in the short form one in memory, since the real one takes minutes to compile.
type gateway struct {
	url   string // for --archive
	relay *relay.Relay
}

// s3Server builds the server once; a second test finds it.
var s3Server = sync.OnceValues(func() (string, error) {
	name := filepath.Join(filepath.Dir(binary), "versitygw")
	return name, programtest.Build(name, "github.com/versity/versitygw/cmd/versitygw", "-C", "tools")
})

func startGateway(t *testing.T) *gateway {
	t.Helper()
	var addr string
	if testing.Short() {
		addr = startFakeS3(t)
	} else {
		addr = startS3(t)
	}
	g := &gateway{relay: startRelay(t, addr)}
	g.url = "s3://logs/some/prefix?endpoint=http://" + g.relay.Addr()
	return g
}

// startFakeS3 starts the server in memory and returns its address.
func startFakeS3(t *testing.T) string {
	t.Helper()
	backend := s3mem.New()
	if err := backend.CreateBucket("logs"); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(gofakes3.New(backend).Server())
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// startS3 starts the real server and returns its address.
func startS3(t *testing.T) string {
	t.Helper()
	program, err := s3Server()
	if err != nil {
		t.Fatal(err)
	}
	root, addr := t.TempDir(), programtest.FreeAddr(t)
	for _, dir := range []string{"objects/logs", "attributes"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o750); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(program, "--port", addr, "--access", "dormouse", "--secret", "asleep-in-the-hedge", "--quiet",
		"posix", "--sidecar", filepath.Join(root, "attributes"), filepath.Join(root, "objects"))
	s3 := &proc.Process{Log: logFile(t)}
	if err := s3.Start(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s3.Kill(); err != nil {
			t.Error(err)
		}
	})
	poll(t, "the S3 server", func() bool {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			return false
		}
		return c.Close() == nil
	})
	return addr
}

// TestMainJobOnS3 is the README's tour with a real S3 server for a bucket.
func TestMainJobOnS3(t *testing.T) {
	t.Parallel()
	in := newInstance(t, fast...)
	in.args = append(in.args, "--archive", startGateway(t).url)
	mainJob(t, in.start())
}

// TestS3Outage takes the bucket away under load, first with connections that are refused, then with ones that hang:
// work is delayed, nothing is lost, and neither goroutines nor the memory of the buffer grow beyond their bounds.
func TestS3Outage(t *testing.T) {
	t.Parallel()
	g := startGateway(t)
	in := newInstance(t, fast...)
	in.args = append(in.args, "--archive", g.url, "--buffer-limit", "1MiB")
	in.start()
	o := newOracle()
	load := startPublishers(t, in.nats, o, 11)
	for _, broken := range []relay.Mode{relay.Refuse, relay.Hang} {
		before := in.metrics()["dormouse_segments_committed_total"]
		in.until("some commits", func() bool { return in.metrics()["dormouse_segments_committed_total"] > before+3 })
		g.relay.Set(broken)
		stored := in.streamLast()
		in.until("it to notice", func() bool { return !in.ready() })
		in.until("more load", func() bool {
			if m := in.metrics(); m["go_goroutines"] > 200 || m["dormouse_buffer_bytes"] > 4<<20 {
				t.Fatalf("%v goroutines, %v bytes buffered", m["go_goroutines"], m["dormouse_buffer_bytes"])
			}
			return in.streamLast() > stored+2000
		})
		g.relay.Set(relay.Pass)
		in.until("readiness", in.ready)
	}
	load.Stop()
	o.check(in)
	in.awaitQuiet(o.last())
	o.check(in)
	t.Log(in.must("", "verify"))
}

// TestHandoverDoesNotWaitForWorkers ends a process whose workers are stuck in a bucket that hangs: another one owns its
// shard long before the workers' grace is over.
func TestHandoverDoesNotWaitForWorkers(t *testing.T) {
	t.Parallel()
	g := startGateway(t)
	nats := startOutsideNATS(t)
	args := append(append([]string{"--archive", g.url}, fast...), "--grace", "10s")
	first := nats.instance(args...).start()
	first.until("it to own", func() bool { return first.owned() == 1 })
	second := nats.instance(append([]string{"--roles", "ingest"}, args...)...).start()
	second.until("the second to be ready", second.ready)
	g.relay.Set(relay.Hang)
	first.must(lines(10, "stuck"), "publish", "t.stuck")
	first.until("a worker to be stuck", func() bool { return first.metrics()["dormouse_workers_busy"] > 0 })
	signalled := time.Now()
	first.signal(syscall.SIGTERM)
	second.until("the handover", func() bool { return second.owned() == 1 })
	gap := time.Since(signalled)
	if gap > 2*time.Second {
		t.Errorf("the shard had no owner for %s, want at most 2 s", gap)
	}
	t.Logf("handed over in %s", gap.Round(time.Millisecond))
	g.relay.Set(relay.Pass)
	if code := first.wait(); code != 0 {
		t.Errorf("the first ended with %d", code)
	}
	third := nats.instance(append([]string{"--roles", "worker"}, args...)...).start()
	third.until("the rest to be archived", func() bool { return second.metrics()["dormouse_logs_active"] == 0 })
	if got := second.must("", "read", "t.stuck"); got != lines(10, "stuck") {
		t.Errorf("read %q after the handover", got)
	}
}

// TestSecondSignal sends SIGTERM to a server whose work in hand cannot finish, and again: the first waits for the grace
// period, the second does not.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	g := startGateway(t)
	in := newInstance(t, fast...)
	in.args = append(in.args, "--archive", g.url, "--grace", "10m")
	in.start()
	g.relay.Set(relay.Hang)
	in.must(lines(10, "stuck"), "publish", "t.stuck")
	in.until("a worker to be stuck", func() bool { return in.metrics()["dormouse_workers_busy"] > 0 })
	in.signal(syscall.SIGTERM)
	in.until("the first signal", func() bool { return strings.Contains(in.Output(), "a second signal ends at once") })
	if code := in.stop(); code == 0 {
		t.Error("the second signal made the server exit with 0")
	}
	g.relay.Set(relay.Pass)
	in.start()
	in.awaitQuiet(10)
	if got := in.must("", "read", "t.stuck"); got != lines(10, "stuck") {
		t.Errorf("read %q after the restart", got)
	}
}
