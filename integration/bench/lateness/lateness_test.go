package lateness

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"go.uber.org/goleak"

	"dormouse/scheduler"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var designs = []Design{Slots, Heap, AfterFunc}

// rounding is how early a design may be. The wheel's ticks and the scheduler's do not coincide, and the wheel rounds
// down to its own and to milliseconds.
var rounding = map[Design]time.Duration{Slots: scheduler.DefaultTick + time.Millisecond}

func TestEveryLogIsServedOnce(t *testing.T) {
	for _, design := range designs {
		for _, spread := range []time.Duration{0, 200 * time.Millisecond} {
			t.Run(fmt.Sprint(design, " over ", spread), func(t *testing.T) {
				t.Parallel()
				const logs = 1000
				r, err := Measure(t.Context(), design, logs, spread) // fails if a log is served twice or never
				if err != nil {
					t.Fatal(err)
				}
				if r.Design != design || r.Logs != logs || r.Arm <= 0 || r.AllocsPerLog < 1 {
					t.Errorf("%+v", r)
				}
				if r.Min > r.P50 || r.P50 > r.P99 || r.P99 > r.Max || r.Max > 10*time.Second {
					t.Errorf("lateness from %s over %s and %s to %s", r.Min, r.P50, r.P99, r.Max)
				}
				early := rounding[design]
				if design == Slots { // logs board early
					early += (leadBase + logs*leadPerLog + spread) / scheduler.BoardShare
				}
				if r.Min < -early {
					t.Errorf("served %s early", -r.Min)
				}
			})
		}
	}
}

func TestCancelLeavesNothingBehind(t *testing.T) {
	for _, design := range designs {
		t.Run(string(design), func(t *testing.T) {
			defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
			ctx, cancel := context.WithCancelCause(t.Context())
			enough := time.AfterFunc(700*time.Millisecond, func() { cancel(nil) }) // some are served by then
			defer enough.Stop()
			if _, err := Measure(ctx, design, 1000, time.Hour); !errors.Is(err, context.Canceled) {
				t.Errorf("canceled, and the error is %v", err)
			}
		})
	}
}

func TestWhatCannotBeMeasured(t *testing.T) {
	for name, measure := range map[string]func() (Result, error){
		"no design":      func() (Result, error) { return Measure(t.Context(), "sundial", 10, 0) },
		"no logs":        func() (Result, error) { return Measure(t.Context(), Heap, 0, 0) },
		"negative space": func() (Result, error) { return Measure(t.Context(), Heap, 10, -1) },
	} {
		if _, err := measure(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestLateArmingIsAnError(t *testing.T) {
	p := newPlan(1, 0)
	p.begin()
	if err := p.wait(t.Context(), p.first.Add(time.Nanosecond)); err == nil {
		t.Error("the first deadline had passed before all logs were armed")
	}
}

func TestServedTwiceIsAnError(t *testing.T) {
	for name, calls := range map[string][]int{"instead of another": {0, 0}, "besides all": {0, 1, 0}} {
		p := newPlan(2, 0)
		p.begin()
		for _, i := range calls {
			p.serve(time.Now(), p.names[i])
		}
		if _, err := p.lateness(); err == nil {
			t.Errorf("a second call for a log, %s, went unnoticed", name)
		}
	}
}

// BenchmarkServe shows each design with 100,000 logs; ns/op is the length of the measurement, which says nothing.
func BenchmarkServe(b *testing.B) {
	const logs = 100_000
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	for _, design := range designs {
		for _, spread := range []time.Duration{0, 5 * time.Second} {
			b.Run(fmt.Sprintf("%s/%s", design, spread), func(b *testing.B) {
				for b.Loop() {
					r, err := Measure(b.Context(), design, logs, spread)
					if err != nil {
						b.Fatal(err)
					}
					b.ReportMetric(ms(r.Min), "min-ms")
					b.ReportMetric(ms(r.P50), "p50-ms")
					b.ReportMetric(ms(r.P99), "p99-ms")
					b.ReportMetric(ms(r.Max), "max-ms")
					b.ReportMetric(float64(r.Arm), "arm-ns/log")
					b.ReportMetric(float64(r.PeakGoroutines), "goroutines")
					b.ReportMetric(r.HeapPerLog, "heap-B/log")
					b.ReportMetric(r.AllocsPerLog, "allocs/log")
					b.ReportMetric(ms(r.CPU), "cpu-ms")
				}
			})
		}
	}
}
