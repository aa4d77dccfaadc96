package ingest

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics of all shards of a node together. None carries a label that grows with logs or tenants.
type metrics struct {
	ingested, rejected, skipped, republished, lost prometheus.Counter
	synced, segments, refused, snapshots           prometheus.Counter
	stepDowns, claimsFailed, drains                prometheus.Counter
	rejections                                     *prometheus.CounterVec // the rejected, by reason
	syncDelay                                      prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer, shards *shardStates, unowned func() int) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	gauge := func(name, help string, value func(load) float64) {
		f.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return value(shards.load()) })
	}
	gauge("dormouse_shards_owned", "Shards that this process owns.",
		func(l load) float64 { return float64(l.owned) })
	gauge("dormouse_shards_claiming", "Shards that this process is taking over: it applies the manifest.",
		func(l load) float64 { return float64(l.claiming) })
	gauge("dormouse_shard_stuck", "Shards of this process that have not got past a sequence for longer than a lease; "+
		"the log and /readyz say which.", func(l load) float64 { return float64(l.stuck) })
	f.NewGaugeFunc(prometheus.GaugeOpts{Name: "dormouse_shards_unowned",
		Help: "Shards that no process holds the lease of, as far as this process sees."},
		func() float64 { return float64(unowned()) })
	gauge("dormouse_takeover_records", "Manifest records that takeovers still have to apply.",
		func(l load) float64 { return float64(l.recordsLeft) })
	gauge("dormouse_takeover_entries", "Source entries that takeovers still have to replay, up to where the streams "+
		"ended at the claims.", func(l load) float64 { return float64(l.entriesLeft) })
	gauge("dormouse_logs_active", "Logs with entries that are not archived yet.",
		func(l load) float64 { return float64(l.Active) })
	gauge("dormouse_logs_queued", "Active logs that are queued for the workers.",
		func(l load) float64 { return float64(l.Queued) })
	gauge("dormouse_buffer_entries", "Buffered entries that are not archived yet.",
		func(l load) float64 { return float64(l.Entries) })
	f.NewGaugeFunc(prometheus.GaugeOpts{Name: "dormouse_stream_lag",
		Help: "Sequences of the source streams of owned shards that are not archived: buffered entries, and what is not " +
			"taken in yet."},
		func() float64 { return shards.streamLag() })
	f.NewGaugeFunc(prometheus.GaugeOpts{Name: "dormouse_oldest_unarchived_seconds",
		Help: "Age of the oldest entry that is in the buffer of an owned shard; 0 without any."},
		func() float64 { return shards.oldestAge(time.Now()).Seconds() })
	gauge("dormouse_buffer_bytes", "Payload and header bytes of the buffered entries.",
		func(l load) float64 { return float64(l.Bytes) })
	m := &metrics{
		ingested: counter("dormouse_entries_ingested_total", "Entries taken from source streams into the buffer."),
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
		snapshots: counter("dormouse_snapshots_total",
			"Snapshots of catalogs that were taken, each of which lets the manifest be shortened."),
		stepDowns: counter("dormouse_owner_stepdowns_total",
			"Times this process stopped owning a shard other than by shutdown."),
		claimsFailed: counter("dormouse_claims_failed_total", "Times this process could not own a shard that it should own."),
		drains:       counter("dormouse_drain_requests_total", "Drain requests answered."),
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
