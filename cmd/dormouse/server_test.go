package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"dormouse/internal/topology"
)

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

// testConfig is of a process with everything in it, on free ports.
func testConfig(t *testing.T) *serveConfig {
	t.Helper()
	c := &serveConfig{data: t.TempDir(), natsListen: "127.0.0.1:0", http: "127.0.0.1:0",
		roles: []string{roleIngest, roleWorker}, workers: 2, maxDelay: time.Second, requeueAfter: time.Minute,
		tick: 10 * time.Millisecond, lease: 10 * time.Second, linger: time.Millisecond,
		syncInterval: time.Second, grace: time.Second, gcGrace: time.Hour, mergeShare: 0.25,
		maxBytes: 1 << 20, bufferLimit: 1 << 20, segmentBytes: 1 << 20,
		trim: &choice{value: "auto"}, compression: &choice{value: "zstd"}, replicas: 1}
	if err := c.complete(""); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestProgramServesAndStops runs the whole program in this process, with goleak watching what it leaves.
func TestProgramServesAndStops(t *testing.T) {
	p, err := newServer(t.Context(), testConfig(t), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.run(ctx) }()
	base := "http://" + p.http.addr()
	deadline := time.Now().Add(20 * time.Second)
	code, body := get(t, base+"/readyz")
	for ; code != http.StatusOK; code, body = get(t, base+"/readyz") {
		if time.Now().After(deadline) {
			t.Fatalf("never ready: %s", body)
		}
	}
	for path, want := range map[string]string{"/livez": "ok", "/": "Ready.", "/debug/pprof/": "goroutine",
		"/debug/pprof/cmdline": "test"} {
		if code, body := get(t, base+path); code != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: %d, %q", path, code, body)
		}
	}
	_, metrics := get(t, base+"/metrics")
	for _, name := range []string{"dormouse_logs_active", "dormouse_entries_ingested_total",
		"dormouse_entries_synced_total", "dormouse_segments_committed_total", "dormouse_buffer_bytes",
		"dormouse_deadline_lateness_seconds_count",
		"dormouse_sync_delay_seconds_count", "dormouse_workers_busy", "go_goroutines", "process_resident_memory_bytes"} {
		if !strings.Contains(metrics, "\n"+name+" ") {
			t.Errorf("no metric %s", name)
		}
	}
	if code, _ := get(t, base+"/nonsense"); code != http.StatusNotFound {
		t.Errorf("/nonsense: %d", code)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestReadinessNamesWhatIsWrong(t *testing.T) {
	h, err := newHTTPServer("127.0.0.1:0", prometheus.NewRegistry(), []check{
		{"archive", func(context.Context) error { return errors.New("no such bucket") }},
		{"nats", func(context.Context) error { return nil }},
	}, func() []string { return nil }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.run(ctx) }()
	code, body := get(t, "http://"+h.addr()+"/readyz")
	if code != http.StatusServiceUnavailable || !strings.Contains(body, "archive: no such bucket") ||
		strings.Contains(body, "nats") {
		t.Errorf("%d, %q", code, body)
	}
	if code, _ := get(t, "http://"+h.addr()+"/livez"); code != http.StatusOK {
		t.Errorf("a process that is not ready is alive all the same: %d", code)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	http.DefaultClient.CloseIdleConnections()
}

// TestLasting: a server process waits for a cluster that is still starting, and ends when somebody has to decide.
func TestLasting(t *testing.T) {
	for name, tc := range map[string]struct {
		err     error
		lasting bool
	}{
		"refused stream":      {fmt.Errorf("%w: stream LOGS", topology.ErrRefused), true},
		"closed connection":   {nats.ErrConnectionClosed, true},
		"bad request":         {fmt.Errorf("making: %w", &jetstream.APIError{Code: 400, ErrorCode: 10052}), true},
		"peers not there yet": {fmt.Errorf("making: %w", &jetstream.APIError{Code: 400, ErrorCode: errCodePeers}), false},
		"no leader":           {&jetstream.APIError{Code: 503, ErrorCode: 10008}, false},
		"replicas of one":     {&jetstream.APIError{Code: 500, ErrorCode: errCodeNoCluster}, true},
		"no room":             {&jetstream.APIError{Code: 500, ErrorCode: errCodeStorage}, false},
		"no answer":           {nats.ErrNoResponders, false},
	} {
		if lasting(tc.err) != tc.lasting {
			t.Errorf("%s: lasting is %t", name, !tc.lasting)
		}
	}
}

// TestEndBeforeServing: to end is what the process was told, also while it waits for JetStream.
func TestEndBeforeServing(t *testing.T) {
	// without JetStream
	ns, err := natsserver.NewServer(&natsserver.Options{Host: "127.0.0.1", Port: natsserver.RANDOM_PORT, NoLog: true,
		NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	ns.Start()
	defer func() { ns.Shutdown(); ns.WaitForShutdown() }()
	if !ns.ReadyForConnections(20 * time.Second) {
		t.Fatal("the NATS server is not ready")
	}
	ctx, end := context.WithCancel(t.Context())
	defer end()
	defer time.AfterFunc(300*time.Millisecond, end).Stop()
	var said strings.Builder
	code := run(ctx, []string{"serve", "--nats-url", ns.ClientURL(), "--data", t.TempDir(), "--http", "127.0.0.1:0"}, nil,
		io.Discard, &said)
	if code != exitOK {
		t.Fatalf("exit %d:\n%s", code, said.String())
	}
}
