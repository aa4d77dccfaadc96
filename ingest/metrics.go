package ingest

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics of a node: how it gets on with owning its shards. What owners count is in package shard.
type metrics struct {
	stepDowns, claimsFailed prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, shards *shardStates, unowned func() int) *metrics {
	f := promauto.With(reg)
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
	gauge("dormouse_segments_live", "Live segments of the shards that this process owns.",
		func(l load) float64 { return float64(l.segments) })
	gauge("dormouse_fresh_segments", "Live segments that are not merged yet.",
		func(l load) float64 { return float64(l.fresh) })
	gauge("dormouse_buffer_bytes", "Payload and header bytes of the buffered entries.",
		func(l load) float64 { return float64(l.Bytes) })
	return &metrics{
		stepDowns: f.NewCounter(prometheus.CounterOpts{Name: "dormouse_owner_stepdowns_total",
			Help: "Times this process stopped owning a shard other than by shutdown."}),
		claimsFailed: f.NewCounter(prometheus.CounterOpts{Name: "dormouse_claims_failed_total",
			Help: "Times this process could not own a shard that it should own."}),
	}
}
