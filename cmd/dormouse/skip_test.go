package main

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/jsapi"
	"dormouse/internal/natstest"
	"dormouse/internal/rejected"
	"dormouse/internal/wire"
)

// skipping is a NATS server with Dormouse's streams, and the program if it is started.
type skipping struct {
	t       *testing.T
	srv     *natsserver.Server
	js      jetstream.JetStream
	program *server
}

func newSkipping(t *testing.T) *skipping {
	t.Helper()
	srv := natstest.Start(t, func(o *natsserver.Options) {
		o.DontListen, o.Host, o.Port = false, "127.0.0.1",
			natsserver.RANDOM_PORT
	})
	if !srv.ReadyForConnections(10 * time.Second) {
		t.Fatal("the NATS server did not start")
	}
	_, js := natstest.Dial(t, srv)
	s := &skipping{t: t, srv: srv, js: js}
	s.skip(exitOK, "LOGS", "provision")
	return s
}

// skip runs a command and compares its code and what it says.
func (s *skipping) skip(code int, says string, args ...string) {
	s.t.Helper()
	got := command(s.t.Context(), nil, append(args, "--nats-url", s.srv.ClientURL())...)
	if got.code != code || !strings.Contains(got.out+got.errors, says) {
		s.t.Errorf("dormouse %s: %+v, want %d and %q", strings.Join(args, " "), got, code, says)
	}
}

func (s *skipping) publish(subject string, header nats.Header, payload string) {
	s.t.Helper()
	if _, err := s.js.PublishMsg(s.t.Context(), &nats.Msg{Subject: subject, Header: header,
		Data: []byte(payload)}); err != nil {
		s.t.Fatal(err)
	}
}

// start starts the program, until the test ends.
func (s *skipping) start() {
	s.t.Helper()
	c := &serveConfig{data: s.t.TempDir(), target: target{url: s.srv.ClientURL()}, http: "127.0.0.1:0",
		roles: []string{roleIngest}, workers: 1, maxDelay: time.Hour, requeueAfter: 2 * time.Hour,
		tick: 10 * time.Millisecond, lease: time.Second, linger: time.Millisecond, trimDelay: time.Minute,
		syncInterval: time.Second, grace: time.Second, gcGrace: time.Hour, mergeShare: 0.25,
		maxBytes: 1 << 20, bufferLimit: 1 << 20, segmentBytes: 1 << 20,
		trim: &choice{value: "auto"}, compression: &choice{value: "zstd"}, replicas: 1}
	if err := c.complete(""); err != nil {
		s.t.Fatal(err)
	}
	var err error
	if s.program, err = newServer(s.t.Context(), c, slog.New(slog.NewTextHandler(s.t.Output(), nil))); err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(s.t.Context())
	done := make(chan error, 1)
	go func() { done <- s.program.run(ctx) }()
	s.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			s.t.Error(err)
		}
	})
}

func (s *skipping) awaitMetric(line string) {
	s.t.Helper()
	url := "http://" + s.program.http.addr()
	for deadline := time.Now().Add(20 * time.Second); ; {
		_, metrics := get(s.t, url+"/metrics")
		if strings.Contains(metrics, "\n"+line+"\n") {
			return
		}
		if time.Now().After(deadline) {
			_, ready := get(s.t, url+"/readyz")
			s.t.Fatalf("waited for %s: %s", line, ready)
		}
	}
}

// skipped checks what is kept of a skipped message, and that the source stream has it no more.
func (s *skipping) skipped(seq uint64, content string) {
	s.t.Helper()
	if _, err := jsapi.Get(s.t.Context(), s.js, wire.DefaultSource, seq); !errors.Is(err, jetstream.ErrMsgNotFound) {
		s.t.Errorf("message %d is still there: %v", seq, err)
	}
	kept, err := jsapi.GetLast(s.t.Context(), s.js, wire.RejectedStream, wire.SkippedSubject(0))
	if err != nil {
		s.t.Fatal(err)
	}
	from, _, err := rejected.Origin(kept.Header)
	if err != nil || from != seq || string(kept.Data) != content || !strings.Contains(string(kept.Header), skippedReason) {
		s.t.Errorf("kept is %q with %q, %v", kept.Data, kept.Header, err)
	}
}

// TestSkipWithoutAnOwner: the next owner steps over the message, and counts no loss.
func TestSkipWithoutAnOwner(t *testing.T) {
	s := newSkipping(t)
	s.publish("logs.t.a", nil, "1")
	s.publish("logs.t.a", nats.Header{"A": {"1"}}, "2")
	s.publish("logs.t.a", nil, "3")
	for _, wrong := range []string{"1", "0:0", "x:1", "0:", "0:-1", "0:1:2"} {
		s.skip(exitUsage, "want SHARD:SEQUENCE", "provision", "--skip", wrong)
	}
	s.skip(exitFailed, "no such shard", "provision", "--skip", "7:2")
	s.skip(exitFailed, "does not have it: it holds 3 messages from 1 to 3", "provision", "--skip", "0:4")
	s.skip(exitOK, `skipped sequence 2 of shard 0 ("logs.t.a")`, "provision", "--skip", "0:2")
	s.skipped(2, "NATS/1.0\r\nA: 1\r\n\r\n2")
	s.skip(exitOK, "was skipped before", "provision", "--skip", "0:2")
	s.skip(exitOK, "skipped sequence 3", "provision", "--skip", "0:3")
	s.skipped(3, "3")
	s.start()
	s.awaitMetric("dormouse_entries_ingested_total 1")
	s.awaitMetric("dormouse_entries_rejected_total 2")
	s.awaitMetric("dormouse_entries_lost_total 0")
	s.skip(exitFailed, "has taken it in", "provision", "--skip", "0:1")
}

// TestSkipWhatAnOwnerIsStuckAt: it goes on at once.
func TestSkipWhatAnOwnerIsStuckAt(t *testing.T) {
	s := newSkipping(t)
	if err := s.srv.GlobalAccount().AddMapping(wire.RejectedSubject(0), "nobody.hears"); err != nil {
		t.Fatal(err)
	}
	s.publish("logs.t.a", nil, "1")
	s.publish("logs.x", nats.Header{"A": {"1"}}, "no log token")
	s.publish("logs.t.a", nil, "3")
	s.start()
	s.awaitMetric("dormouse_shard_stuck 1")
	_, ready := get(t, "http://"+s.program.http.addr()+"/readyz")
	if !strings.Contains(ready, `sequence 2 ("logs.x")`) {
		t.Errorf("/readyz says %s", ready)
	}
	s.skip(exitFailed, `stuck at sequence 2 ("logs.x")`, "status") // which fails while there is a problem
	s.skip(exitFailed, `"seq": 2`, "status", "--output", "json")
	s.skip(exitOK, "skipped sequence 2", "provision", "--skip", "0:2")
	s.skipped(2, "NATS/1.0\r\nA: 1\r\n\r\nno log token")
	s.awaitMetric("dormouse_entries_ingested_total 2")
	s.awaitMetric("dormouse_shard_stuck 0")
	s.awaitMetric("dormouse_entries_rejected_total 1")
	s.awaitMetric("dormouse_entries_lost_total 0")
}
