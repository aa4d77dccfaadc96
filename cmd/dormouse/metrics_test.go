package main

import (
	"context"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"dormouse/internal/golden"
	"dormouse/internal/metricdoc"
	"dormouse/internal/natstest"
	"dormouse/internal/topology"
	"dormouse/internal/wire"
)

// family is one metric as a process has it: its type, its help, and the labels of its series, each as name=value,...
type family struct {
	kind, help string
	series     []string
}

// ownMetrics are the metrics of Dormouse's own that a process with both roles has when it has done nothing yet.
func ownMetrics(t *testing.T) map[string]family {
	t.Helper()
	p, err := newServer(t.Context(), testConfig(t), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.close(); err != nil {
			t.Error(err)
		}
	}()
	families, err := p.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range problems {
		if strings.HasPrefix(problem.Metric, "dormouse_") {
			t.Errorf("Prometheus does not like %s: %s", problem.Metric, problem.Text)
		}
	}
	own := make(map[string]family)
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "dormouse_") {
			continue
		}
		one := family{kind: strings.ToLower(f.GetType().String()), help: f.GetHelp()}
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			one.series = append(one.series, strings.Join(labels, ","))
		}
		slices.Sort(one.series)
		own[f.GetName()] = one
	}
	return own
}

// TestMetricsPage holds the list of metrics, the page and the program against each other.
func TestMetricsPage(t *testing.T) {
	const page = "../../docs/metrics.md"
	own := ownMetrics(t)
	for _, group := range metricdoc.Groups {
		for _, m := range group.Metrics {
			have, ok := own[m.Name]
			if !ok {
				t.Errorf("no process has the metric %s of internal/metricdoc from the start", m.Name)
				continue
			}
			if have.kind != m.Type {
				t.Errorf("%s is a %s, the list says %s", m.Name, have.kind, m.Type)
			}
			if !areOf(have.series, m.Labels) {
				t.Errorf("%s has the series %q from the start, which are not those of %v", m.Name, have.series, m.Labels)
			}
		}
	}
	if m, ok := metricdoc.Find("dormouse_sync_delay_seconds_bucket"); !ok || m.Name != "dormouse_sync_delay_seconds" {
		t.Errorf("a histogram's series are of %q", m.Name)
	}
	for name := range own {
		if m, ok := metricdoc.Find(name); !ok || m.Question == "" {
			t.Errorf("%s is not in internal/metricdoc: add it to list.go with the question that it answers, and run this test "+
				"with -update", name)
		}
	}
	want := metricdoc.Page(func(name string) string { return own[name].help })
	if golden.Update() {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(page)
	if err != nil || string(got) != want {
		t.Errorf("%s is not what the program has (%v): run `go test ./cmd/dormouse -run TestMetricsPage -update`", page, err)
	}
}

// areOf reports whether these are all the series of a metric with these labels: with one, all that its values make, and
// with open values a single one.
func areOf(series []string, labels []metricdoc.Label) bool {
	var names []string
	for _, l := range labels {
		names = append(names, l.Name)
	}
	for _, s := range series {
		var have []string
		for pair := range strings.SplitSeq(s, ",") {
			if name, _, ok := strings.Cut(pair, "="); ok {
				have = append(have, name)
			}
		}
		if !slices.Equal(have, names) {
			return false
		}
	}
	want := 1
	if len(labels) == 1 {
		want = len(labels[0].Values)
		for _, value := range labels[0].Values {
			if !slices.Contains(series, labels[0].Name+"="+value) {
				return false
			}
		}
	}
	return len(series) == want
}

// TestQueueLook: the depth of the queue and the age of its oldest item are JetStream's, asked for once for many
// scrapes, and stay known while JetStream does not answer.
func TestQueueLook(t *testing.T) {
	srv := natstest.Start(t)
	_, js := natstest.Dial(t, srv)
	if _, err := topology.Ensure(t.Context(), js, topology.Config{RequeueAfter: time.Minute,
		Lease: 10 * time.Second}); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := js.Publish(t.Context(), wire.SyncSubject(0), []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	asks := &countingStreams{JetStream: js}
	look := newQueueLook(asks)
	registry := prometheus.NewRegistry()
	registry.MustRegister(look)
	value := func(name string) float64 { return valueOf(t, registry, name) }
	first := value("dormouse_queue_oldest_seconds")
	if n := value("dormouse_queue_items"); n != 3 || first <= 0 {
		t.Errorf("%v items, the oldest is of %v s", n, first)
	}
	srv.Shutdown()
	look.mu.Lock()
	look.mu.asked = time.Now().Add(-queueEvery) // so it asks again, in vain
	look.mu.Unlock()
	later := value("dormouse_queue_oldest_seconds")
	if n := value("dormouse_queue_items"); n != 3 || later <= first {
		t.Errorf("while JetStream is away: %v items, the oldest is of %v s after %v s", n, later, first)
	}
	if asks.n != 2 {
		t.Errorf("four scrapes asked %d times, want 2", asks.n)
	}
}

// valueOf returns the value of a metric without labels.
func valueOf(t *testing.T, registry *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue() + f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("no %s", name)
	return 0
}

type countingStreams struct {
	jetstream.JetStream
	n int
}

func (c *countingStreams) Stream(ctx context.Context, name string) (jetstream.Stream, error) {
	c.n++
	return c.JetStream.Stream(ctx, name)
}

// TestConnectionShows: that a process is cut off from NATS, and that it came back, shows in its metrics.
func TestConnectionShows(t *testing.T) {
	options := func(o *natsserver.Options) { o.DontListen, o.Host, o.Port = false, "127.0.0.1", natsserver.RANDOM_PORT }
	srv := natstest.Start(t, options)
	if !srv.ReadyForConnections(10 * time.Second) {
		t.Fatal("the NATS server did not start")
	}
	port := srv.Addr().(*net.TCPAddr).Port
	nc, err := nats.Connect(srv.ClientURL(), nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	p := &server{nc: nc, js: js, registry: prometheus.NewRegistry()}
	if err := p.openMetrics(t.Context()); err != nil {
		t.Fatal(err)
	}
	shows := func(connected, reconnects float64) func() bool {
		return func() bool {
			return valueOf(t, p.registry, "dormouse_nats_connected") == connected &&
				valueOf(t, p.registry, "dormouse_nats_reconnects_total") == reconnects
		}
	}
	until(t, "it to be connected", shows(1, 0))
	srv.Shutdown()
	srv.WaitForShutdown()
	until(t, "it to be cut off", shows(0, 0))
	natstest.Start(t, options, func(o *natsserver.Options) { o.Port = port })
	until(t, "it to be back", shows(1, 1))
}
