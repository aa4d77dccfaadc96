package main

import (
	"cmp"
	"context"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"dormouse/internal/wire"
)

// openMetrics registers what concerns the process as a whole. ingest, scheduler and workers have metrics of their own;
// internal/metricdoc lists all of them.
func (p *server) openMetrics(context.Context) error {
	f := promauto.With(p.registry)
	build := prometheus.Labels{"version": buildVersion(), "revision": buildRevision(), "goversion": runtime.Version()}
	f.NewGaugeFunc(prometheus.GaugeOpts{Name: "dormouse_build_info", ConstLabels: build,
		Help: "Always 1; the labels say which program this is."}, func() float64 { return 1 })
	f.NewGaugeFunc(prometheus.GaugeOpts{Name: "dormouse_nats_connected",
		Help: "1 while the process is connected to NATS, else 0."},
		func() float64 {
			if p.nc.IsConnected() {
				return 1
			}
			return 0
		})
	f.NewCounterFunc(prometheus.CounterOpts{Name: "dormouse_nats_reconnects_total",
		Help: "Times the connection to NATS was lost and made again."},
		func() float64 { return float64(p.nc.Stats().Reconnects) })
	p.registry.MustRegister(newQueueLook(p.js))
	return nil
}

// buildRevision is the commit that the program was built from, if the build knew it.
func buildRevision() string {
	revision := ""
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				revision = s.Value
			}
		}
	}
	return cmp.Or(revision, "(unknown)")
}

const (
	queueEvery   = 10 * time.Second // the most often that a process asks JetStream, however often it is scraped
	queueTimeout = time.Second      // of one question, for which the scrape waits
)

// queueLook tells how long the SyncQueue is. It asks JetStream for one stream's state when somebody scrapes, and
// between two questions, or while there is no answer, it tells what it knows; the age goes on growing meanwhile.
type queueLook struct {
	js          jetstream.JetStream
	items, ages *prometheus.Desc

	mu struct {
		sync.Mutex
		asked  time.Time
		items  uint64
		oldest time.Time // by the server's clock; zero without items
	}
}

func newQueueLook(js jetstream.JetStream) *queueLook {
	return &queueLook{js: js,
		items: prometheus.NewDesc("dormouse_queue_items",
			"Work items in the SyncQueue, of up to 256 logs each, in work or waiting. "+
				"Every process tells the same: take the maximum, not the sum.", nil, nil),
		ages: prometheus.NewDesc("dormouse_queue_oldest_seconds",
			"Age of the oldest of them, 0 without any. It ends at --requeue-after, when the item is dropped and its logs are "+
				"queued again.", nil, nil),
	}
}

// Describe is a prometheus.Collector's.
func (q *queueLook) Describe(descs chan<- *prometheus.Desc) { descs <- q.items; descs <- q.ages }

// Collect is a prometheus.Collector's.
func (q *queueLook) Collect(metrics chan<- prometheus.Metric) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if now := time.Now(); q.mu.asked.IsZero() || now.Sub(q.mu.asked) >= queueEvery {
		q.mu.asked = now
		q.askLocked()
	}
	age := 0.0
	if !q.mu.oldest.IsZero() {
		age = max(0, time.Since(q.mu.oldest).Seconds())
	}
	metrics <- prometheus.MustNewConstMetric(q.items, prometheus.GaugeValue, float64(q.mu.items))
	metrics <- prometheus.MustNewConstMetric(q.ages, prometheus.GaugeValue, age)
}

// askLocked asks JetStream. mu must be held.
func (q *queueLook) askLocked() {
	ctx, cancel := context.WithTimeout(context.Background(), queueTimeout)
	defer cancel()
	stream, err := q.js.Stream(ctx, wire.SyncQueueStream)
	if err != nil {
		return // dormouse_nats_connected and /readyz tell
	}
	state := stream.CachedInfo().State
	q.mu.items, q.mu.oldest = state.Msgs, time.Time{}
	if state.Msgs > 0 {
		q.mu.oldest = state.FirstTime
	}
}
