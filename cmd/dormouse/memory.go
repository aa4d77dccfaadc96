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
	_, err := memlimit.SetGoMemLimitWithOpts(memlimit.WithRatio(cgroupShare), memlimit.WithProvider(memlimit.FromCgroup),
		memlimit.WithLogger(slog.New(slog.DiscardHandler)))
	switch {
	case errors.Is(err, memlimit.ErrNoLimit), errors.Is(err, memlimit.ErrNoCgroup),
		errors.Is(err, memlimit.ErrCgroupsNotSupported):
		log.Debug("no memory limit of a container found", "reason", err)
	case err != nil:
		return fmt.Errorf("setting the memory limit: %w (set GOMEMLIMIT to choose it, or GOMEMLIMIT=off)", err)
	}
	return nil
}

// room is how far the heap may grow between two collections. A process that holds little collects only when its heap
// has grown to easy. One that holds much gets a part of what is live, at least headroom: Go's default, as much again,
// would double the write buffers, which are most of a busy process and cost the collector nothing.
type room struct {
	easy, headroom uint64 // bytes
}

// A collection of a process with the embedded server has to look at every subject that the server knows, and so is
// dear. One that shares the shards with others has that part of the room, since it has that part of the garbage.
var (
	embeddedRoom = room{easy: 192 << 20, headroom: 48 << 20}
	sharedRoom   = room{easy: 128 << 20, headroom: 24 << 20}
)

const (
	leastEasy     = 48 << 20
	leastHeadroom = 12 << 20
	sameForAll    = 24 << 20 // of the heap: the database's write buffers and cache, however few shards it has

	costlyHeap = 128 << 20 // above it a part of what is live, not headroom, is the room
)

// heapRoom returns what this process has of it.
func (p *server) heapRoom() room {
	if p.embedded != nil {
		return embeddedRoom
	}
	if p.node == nil {
		return sharedRoom
	}
	return sharedRoom.part(p.node.Share())
}

// part is what a process has that owns some of all shards: with its part of what is live it comes to the same part of
// the heap.
func (r room) part(mine, all int) room {
	of := func(bytes uint64) uint64 { return bytes * uint64(mine) / uint64(max(all, 1)) }
	return room{easy: max(leastEasy+sameForAll, of(r.easy+sameForAll)) - sameForAll,
		headroom: max(leastHeadroom, of(r.headroom))}
}

// paceCollector keeps the heap near what is used, unless GOGC is set.
func (p *server) paceCollector() {
	if os.Getenv("GOGC") == "" {
		pace(p.heapRoom)
	}
}

// pace sets GOGC after every collection. The finalizer of an object that nobody holds runs after each.
func pace(has func() room) {
	type sentinel struct{ _ [16]byte }
	runtime.SetFinalizer(&sentinel{}, func(*sentinel) {
		live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
		metrics.Read(live)
		if live[0].Value.Kind() == metrics.KindUint64 {
			debug.SetGCPercent(has().gcPercent(live[0].Value.Uint64()))
		}
		pace(has)
	})
}

// gcPercent is what GOGC has to be for the room when so many bytes are live.
func (r room) gcPercent(live uint64) int {
	live = max(live, 1<<20)
	headroom := r.headroom
	if live > costlyHeap {
		headroom = max(headroom, live-costlyHeap)
	}
	if live < r.easy {
		headroom = max(headroom, r.easy-live)
	}
	return int(headroom * 100 / live)
}
