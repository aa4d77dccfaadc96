package bench

import (
	"context"
	"fmt"
	"time"

	"dormouse/integration/bench/lateness"
	"dormouse/scheduler"
)

// late measures how late deadlines are served, all in one tick and spread out, beside two other designs.
func late(ctx context.Context, r *run) error {
	const logs, tickMargin = 100_000, 2 * time.Millisecond
	for _, over := range []time.Duration{0, 5 * time.Second} {
		what := "in one tick"
		if over > 0 {
			what = fmt.Sprintf("over %s", over)
		}
		results := make(map[lateness.Design]lateness.Result)
		for _, design := range []lateness.Design{lateness.Heap, lateness.AfterFunc, lateness.Slots} {
			r.step(fmt.Sprintf("%d deadlines %s, %s", logs, what, design))
			result, err := lateness.Measure(ctx, design, logs, over)
			if err != nil {
				return err
			}
			results[design] = result
		}
		ms := func(d time.Duration) float64 { return d.Seconds() * 1000 }
		ours := results[lateness.Slots]
		for _, other := range []lateness.Design{lateness.Heap, lateness.AfterFunc} {
			base := results[other]
			var bound *target
			if other == lateness.Heap {
				bound = atMost(ms(scheduler.DefaultTick + tickMargin))
			}
			r.compare(what+": late, 99%", "ms", ms(ours.P99), string(other), ms(base.P99), bound)
			r.compare(what+": late, worst", "ms", ms(ours.Max), string(other), ms(base.Max), nil)
			r.compare(what+": goroutines", "", float64(ours.PeakGoroutines), string(other), float64(base.PeakGoroutines), nil)
			r.compare(what+": memory per armed log", "bytes", ours.HeapPerLog, string(other), base.HeapPerLog, nil)
		}
	}
	return nil
}
