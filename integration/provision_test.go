package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/topology"
)

// provisioned is what `dormouse provision --output json` says.
type provisioned struct {
	Shards []struct {
		Shard          uint64
		Stream, Prefix string
		Managed, New   bool
	}
	Mapping *topology.Mapping
	JWT     json.RawMessage
}

func (in *instance) provision(args ...string) (p provisioned) {
	in.t.Helper()
	out := in.must("", append([]string{"provision", "--output", "json"}, args...)...)
	if err := json.Unmarshal([]byte(out), &p); err != nil {
		in.t.Fatalf("%q: %v", out, err)
	}
	return p
}

// made is when a stream was made, and how.
type made struct {
	created time.Time
	config  jetstream.StreamConfig
}

func streamsOf(t *testing.T, js jetstream.JetStream) map[string]made {
	t.Helper()
	all := make(map[string]made)
	list := js.ListStreams(t.Context())
	for info := range list.Info() {
		all[info.Config.Name] = made{info.Created, info.Config}
	}
	if err := list.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

// TestProvisionIsIdempotent provisions an outside NATS again and again: what is there stays as it is. The mapping that
// it prints is then given to the server as it stands there.
func TestProvisionIsIdempotent(t *testing.T) {
	t.Parallel()
	const shards = 3
	outside := startOutsideNATS(t)
	in := outside.instance()
	first := in.provision("--shards", fmt.Sprint(shards))
	nc, js := dial(t, outside.addr)
	defer nc.Close()
	before := streamsOf(t, js)
	if len(first.Shards) != shards || first.Mapping == nil || *first.Mapping != topology.PartitionMapping(shards) {
		t.Fatalf("the first says %+v", first)
	}
	unchanged := func(what string) {
		t.Helper()
		if now := streamsOf(t, js); !reflect.DeepEqual(now, before) {
			t.Errorf("%s changed the streams from\n%+v to\n%+v", what, before, now)
		}
	}
	for i, s := range first.Shards {
		if s.Shard != uint64(i) || s.Stream != shardStream(s.Shard) || !s.Managed || !s.New ||
			before[s.Stream].created.IsZero() {
			t.Errorf("shard %d is %+v", i, s)
		}
		first.Shards[i].New = false
	}
	for _, args := range [][]string{{"--shards", fmt.Sprint(shards)}, nil} {
		if again := in.provision(args...); !reflect.DeepEqual(again, first) {
			t.Errorf("again with %v: %+v, want %+v", args, again, first)
		}
		unchanged("provisioning again")
	}
	for _, other := range []string{"4", "1"} {
		o := in.run("", "provision", "--shards", other)
		if o.Code != 1 || o.Out != "" || !strings.Contains(o.Err, "over 3 shards") ||
			!strings.Contains(o.Err, other+" are wanted") {
			t.Errorf("--shards %s: exit %d, %q, %q", other, o.Code, o.Out, o.Err)
		}
		unchanged("--shards " + other)
	}

	text := in.must("", "provision")
	if want := fmt.Sprintf("nsc add mapping --name ACCOUNT --from '%s' --to '%s'", first.Mapping.From,
		first.Mapping.To); !strings.Contains(text, want) {
		t.Errorf("the text lacks %q:\n%s", want, text)
	}
	if want := fmt.Sprintf(`{"mappings":{%q:[{"subject":%q,"weight":100}]}}`, first.Mapping.From,
		first.Mapping.To); !strings.Contains(text, want) {
		t.Errorf("the text lacks %q:\n%s", want, text)
	}
	if _, err := js.Publish(t.Context(), "logs.acme.web", []byte("unmapped")); err == nil {
		t.Error("an entry was stored without the mapping")
	}
	nc.Close()
	outside.restartWith(mappingsIn(t, text))
	_, js = dial(t, outside.addr)
	for _, tenant := range []string{"acme", "zebra", "tenant-7", "x"} {
		ack, err := js.Publish(t.Context(), "logs."+tenant+".web", []byte("mapped"))
		if want := topology.PartitionStream(topology.PartitionOf(tenant, shards)); err != nil || ack.Stream != want {
			t.Errorf("%s: %+v, %v, want it in %s", tenant, ack, err, want)
		}
	}
}

// mappingsIn returns the part of what provision prints that goes into a server's configuration.
func mappingsIn(t *testing.T, text string) string {
	t.Helper()
	_, from, ok := strings.Cut(text, "  mappings = {\n")
	block, _, end := strings.Cut(from, "\n  }\n")
	if !ok || !end {
		t.Fatalf("no mappings in:\n%s", text)
	}
	return "mappings = {\n" + block + "\n}\n"
}

// restartWith restarts the server with a configuration file that has this in it.
func (o *outsideNATS) restartWith(part string) {
	o.t.Helper()
	o.stop()
	file := filepath.Join(o.t.TempDir(), "nats.conf")
	config := fmt.Sprintf("listen: %q\njetstream { store_dir: %q }\n%s", o.addr, o.dir, part)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		o.t.Fatal(err)
	}
	options, err := server.ProcessConfigFile(file)
	if err != nil {
		o.t.Fatalf("%v in:\n%s", err, config)
	}
	o.run(options)
}

