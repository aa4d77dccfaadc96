// Package metricdoc is the list of Dormouse's own metrics, and the page docs/metrics.md that is made of it.
//
// It measures nothing and registers nothing: what a metric is, and its help, is said where it is made. A test of
// cmd/dormouse holds the list against what a process registers, and the page against the list. Tests of dashboards and
// alerts can look names and labels up here. Open list.go for the list.
package metricdoc

import (
	"fmt"
	"slices"
	"strings"
)

// Metric is one metric.
type Metric struct {
	Name     string
	Type     string // counter, gauge or histogram
	Labels   []Label
	Role     string // of the processes that have it: ingest, worker, or empty for all
	Question string // that it answers
}

// Label is one label of a metric.
type Label struct {
	Name   string
	Values []string // that it can have, all from the start; nil: whatever the build says
}

// Find returns the metric of that name. Of a histogram the series end in _bucket, _count and _sum.
func Find(series string) (Metric, bool) {
	for _, group := range Groups {
		for _, m := range group.Metrics {
			if m.Name == series || m.Type == "histogram" &&
				slices.Contains([]string{m.Name + "_bucket", m.Name + "_count", m.Name + "_sum"}, series) {
				return m, true
			}
		}
	}
	return Metric{}, false
}

// Group is some metrics under one heading.
type Group struct {
	Title   string
	Metrics []Metric
}

const pageHead = `# Metrics

What ` + "`/metrics` of `--http`" + ` tells, in Prometheus' format. This page is made from the program by
` + "`go test ./cmd/dormouse -run TestMetricsPage -update`" + `; a test holds it against what a process registers.

All series exist from the start, with 0. None has a label that grows with logs or tenants. Times are in seconds, sizes
in bytes. Unless it says otherwise a process tells of itself: sum over the processes. A process has only the metrics
of its roles.

Besides these there are those of the Go runtime and of the process (` + "`go_*`, `process_*`" + `). Of those,
` + "`process_start_time_seconds`" + ` (when did it start?), ` + "`process_resident_memory_bytes`," + `
` + "`process_open_fds`" + ` and ` + "`process_cpu_seconds_total`" + ` answer the first questions.
` + "`promhttp_metric_handler_errors_total`" + ` counts scrapes that failed.
`

// Page returns the page. help returns what the program itself says of a metric.
func Page(help func(name string) string) string {
	var b strings.Builder
	b.WriteString(pageHead)
	for _, group := range Groups {
		fmt.Fprintf(&b, "\n## %s\n\n| metric | type | role | what it is | the question that it answers |\n| --- | --- | "+
			"--- | --- | --- |\n", group.Title)
		for _, m := range group.Metrics {
			role := m.Role
			if role == "" {
				role = "all"
			}
			fmt.Fprintf(&b, "| `%s`%s | %s | %s | %s | %s |\n", m.Name, labels(m.Labels), m.Type, role, help(m.Name), m.Question)
		}
	}
	return b.String()
}

func labels(all []Label) string {
	var b strings.Builder
	for _, l := range all {
		fmt.Fprintf(&b, " `%s`", l.Name)
		if len(l.Values) > 0 {
			fmt.Fprintf(&b, " (%s)", strings.Join(l.Values, ", "))
		}
	}
	return b.String()
}
