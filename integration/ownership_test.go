package integration

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"dormouse/internal/topology"
	"dormouse/internal/wire"
)

// status is what `dormouse status --output json` says, as far as tests look at it.
type status struct {
	Processes []processStatus
	Shards    []struct {
		Stream, State, Owner        string
		Shard, Epoch, Messages, Lag uint64
		Last, Floor, Applied        uint64
		Holder                      string     `json:"lease_holder"`
		ActiveLogs                  int        `json:"active_logs"`
		Buffered                    uint64     `json:"buffered_entries"`
		Queued                      uint64     `json:"queued_items"`
		Oldest                      *time.Time `json:"oldest"`
		OldestAge                   float64    `json:"oldest_age_seconds"`
	}
	Queue struct {
		Items   uint64
		InWork  int `json:"in_work"`
		Waiting int `json:"waiting_pulls"`
	}
}

type processStatus struct {
	ID, HTTP      string
	Name, Archive string
	Roles         []string
	Shards        int
	Workers, Busy int
}

func (in *instance) status() (s status) {
	in.t.Helper()
	o := in.run("", "status", "--output", "json") // which exits with 1 when it tells of problems
	if err := json.Unmarshal([]byte(o.Out), &s); err != nil || o.Code > 1 {
		in.t.Fatalf("exit %d, %v, %s", o.Code, err, o.Err)
	}
	return s
}

// awaitArchived waits until every shard's owner has archived all, and all of it is trimmed.
func (in *instance) awaitArchived() {
	in.t.Helper()
	in.until("everything to be archived", func() bool {
		for _, s := range in.status().Shards {
			if s.State != "owned" || s.Lag > 0 || s.Messages > 0 || s.ActiveLogs > 0 {
				return false
			}
		}
		return true
	})
}

func (in *instance) owned() float64 { return in.metrics()["dormouse_shards_owned"] }

// shardedNATS is an outside NATS with a system of several shards.
func shardedNATS(t *testing.T, shards int) *outsideNATS {
	nats := startOutsideNATS(t)
	m := topology.PartitionMapping(shards)
	if err := nats.server.GlobalAccount().AddMapping(m.From, m.To); err != nil {
		t.Fatal(err)
	}
	nats.instance().must("", "provision", "--shards", fmt.Sprint(shards), "--lease", "2s", "--requeue-after", "3s")
	return nats
}

// TestOwnership runs ingest and workers as processes of their own, and lets owners leave in order, die and join under
// load.
func TestOwnership(t *testing.T) {
	t.Parallel()
	const shards = 4
	nats := shardedNATS(t, shards)
	bucket := "file://" + filepath.Join(t.TempDir(), "archive")
	args := func(role string) []string { return append([]string{"--archive", bucket, "--roles", role}, fast...) }
	pair := []*instance{nats.instance(args("ingest")...).start(), nats.instance(args("ingest")...).start()}
	worker := nats.instance(args("worker")...).start()
	pair[0].until("even shares", func() bool { return pair[0].owned() == 2 && pair[1].owned() == 2 })
	o := newOracle()
	load := startPublishers(t, nats.addr, o, 9)
	a, b := pair[0], pair[1]
	rounds := 2
	if testing.Short() {
		rounds = 1
	}
	for range rounds {
		left := time.Now()
		stopped := make(chan int, 1)
		go func() { stopped <- a.stop() }()
		b.until("the handover", func() bool { return b.owned() == shards })
		gap := time.Since(left)
		if code := <-stopped; code != 0 || gap > 2*time.Second {
			t.Errorf("SIGTERM: exit %d, all shards were owned again after %s, want at most 2 s", code, gap)
		}
		a.start().until("its share", func() bool { return a.owned() == 2 && b.owned() == 2 })
		killed := time.Now()
		a.kill()
		b.until("the takeover", func() bool { return b.owned() == shards })
		t.Logf("handed over in %s, taken over from the dead in %s", gap.Round(time.Millisecond),
			time.Since(killed).Round(time.Millisecond))
		a.start().until("its share", func() bool { return a.owned() == 2 && b.owned() == 2 })
		a, b = b, a
	}
	load.Stop()
	o.check(b)
	s := b.status()
	if len(s.Processes) != 3 || len(s.Shards) != shards {
		t.Errorf("status shows %+v", s)
	}
	for _, p := range s.Processes {
		if want := map[bool]int{true: 2, false: 0}[slices.Contains(p.Roles, "ingest")]; p.Shards != want {
			t.Errorf("status shows process %+v", p)
		}
	}
	b.awaitArchived()
	o.check(b)
	t.Log(b.must("", "verify"))
	for _, in := range []*instance{a, b} {
		if m := in.metrics(); m["dormouse_entries_lost_total"] != 0 {
			t.Errorf("%v entries count as lost", m["dormouse_entries_lost_total"])
		}
	}
	if code := worker.stop(); code != 0 {
		t.Errorf("the worker ended with %d", code)
	}
}

