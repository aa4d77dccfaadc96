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
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
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
	seen, last := 0, ""
	for text := range strings.Lines(in.must("", "ls", "--output", "jsonl")) {
		r := whole(text)
		if r.Log <= last || homes[r.Log] == "" {
			t.Errorf("ls shows %s after %s, or it was never published", r.Log, last)
		}
		seen++
		last = r.Log
	}
	if seen != len(homes) {
		t.Errorf("ls shows %d logs, want %d", seen, len(homes))
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

// TestStatusOutput looks at a sharded system while nothing works on it, while it is archived, when its owner is dead, and
// when no process is there.
func TestStatusOutput(t *testing.T) {
	const shards, perLog = 2, 10
	outside := shardedNATS(t, shards)
	bucket := "file://" + filepath.Join(t.TempDir(), "archive")
	with := func(role string) *instance { // of which a dead one keeps its shards for the rest of the test
		return outside.instance(append([]string{"--archive", bucket, "--roles", role}, append(fast, "--lease", "1m", "--requeue-after", "1m")...)...)
	}
	owner := with("ingest")
	for _, shard := range owner.status().Shards {
		if shard.State != "unowned" || shard.Epoch != 0 || shard.Holder != "" {
			t.Errorf("a shard that nobody ever had is %+v", shard)
		}
	}
	owner.start()
	owner.until("the shards to be owned", func() bool { return owner.owned() == shards })
	_, js := dial(t, outside.addr)
	began := time.Now()
	o := newOracle()
	homes := publishAll(t, js, o, "logs", tenantLogs(8, 1), perLog, "x")
	want := make(map[string]uint64)
	for _, home := range homes {
		want[home] += perLog
	}

	var s status
	owner.until("the logs to be queued", func() bool {
		s = owner.status()
		queued := uint64(0)
		for _, shard := range s.Shards {
			if queued += shard.Queued; shard.Queued == 0 || shard.Buffered != want[shard.Stream] {
				return false
			}
		}
		return len(s.Shards) == shards && queued == s.Queue.Items
	})
	if len(s.Processes) != 1 {
		t.Fatalf("the processes are %+v", s.Processes)
	}
	process := s.Processes[0]
	if !slices.Equal(process.Roles, []string{"ingest"}) || process.Shards != shards || process.Workers != 0 || process.HTTP != owner.http {
		t.Errorf("the process is %+v", process)
	}
	for i, shard := range s.Shards {
		n := want[shard.Stream]
		if shard.Shard != uint64(i) || shard.State != "owned" || shard.Owner != process.ID || shard.Holder != process.ID || shard.Epoch != 1 ||
			shard.Messages != n || shard.Last != n || shard.Applied != n || shard.Lag != n || shard.Floor != 0 || shard.ActiveLogs != int(n/perLog) {
			t.Errorf("shard %d with %d entries is %+v", i, n, shard)
		}
		if shard.Oldest == nil || shard.Oldest.Before(began.Add(-time.Second)) || shard.Oldest.After(time.Now()) || shard.OldestAge <= 0 || shard.OldestAge > time.Since(began).Seconds()+1 {
			t.Errorf("the oldest entry of shard %d is of %v, %v s", i, shard.Oldest, shard.OldestAge)
		}
	}
	table := statusTable(t, owner, shards)
	for i, row := range table {
		if n := fmt.Sprint(want[shardStream(uint64(i))]); row["STATE"] != "owned" || row["OWNER"] != process.ID[:8] || row["EPOCH"] != "1" ||
			row["MESSAGES"] != n || row["FLOOR"] != "0" || row["LAG"] != n || row["BUFFERED"] != n || row["OLDEST"] == "-" {
			t.Errorf("row %d, of %s entries, is %v", i, n, row)
		}
	}

	worker := with("worker").start()
	owner.awaitArchived()
	owner.until("the worker to wait for more", func() bool { s = owner.status(); return s.Queue.Items == 0 && s.Queue.Waiting > 0 })
	idle := func(p processStatus) bool {
		return slices.Equal(p.Roles, []string{"worker"}) && p.Workers > 0 && p.Shards == 0 && p.HTTP == worker.http
	}
	if len(s.Processes) != 2 || !slices.ContainsFunc(s.Processes, idle) {
		t.Errorf("the processes are %+v", s.Processes)
	}
	for i, shard := range s.Shards {
		if n := want[shard.Stream]; shard.Floor != n || shard.Last != n || shard.Buffered != 0 || shard.Queued != 0 || shard.Oldest != nil || shard.OldestAge != 0 {
			t.Errorf("shard %d, archived, is %+v", i, shard)
		}
	}

	owner.kill()
	for i, shard := range worker.status().Shards {
		if shard.State != "silent" || shard.Owner != "" || shard.Holder != process.ID {
			t.Errorf("shard %d, whose owner is dead, is %+v", i, shard)
		}
	}
	if out := worker.must("", "status"); strings.Count(out, "its owner does not answer") != shards {
		t.Errorf("the dead owner does not show:\n%s", out)
	}
	owner.start().until("it to own again", func() bool { return owner.owned() == shards })
	for _, in := range []*instance{worker, owner} {
		if code := in.stop(); code != 0 {
			t.Errorf("exit %d\n%s", code, in.tailOfLog())
		}
	}
	s = owner.status()
	if len(s.Processes) != 0 || len(s.Shards) != shards {
		t.Errorf("with no process there it is %+v", s)
	}
	for i, shard := range s.Shards {
		if shard.State != "unowned" || shard.Owner != "" || shard.Holder != "" || shard.Epoch != 2 || shard.Floor != want[shard.Stream] || shard.Lag != 0 {
			t.Errorf("shard %d, of nobody, is %+v", i, shard)
		}
	}
	for i, row := range statusTable(t, owner, shards) {
		if row["STATE"] != "unowned" || row["OWNER"] != "-" || row["OLDEST"] != "-" {
			t.Errorf("row %d is %v", i, row)
		}
	}
}

// statusTable returns the rows of the shards that `dormouse status` prints, by the heads of their columns.
func statusTable(t *testing.T, in *instance, shards int) (rows []map[string]string) {
	t.Helper()
	out := in.must("", "status")
	_, text, _ := strings.Cut(out, "\nSHARD")
	text, queue, ok := strings.Cut("SHARD"+text, "\n\n")
	lines := strings.Split(text, "\n")
	if !ok || !strings.HasPrefix(out, "PROCESS") || !strings.HasPrefix(queue, "QUEUE") || len(lines) != shards+1 {
		t.Fatalf("status printed\n%s", out)
	}
	heads := strings.Fields(lines[0])
	for _, line := range lines[1:] {
		row := make(map[string]string)
		for i, field := range strings.Fields(line)[:len(heads)] {
			row[heads[i]] = field
		}
		rows = append(rows, row)
	}
	return rows
}

// TestOddWorkItems does to the queue of a running system what redeliveries and foreign hands do: every real item comes two
// more times, some are taken and given back, and some are none. It costs tries, and nothing else.
func TestOddWorkItems(t *testing.T) {
	const rounds = 12
	in := newInstance(t, fast...)
	in.args = append(in.args, "--shards", "2", "--workers", "4", "--requeue-after", "1m") // no item leaves the queue by its age
	in.start()
	nc, js := dial(t, in.nats)
	const made = "Made" // header of the items that are not the owners'
	var copies atomic.Int64
	sub, err := nc.Subscribe(wire.SyncQueueSubjects, func(msg *nats.Msg) {
		if msg.Header.Get(made) != "" {
			return
		}
		for range 2 {
			if err := nc.PublishMsg(&nats.Msg{Subject: msg.Subject, Data: msg.Data, Header: nats.Header{made: {"copy"}}}); err == nil {
				copies.Add(1)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	put := func(shard wire.Shard, data []byte) {
		t.Helper()
		if _, err := js.PublishMsg(t.Context(), &nats.Msg{Subject: shard.SyncSubject(), Data: data, Header: nats.Header{made: {"odd"}}}); err != nil {
			t.Fatal(err)
		}
	}
	o := newOracle()
	load := startPublishers(t, in.nats, o, 11)
	thief, err := js.Consumer(t.Context(), wire.SyncQueueStream, wire.SyncQueuePool)
	if err != nil {
		t.Fatal(err)
	}
	item := func(shard wire.Shard, epoch uint64, logs ...string) []byte {
		data, err := wire.Encode(wire.WorkItem{Shard: shard, Epoch: epoch, Logs: logs})
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	poison, stale := 0, 0
	for i := range rounds {
		for _, odd := range [][]byte{[]byte("garbage"), nil, item(0, 1), item(0, 1, "no-log"), item(1, 1, "t1.b", "t1.a")} {
			put(wire.Shard(i%2), odd)
			poison++
		}
		for _, odd := range []wire.WorkItem{{Shard: 0, Epoch: 0}, {Shard: 1, Epoch: 99}, {Shard: 77, Epoch: 1}} {
			put(odd.Shard, item(odd.Shard, odd.Epoch, "t0.log0", "t1.log1"))
			stale++
		}
		// Logs of which some have nothing buffered and some are in the other shard.
		put(0, item(0, 1, "nobody.log", "t0.log0", "t1.log1", "t2.log2"))
		stolen, err := thief.Fetch(1, jetstream.FetchMaxWait(200*time.Millisecond))
		if err != nil {
			t.Fatal(err)
		}
		for msg := range stolen.Messages() {
			if err := msg.Nak(); err != nil {
				t.Fatal(err)
			}
		}
	}
	load.stop()
	entries, _ := o.count()
	in.awaitArchived()
	if err := sub.Unsubscribe(); err != nil {
		t.Fatal(err)
	}
	in.until("the queue to be empty", func() bool { return in.status().Queue.Items == 0 })
	o.check(in)
	if got, want := in.must("", "verify"), fmt.Sprintf(" %d entries: 0 bad", entries); !strings.Contains(got, want) {
		t.Errorf("verify printed %q, want %q", got, want)
	}
	m := in.metrics()
	outcome := func(what string) int { return int(m[`dormouse_work_items_total{outcome="`+what+`"}`]) }
	if outcome("poison") != poison || outcome("stale") != stale {
		t.Errorf("%d items were poison and %d stale, want %d and %d", outcome("poison"), outcome("stale"), poison, stale)
	}
	t.Logf("%d entries, %d copies of items, %d items done, %d given back, %v extents refused", entries, copies.Load(), outcome("done"),
		outcome("abandoned"), m["dormouse_extents_refused_total"])
	if n := int(copies.Load()); n == 0 || outcome("done") <= n {
		t.Errorf("%d items were done, of which %d are copies: they did not get there", outcome("done"), n)
	}
}