// TestStreamsOfOnesOwnAsShards archives two streams that users have, whose entries were there before the system, and
// takes nothing away from them.
func TestStreamsOfOnesOwnAsShards(t *testing.T) {
	t.Parallel()
	const perLog = 20
	outside := startOutsideNATS(t)
	_, js := dial(t, outside.addr)
	for name, subject := range map[string]string{"ORDERS": "orders.>", "METRICS": "edge.metrics.>"} {
		if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: name, Subjects: []string{subject},
			Description: "of " + name}); err != nil {
			t.Fatal(err)
		}
	}
	o := newOracle()
	logs := map[string][]string{"orders": {"shop.eu.web", "shop.us", "market.all"},
		"edge.metrics": {"host1.cpu", "host2.cpu.0"}}
	total := 0
	publish := func(what string) {
		for prefix, logs := range logs {
			publishAll(t, js, o, prefix, logs, perLog, what)
			total += perLog * len(logs)
		}
	}
	publish("before")

	cli := outside.instance()
	add := []string{"--add-stream", "ORDERS=orders", "--add-stream", "METRICS=edge.metrics", "--lease", "2s",
		"--requeue-after", "3s"}
	first := cli.provision(add...)
	if len(first.Shards) != 2 || first.Mapping != nil {
		t.Fatalf("provision says %+v", first)
	}
	for i, want := range []struct{ stream, prefix string }{{"ORDERS", "orders"}, {"METRICS", "edge.metrics"}} {
		if s := first.Shards[i]; s.Stream != want.stream || s.Prefix != want.prefix || s.Managed {
			t.Errorf("shard %d is %+v, want %v, not managed", i, s, want)
		}
	}
	marked := streamsOf(t, js)
	for _, name := range []string{"ORDERS", "METRICS"} {
		if marked[name].config.Description != "of "+name {
			t.Errorf("adding changed more than the metadata: %+v", marked[name].config)
		}
	}
	cli.provision(add...)
	if now := streamsOf(t, js); !reflect.DeepEqual(now, marked) {
		t.Errorf("adding again changed the streams from\n%+v to\n%+v", marked, now)
	}

	bucket := "file://" + filepath.Join(t.TempDir(), "archive")
	role := func(role string) *instance {
		return outside.instance(append([]string{"--archive", bucket, "--roles", role},
			append(fast, "--sync-interval", "50ms", "--trim-delay", "100ms")...)...).start()
	}
	in := role("ingest")
	role("worker")
	publish("after")
	in.until("everything to be archived", func() bool { return archivedUntrimmed(in.status(), total) })
	o.check(in)
	trimDelays := time.NewTicker(100 * time.Millisecond)
	defer trimDelays.Stop()
	for range 10 {
		if <-trimDelays.C; !archivedUntrimmed(in.status(), total) {
			t.Fatalf("the users' streams were changed: %+v", in.status().Shards)
		}
	}
	if got, want := in.must("", "verify"), fmt.Sprintf(" %d entries: 0 bad", total); !strings.Contains(got, want) {
		t.Errorf("verify printed %q, want %q", got, want)
	}
	// What is read now comes from the archive alone.
	for _, name := range []string{"ORDERS", "METRICS"} {
		stream, err := js.Stream(t.Context(), name)
		if err == nil {
			err = stream.Purge(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	o.check(in)
	if lost := in.metrics()["dormouse_entries_lost_total"]; lost != 0 {
		t.Errorf("%v entries count as lost", lost)
	}
}

// archivedUntrimmed reports whether both shards have archived all entries, and their streams have them still.
func archivedUntrimmed(s status, entries int) bool {
	var messages uint64
	for _, shard := range s.Shards {
		if messages += shard.Messages; shard.State != "owned" || shard.Lag > 0 || shard.ActiveLogs > 0 {
			return false
		}
	}
	return len(s.Shards) == 2 && messages == uint64(entries)
}

// TestStreamsThatCannotBeAdded: each is refused with a message that says why, and left as it was.
func TestStreamsThatCannotBeAdded(t *testing.T) {
	t.Parallel()
	outside := startOutsideNATS(t)
	_, js := dial(t, outside.addr)
	for _, c := range []jetstream.StreamConfig{
		{Name: "GOOD", Subjects: []string{"good.>"}},
		{Name: "QUEUE", Subjects: []string{"queue.>"}, Retention: jetstream.WorkQueuePolicy},
		{Name: "MEMORY", Subjects: []string{"memory.>"}, Storage: jetstream.MemoryStorage},
		{Name: "TWO", Subjects: []string{"one.>", "two.>"}},
		{Name: "MINE", Subjects: []string{"logs.>"}},
	} {
		if _, err := js.CreateStream(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	in := outside.instance()
	in.provision("--shards", "2")
	in.provision("--add-stream", "GOOD")
	before := streamsOf(t, js)
	for stream, says := range map[string][]string{
		"NONE":        {"no stream NONE"},
		"QUEUE":       {"QUEUE", "retention", "WorkQueue"},
		"MEMORY":      {"MEMORY", "storage"},
		"TWO":         {"TWO", "--add-stream TWO="},
		"TWO=three":   {"TWO", "none is below three"},
		"MINE":        {"MINE", "spread over 2 shards"},
		"GOOD=good.x": {"GOOD", "prefix good", "good.x"},
	} {
		o := in.run("", "provision", "--add-stream", stream)
		for _, part := range says {
			if o.Code != 1 || o.Out != "" || !strings.Contains(o.Err, part) {
				t.Errorf("%s: exit %d, %q, %q, want 1 and %q", stream, o.Code, o.Out, o.Err, part)
			}
		}
	}
	if now := streamsOf(t, js); !reflect.DeepEqual(now, before) {
		t.Errorf("what was refused changed the streams from\n%+v to\n%+v", before, now)
	}
}
