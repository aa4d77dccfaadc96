package integration

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/shardid"
	"dormouse/internal/topology"
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

// publishAll publishes n entries to each log, in turns, waits for all acks, tells the oracle and returns the stream
// that each log went to.
func publishAll(t *testing.T, js jetstream.JetStream, o oracle, prefix string, logs []string, n int,
	what string) map[string]string {
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
			o.Tell(s.log, s.data, ack)
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
	in.Log = logFile(in.t) // of this start alone
	in.launch()
	in.untilEnded()
	code, text := in.wait(), in.Output()
	for _, part := range says {
		if code != 1 || !strings.Contains(text, part) {
			in.t.Errorf("exit %d, want 1 and a message that says %q:\n%s", code, part, text)
		}
	}
}

// TestEmbeddedShards spreads tenants over the shards of one process, whose server maps them also after a restart
// without
// --shards, and refuses to change the number.
func TestEmbeddedShards(t *testing.T) {
	t.Parallel()
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
		if want := topology.PartitionStream(topology.PartitionOf(tenant, shards)); home != want {
			t.Errorf("%s is in %s, want %s", log, home, want)
		}
	}
	in.awaitArchived()
	checkSpread(t, in.status(), homes, perLog)
	o.checkLogs(in, oneOfEach(homes)...) // all of them are read below
	checkEveryLog(t, in, homes, perLog)
	if code := in.stop(); code != 0 {
		t.Fatalf("exit %d\n%s", code, in.Tail())
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
		t.Fatalf("exit %d\n%s", code, in.Tail())
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

func shardStream(shard uint64) string { return topology.PartitionStream(shardid.Shard(shard)) }

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
	got, want := in.must("", "verify"), fmt.Sprintf(" %d entries: 0 bad", perLog*len(homes))
	if !strings.Contains(got, want) {
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
