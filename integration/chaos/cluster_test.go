package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/integration/relay"
	"dormouse/internal/proc"
	"dormouse/internal/topology"
	"dormouse/internal/wire"
)

// lease of the dormouse processes, by which the length of faults is measured too.
const lease = 2 * time.Second

// flags with which things happen within test time.
var flags = []string{"--lease", lease.String(), "--max-delay", "200ms", "--requeue-after", requeueAfter.String(),
	"--sync-interval", "1s", "--trim-delay", "1100ms", "--gc-grace", "10s", "--linger", "20ms",
	"--grace", grace.String(), "--max-bytes", "4KiB", "--segment-bytes", "64KiB", "--workers", "2", "--replicas",
	strconv.Itoa(replicas), "--log-level", "debug"}

const (
	requeueAfter = 3 * time.Second
	grace        = 5 * time.Second
	replicas     = 3
)

// link is a connection between two parts, in the direction in which it is made.
type link struct{ from, to string }

// cluster is the whole system: NATS servers, dormouse processes, and a relay for every link between two parts.
type cluster struct {
	t       *testing.T
	parts   parts
	shards  int           // 0: the one default stream
	length  time.Duration // of the faults
	logs    string
	state   string
	archive string // folder

	procs   map[string]*process
	http    map[string]string // monitoring address of servers, --http of the dormouse processes
	clients map[string]string // the servers' own addresses, past the relays: for what the harness asks
	relays  map[link]*relay.Relay
	taken   map[string]bool // addresses
}

func partsOf(ingests, workers, servers, publishers int) parts {
	names := func(what string, n int) (all []string) {
		for i := range n {
			all = append(all, fmt.Sprintf("%s%d", what, i))
		}
		return all
	}
	return parts{ingests: names("ingest", ingests), workers: names("worker", workers), servers: names("nats", servers),
		publishers: names("publisher", publishers)}
}

// newCluster prepares files, addresses and relays; nothing runs but the relays.
func newCluster(t *testing.T, p parts, shards int, length time.Duration, logs, state string) *cluster {
	t.Helper()
	c := &cluster{t: t, parts: p, shards: shards, length: length, logs: logs, state: state,
		archive: filepath.Join(state, "archive"), procs: make(map[string]*process), http: make(map[string]string),
		clients: make(map[string]string), relays: make(map[link]*relay.Relay), taken: make(map[string]bool)}
	t.Cleanup(c.end)
	routes := make(map[string]string)
	for _, name := range p.servers {
		c.clients[name], routes[name], c.http[name] = c.freeAddr(), c.freeAddr(), c.freeAddr()
	}
	for _, to := range p.servers {
		for _, from := range p.clients() {
			c.addRelay(link{from, to}, c.clients[to])
		}
		for _, from := range p.servers {
			if from != to {
				c.addRelay(link{from, to}, routes[to])
			}
		}
	}
	for _, name := range p.servers {
		config := filepath.Join(state, name+".conf")
		if err := os.WriteFile(config, []byte(c.serverConfig(name, routes[name])), 0o600); err != nil {
			t.Fatal(err)
		}
		c.add(name, programs.server, "-c", config)
	}
	for _, name := range p.processes() {
		c.http[name] = c.freeAddr()
		role := "ingest"
		if slices.Contains(p.workers, name) {
			role = "worker"
		}
		c.add(name, programs.dormouse, append([]string{"serve", "--roles", role, "--data", c.dataOf(name), "--http",
			c.http[name],
			"--nats-url", c.urlsFor(name), "--archive", "file://" + c.archive}, flags...)...)
	}
	return c
}

func (c *cluster) dataOf(name string) string { return filepath.Join(c.state, name) }

func (c *cluster) add(name, program string, args ...string) {
	c.procs[name] = &process{Process: proc.Process{Log: filepath.Join(c.logs, name+".log")}, name: name,
		program: program, args: args}
}

func (c *cluster) addRelay(l link, target string) {
	r, err := relay.Start(target)
	if err != nil {
		c.t.Fatal(err)
	}
	c.relays[l] = r
}

// freeAddr returns an address that stays free while its process is down: below the ports that the system gives to
// outgoing connections, of which there are many here.
func (c *cluster) freeAddr() string {
	const lowest, highest = 12000, 30000
	for range 1000 {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(lowest+rand.IntN(highest-lowest)))
		if c.taken[addr] {
			continue
		}
		if l, err := net.Listen("tcp", addr); err == nil {
			c.must(l.Close())
			c.taken[addr] = true
			return addr
		}
	}
	c.t.Fatal("no free port")
	return ""
}

// urlsFor returns the servers' addresses as a part reaches them.
func (c *cluster) urlsFor(name string) string {
	var urls []string
	for _, server := range c.parts.servers {
		urls = append(urls, "nats://"+c.relays[link{name, server}].Addr())
	}
	return strings.Join(urls, ",")
}

// directURLs are the servers' addresses past the relays.
func (c *cluster) directURLs() string {
	var urls []string
	for _, server := range c.parts.servers {
		urls = append(urls, "nats://"+c.clients[server])
	}
	return strings.Join(urls, ",")
}

