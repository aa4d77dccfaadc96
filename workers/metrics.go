package workers

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Metrics of a pool.
type Metrics struct {
	size, busy                   prometheus.Gauge
	putSeconds, putBytes, packed prometheus.Histogram
	items, retries               *prometheus.CounterVec
	orphans, merges              prometheus.Counter
	mergedBytes                  *prometheus.CounterVec
}

// NewMetrics makes the metrics and registers them; with a nil Registerer they are kept but not exposed.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	f := promauto.With(reg)
	m := &Metrics{
		size: f.NewGauge(prometheus.GaugeOpts{Name: "dormouse_workers", Help: "Workers of this process."}),
		busy: f.NewGauge(prometheus.GaugeOpts{Name: "dormouse_workers_busy", Help: "Workers with work in hand."}),
		putSeconds: f.NewHistogram(prometheus.HistogramOpts{Name: "dormouse_segment_put_seconds",
			Help: "Time of a successful put.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 17)}),
		putBytes: f.NewHistogram(prometheus.HistogramOpts{Name: "dormouse_segment_bytes", Help: "Size of the segments put.",
			Buckets: prometheus.ExponentialBuckets(1<<10, 4, 9)}),
		packed: f.NewHistogram(prometheus.HistogramOpts{Name: "dormouse_segment_logs", Help: "Logs packed into one segment.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 13)}),
		items: f.NewCounterVec(prometheus.CounterOpts{Name: "dormouse_work_items_total",
			Help: "Work items by outcome: done, stale (their owner is gone), poison (impossible to work on), abandoned (to be " +
				"tried later)."}, []string{"outcome"}),
		retries: f.NewCounterVec(prometheus.CounterOpts{Name: "dormouse_worker_retries_total",
			Help: "Tries that failed and were repeated, by stage: fetch, drain, put, commit, replace."}, []string{"stage"}),
		orphans: f.NewCounter(prometheus.CounterOpts{Name: "dormouse_orphan_segments_total",
			Help: "Segments that were put and of which nothing was committed."}),
		merges: f.NewCounter(prometheus.CounterOpts{Name: "dormouse_merges_total",
			Help: "Merges of segments that were done."}),
		mergedBytes: f.NewCounterVec(prometheus.CounterOpts{Name: "dormouse_merge_bytes_total",
			Help: "Bytes of the segments that merges have read, and of those that they have written."}, []string{"direction"}),
	}
	for _, direction := range []string{"read", "written"} {
		m.mergedBytes.WithLabelValues(direction)
	}
	for _, what := range []outcome{done, stale, poison, abandoned} {
		m.items.WithLabelValues(string(what))
	}
	for _, stage := range []string{"fetch", "drain", "put", "commit", "replace"} {
		m.retries.WithLabelValues(stage)
	}
	return m
}
