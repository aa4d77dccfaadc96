package shard

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"dormouse/scheduler"
)

// Metrics of the owners of a node together. None carries a label that grows with logs or tenants.
type Metrics struct {
	ingested, rejected, skipped, republished, lost prometheus.Counter
	synced, segments, refused, checkpoints         prometheus.Counter
	garbageObjects, garbageBytes                   prometheus.Counter
	drains                                         prometheus.Counter
	rejections                                     *prometheus.CounterVec // the rejected, by reason
	syncDelay                                      prometheus.Histogram
	schedules                                      *scheduler.Metrics
}

// NewMetrics registers them; with a nil reg they are kept but not exposed.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	m := &Metrics{
		schedules: scheduler.NewMetrics(reg),
		ingested:  counter("dormouse_entries_ingested_total", "Entries taken from source streams into the buffer."),
		rejected: counter("dormouse_entries_rejected_total",
			"Messages that are no entry of a log, moved to DORMOUSE_REJECTED."),
		skipped: counter("dormouse_entries_skipped_total",
			"Entries met again after a restart that were archived before."),
		republished: counter("dormouse_entries_republished_total",
			"Entries published again because their sequence was used before the source stream lost its end."),
		lost: counter("dormouse_entries_lost_total",
			"Entries that the source stream dropped by its own limits before they were taken in."),
		synced:   counter("dormouse_entries_synced_total", "Entries in committed segments."),
		segments: counter("dormouse_segments_committed_total", "Segments with at least one committed extent."),
		refused:  counter("dormouse_extents_refused_total", "Extents refused as stale or overlapping."),
		checkpoints: counter("dormouse_checkpoints_total",
			"Checkpoints of trees that were taken, each of which lets the manifest be shortened."),
		garbageObjects: counter("dormouse_garbage_objects_total", "Objects deleted since merges have replaced them."),
		garbageBytes:   counter("dormouse_garbage_bytes_total", "Bytes of those objects."),
		drains:         counter("dormouse_drain_requests_total", "Drain requests answered."),
		syncDelay: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "dormouse_sync_delay_seconds",
			Help:    "From the arrival of the oldest entry of an extent to the extent's commit.",
			Buckets: []float64{.05, .1, .25, .5, 1, 2, 3, 4, 5, 5.25, 5.5, 6, 8, 10, 15, 30, 60, 120, 300, 900, 3600},
		}),
		rejections: f.NewCounterVec(prometheus.CounterOpts{Name: "dormouse_rejections_total",
			Help: "What dormouse_entries_rejected_total counts, by reason."}, []string{"reason"}),
	}
	for _, reason := range rejectReasons {
		m.rejections.WithLabelValues(reason)
	}
	return m
}
