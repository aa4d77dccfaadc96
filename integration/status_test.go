package integration

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestStatusOutput looks at a sharded system while nothing works on it, while it is archived, when its owner is dead,
// and when no process is there.
func TestStatusOutput(t *testing.T) {
	t.Parallel()
	const shards, perLog = 2, 10
	outside := shardedNATS(t, shards)
	bucket := "file://" + filepath.Join(t.TempDir(), "archive")
	with := func(role string) *instance { // of which a dead one keeps its shards for the rest of the test
		return outside.instance(append([]string{"--archive", bucket, "--roles", role},
			append(fast, "--lease", "1m", "--requeue-after", "1m")...)...)
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
	if !slices.Equal(process.Roles, []string{"ingest"}) || process.Shards != shards || process.Workers != 0 ||
		process.HTTP != owner.http || process.Name != owner.name() || process.Archive != bucket {
		t.Errorf("the process is %+v", process)
	}
	for i, shard := range s.Shards {
		n := want[shard.Stream]
		if shard.Shard != uint64(i) || shard.State != "owned" || shard.Owner != process.ID || shard.Holder != process.ID ||
			shard.Epoch != 1 ||
			shard.Messages != n || shard.Last != n || shard.Applied != n || shard.Lag != n || shard.Floor != 0 ||
			shard.ActiveLogs != int(n/perLog) {
			t.Errorf("shard %d with %d entries is %+v", i, n, shard)
		}
		if shard.Oldest == nil || shard.Oldest.Before(began.Add(-time.Second)) || shard.Oldest.After(time.Now()) ||
			shard.OldestAge <= 0 || shard.OldestAge > time.Since(began).Seconds()+1 {
			t.Errorf("the oldest entry of shard %d is of %v, %v s", i, shard.Oldest, shard.OldestAge)
		}
	}
	table := statusTable(t, owner, shards)
	for i, row := range table {
		if n := fmt.Sprint(want[shardStream(uint64(i))]); row["STATE"] != "owned" || row["OWNER"] != process.Name ||
			row["EPOCH"] != "1" ||
			row["MESSAGES"] != n || row["FLOOR"] != "0" || row["LAG"] != n || row["BUFFERED"] != n || row["OLDEST"] == "-" {
			t.Errorf("row %d, of %s entries, is %v", i, n, row)
		}
	}

	worker := with("worker").start()
	owner.awaitArchived()
	owner.until("the worker to wait for more", func() bool {
		s = owner.status()
		return s.Queue.Items == 0 && s.Queue.Waiting > 0
	})
	idle := func(p processStatus) bool {
		return slices.Equal(p.Roles, []string{"worker"}) && p.Workers > 0 && p.Shards == 0 && p.HTTP == worker.http
	}
	if len(s.Processes) != 2 || !slices.ContainsFunc(s.Processes, idle) {
		t.Errorf("the processes are %+v", s.Processes)
	}
	for i, shard := range s.Shards {
		if n := want[shard.Stream]; shard.Floor != n || shard.Last != n || shard.Buffered != 0 || shard.Queued != 0 ||
			shard.Oldest != nil || shard.OldestAge != 0 {
			t.Errorf("shard %d, archived, is %+v", i, shard)
		}
	}

	owner.kill()
	for i, shard := range worker.status().Shards {
		if shard.State != "silent" || shard.Owner != "" || shard.Holder != process.ID {
			t.Errorf("shard %d, whose owner is dead, is %+v", i, shard)
		}
	}
	if o := worker.run("", "status"); o.Code != 1 || strings.Count(o.Out, "its owner does not answer") != shards {
		t.Errorf("the dead owner does not show:\n%s", o.Out)
	}
	owner.start().until("it to own again", func() bool { return owner.owned() == shards })
	for _, in := range []*instance{worker, owner} {
		if code := in.stop(); code != 0 {
			t.Errorf("exit %d\n%s", code, in.Tail())
		}
	}
	s = owner.status()
	if len(s.Processes) != 0 || len(s.Shards) != shards {
		t.Errorf("with no process there it is %+v", s)
	}
	for i, shard := range s.Shards {
		if shard.State != "unowned" || shard.Owner != "" || shard.Holder != "" || shard.Epoch != 2 ||
			shard.Floor != want[shard.Stream] || shard.Lag != 0 {
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
	o := in.run("", "status") // which exits with 1 when it tells of problems
	out := o.Out[max(strings.Index(o.Out, "PROCESS"), 0):]
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
