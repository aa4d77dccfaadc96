package integration

import (
	"net"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"dormouse/internal/programtest"
)

// outsideNATS is a NATS server that is not Dormouse's own. It keeps its address and its files over restarts.
type outsideNATS struct {
	t      *testing.T
	addr   string
	dir    string
	server *server.Server
}

func startOutsideNATS(t *testing.T) *outsideNATS {
	t.Helper()
	o := &outsideNATS{t: t, addr: programtest.FreeAddr(t), dir: t.TempDir()}
	o.start()
	t.Cleanup(o.stop)
	return o
}

func (o *outsideNATS) start() {
	o.t.Helper()
	o.run(o.options())
}

// options are those of the server without more.
func (o *outsideNATS) options() *server.Options {
	o.t.Helper()
	host, text, err := net.SplitHostPort(o.addr)
	if err != nil {
		o.t.Fatal(err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		o.t.Fatal(err)
	}
	return &server.Options{Host: host, Port: port, JetStream: true, StoreDir: o.dir}
}

// run starts the server with options of a test.
func (o *outsideNATS) run(options *server.Options) {
	o.t.Helper()
	options.NoLog, options.NoSigs = true, true
	var err error
	if o.server, err = server.NewServer(options); err != nil {
		o.t.Fatal(err)
	}
	o.server.Start()
	if !o.server.ReadyForConnections(patience) {
		o.t.Fatal("the outside NATS server is not ready")
	}
}

func (o *outsideNATS) stop() {
	o.server.Shutdown()
	o.server.WaitForShutdown()
}

// instance prepares a server that uses this NATS.
func (o *outsideNATS) instance(args ...string) *instance {
	in := newInstance(o.t, args...)
	in.nats, in.outside = o.addr, true
	return in
}

// TestOutsideNATSRestarts takes the NATS server away under load, several times, from publishers and Dormouse alike.
func TestOutsideNATSRestarts(t *testing.T) {
	t.Parallel()
	nats := startOutsideNATS(t)
	in := nats.instance(fast...).start()
	o := newOracle()
	load := startPublishers(t, nats.addr, o, 7)
	restarts := 3
	if testing.Short() {
		restarts = 1
	}
	for range restarts {
		before := in.metrics()["dormouse_segments_committed_total"]
		in.until("some commits", func() bool { return in.metrics()["dormouse_segments_committed_total"] > before+3 })
		nats.stop()
		in.until("it to notice", func() bool { return !in.ready() })
		nats.start()
		in.until("readiness", in.ready)
	}
	load.Stop()
	entries, _ := o.Counts()
	o.check(in)
	in.awaitQuiet(o.last())
	o.check(in)
	t.Logf("%d entries survived the restarts; %s", entries, in.must("", "verify"))
}

// TestTakeover runs two servers on one NATS: one owns the shard, and when it is killed the other goes on. It holds
// invariant 4 with real processes: whatever the dying one had in flight, nothing is there twice.
func TestTakeover(t *testing.T) {
	t.Parallel()
	nats := startOutsideNATS(t)
	bucket := "file://" + filepath.Join(t.TempDir(), "archive")
	args := append([]string{"--archive", bucket, "--max-bytes", "4KiB"}, fast...)
	pair := []*instance{nats.instance(args...).start(), nats.instance(args...).start()}
	owned := func(in *instance) float64 { return in.metrics()["dormouse_shards_owned"] }
	o := newOracle()
	load := startPublishers(t, nats.addr, o, 8)
	owner, standby := pair[0], pair[1]
	takeovers := 3
	if testing.Short() {
		takeovers = 1
	}
	for range takeovers {
		owner.until("the owner to own", func() bool { return owned(owner) == 1 })
		if n := owned(standby); n != 0 {
			t.Fatalf("both own the shard (the standby says %v)", n)
		}
		owner.until("some commits", func() bool { return owner.metrics()["dormouse_segments_committed_total"] > 3 })
		killed := time.Now()
		owner.kill()
		standby.until("the takeover", func() bool { return owned(standby) == 1 })
		t.Logf("taken over in %s", time.Since(killed).Round(time.Millisecond))
		owner.start()
		owner, standby = standby, owner
	}
	load.Stop()
	o.check(owner)
	owner.awaitQuiet(o.last())
	o.check(owner)
	t.Log(owner.must("", "verify"))
}