// serverConfig writes a server's configuration. It names no address past the relays: clients are told of no other
// server, and other servers of a port that nobody listens on. Pings are as frequent as the faults are short.
func (c *cluster) serverConfig(name, route string) string {
	var routes []string
	for _, other := range c.parts.servers {
		if other != name {
			routes = append(routes, "nats-route://"+c.relays[link{name, other}].Addr())
		}
	}
	config := fmt.Sprintf(`server_name: %s
listen: "%s"
http: "%s"
ping_interval: "2s"
ping_max: 2
jetstream { store_dir: "%s", max_memory_store: 64MB, max_file_store: 4GB }
cluster {
  name: chaos
  listen: "%s"
  advertise: "127.0.0.1:1"
  no_advertise: true
  ping_interval: "2s"
  routes: ["%s"]
}
`, name, c.clients[name], c.http[name], c.dataOf(name), route, strings.Join(routes, `", "`))
	if c.shards > 0 {
		mapping := topology.PartitionMapping(c.shards)
		config += fmt.Sprintf("mappings { %q: %q }\n", mapping.From, mapping.To)
	}
	return config
}

// start starts everything and waits until it is ready.
func (c *cluster) start() {
	c.t.Helper()
	for _, name := range c.parts.servers {
		c.must(c.procs[name].start())
	}
	c.until("the NATS servers", c.serversReady)
	if c.shards > 0 {
		out := c.run("provision", "--shards", strconv.Itoa(c.shards), "--replicas", strconv.Itoa(replicas), "--lease",
			lease.String(), "--requeue-after", requeueAfter.String())
		if out.Code != 0 {
			c.t.Fatalf("dormouse provision: exit %d, %s", out.Code, out.Err)
		}
	}
	for _, name := range c.parts.processes() {
		c.must(c.procs[name].start())
	}
	c.until("the dormouse processes", c.ready)
}

// end ends all processes and relays.
func (c *cluster) end() {
	for _, p := range c.procs {
		c.must(p.kill())
	}
	for _, r := range c.relays {
		r.Close()
	}
	http.DefaultClient.CloseIdleConnections()
}

func (c *cluster) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Error(err)
	}
}

// patience bounds every wait; reaching it is a failure: the system hangs.
const patience = 90 * time.Second

// until polls a condition, which returns what is still missing, while it minds the processes.
func (c *cluster) until(what string, missing func() string) time.Duration {
	c.t.Helper()
	began := time.Now()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		left := missing()
		if left == "" {
			return time.Since(began)
		}
		if time.Since(began) > patience {
			c.dump()
			c.t.Fatalf("waited %s for %s: %s", patience, what, left)
		}
		c.mind()
		<-tick.C
	}
}

// mind looks after processes that ended without being told to: a failure, after which the run goes on.
func (c *cluster) mind() {
	c.t.Helper()
	for _, p := range c.procs {
		if err, dead := p.died(); dead {
			c.t.Errorf("%s ended by itself (%v); its output ends:\n%s", p.name, err, p.Tail())
			c.must(p.start())
		}
	}
}

// ask returns what a process answers over HTTP; a frozen one answers nothing.
func ask(url string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
	defer cancel()
	return proc.Get(ctx, url)
}

func (c *cluster) missing(names []string, path string) string {
	for _, name := range names {
		if _, err := ask("http://" + c.http[name] + path); err != nil {
			return name + ": " + err.Error()
		}
	}
	return ""
}

// serversReady returns what the servers lack: one is not healthy, or the leader of the cluster does not see the others
// yet and would place no replicas on them.
func (c *cluster) serversReady() string {
	if left := c.missing(c.parts.servers, "/healthz"); left != "" {
		return left
	}
	for _, name := range c.parts.servers {
		var state struct {
			Meta struct {
				Replicas []struct{ Offline bool } `json:"replicas"` // told by the leader only
			} `json:"meta_cluster"`
		}
		text, err := ask("http://" + c.http[name] + "/jsz")
		if err == nil {
			err = json.Unmarshal([]byte(text), &state)
		}
		if err != nil {
			return name + ": " + err.Error()
		}
		online := 1
		for _, replica := range state.Meta.Replicas {
			if !replica.Offline {
				online++
			}
		}
		if online == len(c.parts.servers) {
			return ""
		}
	}
	return "no server leads all the others"
}

// ready returns what is not ready, "" if all is.
func (c *cluster) ready() string {
	if left := c.serversReady(); left != "" {
		return left
	}
	return c.missing(c.parts.processes(), "/readyz")
}

// dump saves what the processes are doing, for whoever looks into a hang.
func (c *cluster) dump() {
	for name, addr := range c.http {
		path := "/debug/pprof/goroutine?debug=2"
		if slices.Contains(c.parts.servers, name) {
			path = "/jsz?streams=true&consumers=true&raft=true&config=true"
		}
		text, err := ask("http://" + addr + path)
		if err != nil {
			text = err.Error()
		}
		c.must(os.WriteFile(filepath.Join(c.logs, name+".dump"), []byte(text), 0o600))
	}
}

// sources returns the state of the source streams.
func (c *cluster) sources(ctx context.Context, js jetstream.JetStream) (map[string]jetstream.StreamState, error) {
	states := make(map[string]jetstream.StreamState)
	streams := js.ListStreams(ctx)
	for info := range streams.Info() {
		if info.Config.Metadata[wire.MetadataShard] != "" {
			states[info.Config.Name] = info.State
		}
	}
	if len(states) != max(c.shards, 1) {
		return nil, errors.Join(fmt.Errorf("there are %d source streams", len(states)), streams.Err())
	}
	return states, streams.Err()
}
