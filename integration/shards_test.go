package integration

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/topology"
	"dormouse/internal/wire"
)

// tenantLogs names logs of several tenants, so many of each.
func tenantLogs(tenants, logs int) (all []string) {
	for i := range tenants {
		for j := range logs {
			all = append(all, fmt.Sprintf("tenant-%02d.log.%d", i, j))
		}
	}
	return all
}

// publishAll publishes n entries to each log, in turns, waits for all acks, tells the oracle and returns the stream that
// each log went to.
func publishAll(t *testing.T, js jetstream.JetStream, o *oracle, prefix string, logs []string, n int, what string) map[string]string {
	t.Helper()
	type sent struct {
		log, data string
		ack       jetstream.PubAckFuture
	}
	var all []sent
	for i := range n {
		for _, log := range logs {
			s := sent{log: log, data: fmt.Sprintf("%s %d of %s", what, i, log)}
			var err error
			if s.ack, err = js.PublishAsync(prefix+"."+log, []byte(s.data)); err != nil {
				t.Fatal(err)
			}
			all = append(all, s)
		}
	}
	homes := make(map[string]string)
	timeout := time.After(patience)
	for _, s := range all {
		select {
		case ack := <-s.ack.Ok():
			if home, ok := homes[s.log]; ok && home != ack.Stream {
				t.Fatalf("%s is in %s and in %s", s.log, home, ack.Stream)
			}
			homes[s.log] = ack.Stream
			o.add(s.log, s.data, ack)
		case err := <-s.ack.Err():
			t.Fatalf("%s was not stored: %v", s.log, err)
		case <-timeout:
			t.Fatalf("%s was not acked within %s", s.log, patience)
		}
	}
	return homes
}

// refused launches a server that must not start, and holds that it ends with 1 and says so.
func (in *instance) refused(says ...string) {
	in.t.Helper()
	in.log = &syncBuffer{}
	in.launch()
	in.untilEnded()
	code, text := exitCode(in.wait()), in.log.String()
	for _, part := range says {
		if code != 1 || !strings.Contains(text, part) {
			in.t.Errorf("exit %d, want 1 and a message that says %q:\n%s", code, part, text)
		}
	}
}

func (in *instance) untilEnded() {
	in.t.Helper()
	poll(in.t, "the process to end", func() bool {
		select {
		case err := <-in.exited:
			in.exited <- err
			return true
		default:
			return false
		}
	})
}

// TestEmbeddedShards spreads tenants over the shards of one process, whose server maps them also after a restart without
// --shards, and refuses to change the number.
func TestEmbeddedShards(t *testing.T) {
	const shards, perLog = 4, 6
	logs := tenantLogs(20, 2)
	in := newInstance(t, fast...)
	in.args = append(in.args, "--shards", fmt.Sprint(shards))
	in.start()
	nc, js := dial(t, in.nats)
	o := newOracle()
	homes := publishAll(t, js, o, "logs", logs, perLog, "first")
	nc.Close()
	for log, home := range homes {
		tenant, _, _ := strings.Cut(log, ".")
		if want := topology.PartitionOf(tenant, shards).PartitionStream(); home != want {
			t.Errorf("%s is in %s, want %s", log, home, want)
		}
	}
	in.awaitArchived()
	checkSpread(t, in.status(), homes, perLog)
	o.checkLogs(in, oneOfEach(homes)...) // all of them are read below
	checkEveryLog(t, in, homes, perLog)
	if code := in.stop(); code != 0 {
		t.Fatalf("exit %d\n%s", code, in.tailOfLog())
	}

	in.args = fast
	in.start()
	nc, js = dial(t, in.nats)
	if again := publishAll(t, js, o, "logs", logs, perLog, "second"); !maps.Equal(again, homes) {
		t.Errorf("after the restart the logs are in %v, before it in %v", again, homes)
	}
	nc.Close()
	o.check(in) // from the archive and the streams
	in.awaitArchived()
	checkSpread(t, in.status(), homes, 2*perLog)
	checkEveryLog(t, in, homes, 2*perLog)
	if code := in.stop(); code != 0 {
		t.Fatalf("exit %d\n%s", code, in.tailOfLog())
	}

	in.args = append(slices.Clone(fast), "--shards", "2")
	in.refused("over 4 shards", "2 are wanted", "--shards")
}

// checkSpread holds that every shard has entries, those of its logs and no others.
func checkSpread(t *testing.T, s status, homes map[string]string, perLog int) {
	t.Helper()
	want := make(map[string]uint64)
	for _, home := range homes {
		want[home] += uint64(perLog)
	}
	got := make(map[string]uint64)
	for _, shard := range s.Shards {
		if shard.Stream != shardStream(shard.Shard) || shard.Last == 0 {
			t.Errorf("shard %d is %s with %d entries", shard.Shard, shard.Stream, shard.Last)
		}
		got[shard.Stream] = shard.Last
	}
	if !maps.Equal(got, want) {
		t.Errorf("the shards have %v entries, want %v", got, want)
	}
}

