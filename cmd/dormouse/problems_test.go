package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"dormouse/internal/shardid"
	"dormouse/internal/topology"
	"dormouse/internal/wire"
	"dormouse/store/client"
)

// healthy is a system of two processes and two shards in which all is well.
func healthy() client.Status {
	a := wire.Process{ID: "aaaaaaaa-1", Host: "web-1", Roles: []string{roleIngest, roleWorker}, Workers: 4,
		Archive: "s3://logs"}
	b := wire.Process{ID: "bbbbbbbb-2", Host: "web-2", Roles: []string{roleIngest}, Archive: "s3://logs"}
	owned := func(shard shardid.Shard, p wire.Process) client.ShardStatus {
		return client.ShardStatus{Source: topology.Source{Shard: shard}, Holder: p.ID, Name: p.Name(),
			Owner: &wire.ShardStatus{Shard: shard, State: wire.ShardOwned}}
	}
	return client.Status{Processes: []wire.Process{a, b}, Shards: []client.ShardStatus{owned(0, a), owned(1, b)},
		Queue: client.QueueStatus{Items: 3}}
}

// TestProblems breaks one thing at a time: each has its line, with what to try, and nothing else has.
func TestProblems(t *testing.T) {
	if got := problemsOf(healthy()); got == nil || len(got) != 0 {
		t.Fatalf("a healthy system has the problems %q", got)
	}
	for name, tc := range map[string]struct {
		breaks func(*client.Status)
		says   []string
	}{
		"no owner": {func(s *client.Status) { s.Shards[1].Owner, s.Shards[1].Holder = nil, "" },
			[]string{"shard 1 has no owner", "/readyz"}},
		"no owner, and nobody to be it": {func(s *client.Status) {
			s.Processes[0].Roles, s.Processes[1].Roles = []string{roleWorker}, nil
			for i := range s.Shards {
				s.Shards[i].Owner, s.Shards[i].Holder = nil, ""
			}
		}, []string{"shards 0, 1 have no owner", "serve --roles ingest"}},
		"a takeover": {func(s *client.Status) {
			s.Shards[0].Owner.State, s.Shards[0].Owner.RecordsLeft = wire.ShardClaiming, 12
		},
			[]string{"shard 0 is being taken over by web-1/aaaaaaaa, 12 manifest records"}},
		"a shard that is stuck": {func(s *client.Status) {
			s.Processes[1].Shards = []wire.ShardStatus{{Shard: 1,
				Stuck: &wire.Stuck{Seq: 7, Subject: "logs.a\x00b", Reason: "taking entries in", Suspect: true}}}
		}, []string{"shard 1 is stuck at sequence 7", `logs.a\x00b`, "taking entries in", "provision --skip 1:7"}},
		"a shard that is stuck at nothing": {func(s *client.Status) {
			reason := "claiming the shard: " + strings.Repeat("because ", 60) + "restore it"
			s.Processes[1].Shards = []wire.ShardStatus{{Shard: 1, Stuck: &wire.Stuck{Reason: reason}}}
		}, []string{"shard 1 is stuck since", "claiming the shard", "restore it"}},
		"a silent owner": {func(s *client.Status) {
			s.Silent = []client.Silent{{ID: "cccccccc", Name: "web-3/cccccccc", Shards: []shardid.Shard{1}}}
			s.Shards[1].Owner = nil // its lease is held
		}, []string{"process web-3/cccccccc does not answer", "lease of shard 1", "frozen or cut off"}},
		"a bucket": {func(s *client.Status) { s.Processes[1].Bucket = "no\x1b such bucket" },
			[]string{"bucket of process web-2/bbbbbbbb fails: no? such bucket", "credentials"}},
		"not ready": {func(s *client.Status) { s.Processes[1].NotReady = "nats: not connected" },
			[]string{"web-2/bbbbbbbb is not ready: nats: not connected"}},
		"two archives": {func(s *client.Status) { s.Processes[1].Archive = "file:///b" },
			[]string{"file:///b (web-2/bbbbbbbb), s3://logs (web-1/aaaaaaaa)", "same --archive"}},
		"no worker": {func(s *client.Status) { s.Processes[0].Workers = 0 },
			[]string{"3 work items wait", "serve --roles worker"}},
		"a copied data": {func(s *client.Status) { s.Processes[1].ID = s.Processes[0].ID },
			[]string{"two processes are called", "node-id"}},
		"an older version": {func(s *client.Status) { s.Processes[1].Archive = "" }, nil},
	} {
		s := healthy()
		tc.breaks(&s)
		got := problemsOf(s)
		if len(got) != min(1, len(tc.says)) {
			t.Errorf("%s: %q", name, got)
			continue
		}
		for _, part := range tc.says {
			if !strings.Contains(got[0], part) {
				t.Errorf("%s: %q does not say %q", name, got[0], part)
			}
		}
	}
}

