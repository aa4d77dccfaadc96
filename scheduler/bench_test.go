package scheduler

import (
	"context"
	"fmt"
	"testing"
	"time"
	"unsafe"

	"dormouse/internal/wire"
)

// hourly returns a scheduler in which nothing falls due while a test runs, and the names of n logs.
func hourly(t testing.TB, n int) (*Scheduler, []string) {
	t.Helper()
	s, err := New(Config{MaxDelay: time.Hour, RequeueAfter: time.Hour, MaxBytes: 1 << 40,
		Publish: func(context.Context, []string) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	logs := make([]string, n)
	for i := range logs {
		logs[i] = fmt.Sprintf("tenant%d.log%d", i%1000, i)
	}
	return s, logs
}

// TestStatesAreSmall: ARCHITECTURE.md says how small.
func TestStatesAreSmall(t *testing.T) {
	if size := unsafe.Sizeof(logState{}); size != 80 {
		t.Errorf("a log's state has %d bytes", size)
	}
}

// TestArmingAllocates only what a log that wakes must keep, its LogID. A slot for each tick, and a map and a slab that
// grow with the logs, add a fraction for each log, which AllocsPerRun drops.
func TestArmingAllocates(t *testing.T) {
	const logs, woken = 10_000, 1000
	now := time.Now()
	for _, tc := range []struct {
		name string
		max  float64
		arm  func(s *Scheduler, names []string, i int) // one entry, for the i-th time, when all but the last logs are active
	}{
		{"active", 0, func(s *Scheduler, names []string, i int) {
			s.Append([]Arrival{{Log: names[i], Seq: uint64(logs + i + 1), Bytes: 1, Time: now}})
		}},
		{"sleeping, for the first time", 1, func(s *Scheduler, names []string, i int) {
			s.Append([]Arrival{{Log: names[logs+i], Seq: uint64(logs + i + 1), Bytes: 1, Time: now}})
		}},
		{"sleeping, again and again", 1, func(s *Scheduler, names []string, i int) {
			s.Append([]Arrival{{Log: names[logs], Seq: uint64(logs + i + 1), Bytes: 1, Time: now}})
			commitOne(s, names[logs], 1, 1, 0, time.Time{})
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, names := hourly(t, logs+woken+1)
			for i, log := range names[:logs] {
				s.Append([]Arrival{{Log: log, Seq: uint64(i + 1), Bytes: 1, Time: now}})
			}
			i := -1
			if allocs := testing.AllocsPerRun(woken, func() { i++; tc.arm(s, names, i) }); allocs > tc.max {
				t.Errorf("%v allocations, want at most %v", allocs, tc.max)
			}
		})
	}
}

// BenchmarkFire is all that happens to 100,000 logs of one slot but publishing: from the slot's timer to the last batch
// having landed.
func BenchmarkFire(b *testing.B) {
	const logs = 100_000
	_, names := hourly(b, logs)
	batch := make([]Arrival, logs)
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		s, k := due(b, names, batch)
		b.StartTimer()
		(&slotRunner{s}).serveDue(k)
		taken := 0
		p := &publisher{s: s}
		for {
			ready := p.takeBatch()
			if len(ready) == 0 {
				break
			}
			taken += len(ready)
			p.landed(true)
		}
		if taken != logs {
			b.Fatalf("%d logs were taken, want %d", taken, logs)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*logs), "ns/log")
}

// due returns a scheduler with the logs in one slot, and that slot, which is due: their entries are older than
// MaxDelay.
func due(b *testing.B, names []string, batch []Arrival) (*Scheduler, int64) {
	b.Helper()
	s, err := New(Config{MaxDelay: time.Second, RequeueAfter: time.Minute, MaxBytes: 1 << 40, BatchLogs: wire.MaxItemLogs,
		Publish: func(context.Context, []string) error { return nil }})
	if err != nil {
		b.Fatal(err)
	}
	long := time.Now().Add(-time.Minute)
	for i, log := range names {
		batch[i] = Arrival{Log: log, Seq: uint64(i + 1), Bytes: 256, Time: long}
	}
	s.Append(batch)
	for k := range s.mu.slots {
		if len(s.mu.slots) == 1 {
			return s, k
		}
	}
	b.Fatalf("%d slots, want one", len(s.mu.slots))
	return nil, 0
}