// TestFrozenOwner stops an owner until its successor works, with a question waiting in its socket, and lets it go on:
// it must not answer it from what it remembers, commit nothing, step down by itself, and be able to own again.
func TestFrozenOwner(t *testing.T) {
	t.Parallel()
	nats := startOutsideNATS(t)
	bucket := "file://" + filepath.Join(t.TempDir(), "archive")
	args := append([]string{"--archive", bucket, "--roles", "ingest"}, fast...)
	frozen := nats.instance(args...).start()
	frozen.until("the first to own", func() bool { return frozen.owned() == 1 })
	successor := nats.instance(args...).start()
	nats.instance(append([]string{"--archive", bucket, "--roles", "worker"}, fast...)...).start()
	o := newOracle()
	load := startPublishers(t, nats.addr, o, 10)
	successor.until("some commits", func() bool { return frozen.metrics()["dormouse_segments_committed_total"] > 3 })
	epoch := successor.status().Shards[0].Epoch
	frozen.signal(syscall.SIGSTOP)
	successor.until("the takeover", func() bool { return successor.owned() == 1 })
	successor.until("some commits", func() bool { return successor.metrics()["dormouse_segments_committed_total"] > 3 })
	nc, _ := dial(t, nats.addr)
	answers, err := nc.SubscribeSync(nc.NewInbox())
	if err != nil {
		t.Fatal(err)
	}
	question, err := wire.Encode(wire.ListRequest{})
	if err == nil {
		err = nc.PublishRequest(wire.OwnerSubject(0, epoch, wire.OpList), answers.Subject, question)
	}
	if err == nil {
		err = nc.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	frozen.signal(syscall.SIGCONT)
	msg, err := answers.NextMsg(patience)
	if err != nil {
		t.Fatalf("the owner that went on did not answer: %v", err)
	}
	var reply wire.ListReply
	if err := wire.Decode(msg.Data, &reply); err != nil {
		t.Fatal(err)
	}
	if reply.Code == wire.OK {
		t.Errorf("an owner that was frozen answered from what it remembers: %+v", reply)
	}
	frozen.until("it to step down", func() bool { return frozen.owned() == 0 && frozen.ready() })
	successor.signal(syscall.SIGSTOP)
	frozen.until("it to own again", func() bool { return frozen.owned() == 1 })
	successor.signal(syscall.SIGCONT)
	successor.until("the successor to step down", func() bool { return successor.owned() == 0 && successor.ready() })
	load.Stop()
	for _, in := range []*instance{frozen, successor} {
		if strings.Contains(in.Output(), "level=ERROR") {
			t.Errorf("a freeze is no error of the process:\n%s", in.Output())
		}
	}
	frozen.awaitArchived()
	o.check(frozen)
	t.Log(frozen.must("", "verify"))
}