func shardStream(shard uint64) string { return wire.Shard(shard).PartitionStream() }

// checkEveryLog holds that ls, stat and verify see every log whole: ls all of them, stat one of each shard.
func checkEveryLog(t *testing.T, in *instance, homes map[string]string, perLog int) {
	t.Helper()
	type row struct {
		Log                string
		Entries            uint64
		Archived, Buffered struct{ Entries uint64 }
	}
	whole := func(text string) row {
		var r row
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if r.Entries != uint64(perLog) || r.Archived.Entries != uint64(perLog) || r.Buffered.Entries != 0 {
			t.Errorf("want %d entries, archived: %s", perLog, text)
		}
		return r
	}
	seen := make(map[string]bool)
	for text := range strings.Lines(in.must("", "ls", "--output", "jsonl")) {
		r := whole(text)
		if seen[r.Log] || homes[r.Log] == "" {
			t.Errorf("ls shows %s, twice or never published", r.Log)
		}
		seen[r.Log] = true
	}
	if len(seen) != len(homes) {
		t.Errorf("ls shows %d logs, want %d", len(seen), len(homes))
	}
	for _, log := range oneOfEach(homes) {
		whole(in.must("", "stat", log, "--output", "json"))
	}
	if got, want := in.must("", "verify"), fmt.Sprintf(" %d entries: 0 bad", perLog*len(homes)); !strings.Contains(got, want) {
		t.Errorf("verify printed %q, want %q", got, want)
	}
}

// oneOfEach returns one log of each stream.
func oneOfEach(homes map[string]string) []string {
	logs := make(map[string]string)
	for log, home := range homes {
		logs[home] = log
	}
	return slices.Collect(maps.Values(logs))
}

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

// TestProvisionIsIdempotent provisions an outside NATS again and again: what is there stays as it is. The mapping that it
// prints is then given to the server as it stands there.
func TestProvisionIsIdempotent(t *testing.T) {
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
		if s.Shard != uint64(i) || s.Stream != shardStream(s.Shard) || !s.Managed || !s.New || before[s.Stream].created.IsZero() {
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
		if o.code != 1 || o.out != "" || !strings.Contains(o.err, "over 3 shards") || !strings.Contains(o.err, other+" are wanted") {
			t.Errorf("--shards %s: exit %d, %q, %q", other, o.code, o.out, o.err)
		}
		unchanged("--shards " + other)
	}

	text := in.must("", "provision")
	if want := fmt.Sprintf("nsc add mapping --name ACCOUNT --from '%s' --to '%s'", first.Mapping.From, first.Mapping.To); !strings.Contains(text, want) {
		t.Errorf("the text lacks %q:\n%s", want, text)
	}
	if want := fmt.Sprintf(`{"mappings":{%q:[{"subject":%q,"weight":100}]}}`, first.Mapping.From, first.Mapping.To); !strings.Contains(text, want) {
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
		if want := topology.PartitionOf(tenant, shards).PartitionStream(); err != nil || ack.Stream != want {
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

// TestStreamsOfOnesOwnAsShards archives two streams that users have, whose entries were there before the system, and takes
// nothing away from them.
func TestStreamsOfOnesOwnAsShards(t *testing.T) {
	const perLog = 20
	outside := startOutsideNATS(t)
	_, js := dial(t, outside.addr)
	for name, subject := range map[string]string{"ORDERS": "orders.>", "METRICS": "edge.metrics.>"} {
		if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: name, Subjects: []string{subject}, Description: "of " + name}); err != nil {
			t.Fatal(err)
		}
	}
	o := newOracle()
	logs := map[string][]string{"orders": {"shop.eu.web", "shop.us", "market.all"}, "edge.metrics": {"host1.cpu", "host2.cpu.0"}}
	total := 0
	publish := func(what string) {
		for prefix, logs := range logs {
			publishAll(t, js, o, prefix, logs, perLog, what)
			total += perLog * len(logs)
		}
	}
	publish("before")

	cli := outside.instance()
	add := []string{"--add-stream", "ORDERS=orders", "--add-stream", "METRICS=edge.metrics", "--lease", "2s", "--requeue-after", "3s"}
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
		return outside.instance(append([]string{"--archive", bucket, "--roles", role}, append(fast, "--trim-delay", "100ms")...)...).start()
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
			if o.code != 1 || o.out != "" || !strings.Contains(o.err, part) {
				t.Errorf("%s: exit %d, %q, %q, want 1 and %q", stream, o.code, o.out, o.err, part)
			}
		}
	}
	if now := streamsOf(t, js); !reflect.DeepEqual(now, before) {
		t.Errorf("what was refused changed the streams from\n%+v to\n%+v", before, now)
	}
}
