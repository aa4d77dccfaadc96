package scheduler

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Metrics of all schedulers of a process together.
type Metrics struct {
	lateness                     prometheus.Histogram
	rebuilds, failures, requeued prometheus.Counter
}

// NewMetrics makes the metrics and registers them; with a nil Registerer they are kept but not exposed.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	f := promauto.With(reg)
	return &Metrics{
		lateness: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "dormouse_deadline_lateness_seconds",
			Help:    "From a log's deadline to the acknowledgement of the work item that carries it.",
			Buckets: []float64{.001, .0025, .005, .01, .0125, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300},
		}),
		rebuilds: f.NewCounter(prometheus.CounterOpts{Name: "dormouse_scheduler_wheel_rebuilds_total",
			Help: "Times the timing wheel was overdue and replaced."}),
		failures: f.NewCounter(prometheus.CounterOpts{Name: "dormouse_queue_publish_failures_total",
			Help: "Work items that JetStream did not take; they are tried again."}),
		requeued: f.NewCounter(prometheus.CounterOpts{Name: "dormouse_logs_requeued_total",
			Help: "Logs queued again because they were not committed in time."}),
	}
}
