package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

// cgroupShare of a container's memory limit is Go's memory limit; the rest is for what Go does not count.
const cgroupShare = 0.9

// limitMemory takes Go's memory limit from the cgroup unless GOMEMLIMIT is set.
func limitMemory(log *slog.Logger) error {
	_, err := memlimit.SetGoMemLimitWithOpts(memlimit.WithRatio(cgroupShare), memlimit.WithProvider(memlimit.FromCgroup), memlimit.WithLogger(slog.New(slog.DiscardHandler)))
	switch {
	case errors.Is(err, memlimit.ErrNoLimit), errors.Is(err, memlimit.ErrNoCgroup), errors.Is(err, memlimit.ErrCgroupsNotSupported):
		log.Debug("no memory limit of a container found", "reason", err)
	case err != nil:
		return fmt.Errorf("setting the memory limit: %w (set GOMEMLIMIT to choose it, or GOMEMLIMIT=off)", err)
	}
	return nil
}

// Headroom of garbage above what is live. A process that holds little collects only when its heap has grown to easyHeap:
// each collection has to look at every subject that the embedded server knows. A process that shares the shards with others
// has that part of it, since it has that part of the garbage. One that holds much gets a part of what is live;
// Go's default, as much again, would double the write buffers, which are most of a busy process and cost the collector
// nothing.
const (
	easyHeap      = 192 << 20
	leastEasyHeap = 64 << 20
	leastHeadroom = 48 << 20
	costlyHeap    = 128 << 20
)

// easyHeap returns this process's part of easyHeap.
func (p *program) easyHeap() uint64 {
	if p.server != nil || p.node == nil {
		return easyHeap
	}
	mine, all := p.node.Share()
	return max(leastEasyHeap, easyHeap*uint64(mine)/uint64(max(all, 1)))
}

// paceCollector keeps the heap near what is used, unless GOGC is set.
func (p *program) paceCollector() {
	if os.Getenv("GOGC") == "" {
		pace(p.easyHeap)
	}
}

// pace sets GOGC after every collection. The finalizer of an object that nobody holds runs after each.
func pace(easy func() uint64) {
	type sentinel struct{ _ [16]byte }
	runtime.SetFinalizer(&sentinel{}, func(*sentinel) {
		live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
		metrics.Read(live)
		if live[0].Value.Kind() == metrics.KindUint64 {
			debug.SetGCPercent(gcPercent(live[0].Value.Uint64(), easy()))
		}
		pace(easy)
	})
}

// gcPercent is what GOGC has to be for the headroom.
func gcPercent(live, easy uint64) int {
	live = max(live, 1<<20)
	headroom := uint64(leastHeadroom)
	if live > costlyHeap {
		headroom = max(headroom, live-costlyHeap)
	}
	if live < easy {
		headroom = max(headroom, easy-live)
	}
	return int(headroom * 100 / live)
}