// TestProblemsAreBounded: a thousand processes of one kind of trouble are few lines, and other kinds stay in sight.
func TestProblemsAreBounded(t *testing.T) {
	s := healthy()
	for i := range 1000 {
		s.Silent = append(s.Silent, client.Silent{Name: fmt.Sprint("p", i)})
		s.Shards = append(s.Shards, client.ShardStatus{Source: topology.Source{Shard: shardid.Shard(i + 2)}})
	}
	s.Processes[0].Bucket = "gone"
	got := problemsOf(s)
	if len(got) != 1+mostOfAKind+1+1 || !strings.Contains(got[0], "and 990 more have no owner") ||
		!strings.Contains(got[mostOfAKind+1], "and 990 more of that kind") ||
		!strings.Contains(got[mostOfAKind+2], "gone") {
		t.Errorf("%d problems: %q", len(got), got)
	}
}

// TestHealthIsTold: who asks for the status does not wait for a slow bucket, and has the outcome when he asks again.
func TestHealthIsTold(t *testing.T) {
	release := make(chan struct{})
	var looks atomic.Int32
	h := newHealth([]check{
		{"archive", func(context.Context) error { looks.Add(1); <-release; return errors.New("no such bucket") }},
		{"ingest", func(context.Context) error { return errors.New("shard 0 is starting") }},
	})
	defer h.close()
	var p wire.Process
	began := time.Now()
	if h.tell(&p); !p.Looking || p.Bucket != "" || time.Since(began) > readyTimeout {
		t.Errorf("after %s, while the bucket does not answer: %+v", time.Since(began), p)
	}
	close(release)
	_ = h.problem() // as a probe does, which waits for the look
	if h.tell(&p); p.Looking || p.Bucket != "no such bucket" || p.NotReady != "ingest: shard 0 is starting" {
		t.Errorf("then: %+v", p)
	}
	if n := looks.Load(); n != 1 {
		t.Errorf("the bucket was asked %d times", n)
	}
}

// TestHealthEnds: looks do not outlive their process.
func TestHealthEnds(t *testing.T) {
	var ended atomic.Bool
	h := newHealth([]check{{"archive", func(ctx context.Context) error {
		<-ctx.Done()
		ended.Store(true)
		return ctx.Err()
	}}})
	var p wire.Process
	h.tell(&p)
	if h.close(); !ended.Load() {
		t.Error("a look goes on after the end")
	}
	if h.tell(&p); !p.Looking && p.Bucket == "" {
		t.Errorf("a process that ends says that all is well: %+v", p)
	}
}

// TestStatusTellsProblemsFirst in both formats.
func TestStatusTellsProblemsFirst(t *testing.T) {
	s := healthy()
	s.Processes[0].Bucket = "gone"
	report := reportOf(s, time.Now())
	var out strings.Builder
	if err := report.print(&out); err != nil {
		t.Fatal(err)
	}
	first, rest, _ := strings.Cut(out.String(), "\n")
	if !strings.HasPrefix(first, "PROBLEM: the bucket of process web-1/aaaaaaaa fails: gone") ||
		!strings.HasPrefix(rest, "\nPROCESS") || !strings.Contains(rest, "web-2/bbbbbbbb") {
		t.Errorf("it prints\n%s", out.String())
	}
	if !slices.Equal(report.Problems, problemsOf(s)) || problemsError(report.Problems) == nil ||
		problemsError(nil) != nil {
		t.Errorf("the problems are %q", report.Problems)
	}
	if report.Processes[0].Ready || !report.Processes[1].Ready {
		t.Error("the wrong process is ready")
	}
}
