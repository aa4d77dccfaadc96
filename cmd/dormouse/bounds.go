package main

import (
	"cmp"
	"fmt"
	"math"
	"time"

	"dormouse/internal/natsserver"
	"dormouse/internal/topology"
	"dormouse/scheduler"
)

// bound is what a flag may be, both ends included, and why.
type bound[T cmp.Ordered] struct {
	flag               string
	value, least, most T
	why                string
}

func (b bound[T]) check() error {
	switch {
	case !(b.value >= b.least): // NaN is not either
		return fmt.Errorf("--%s must be at least %v, it is %v: %s", b.flag, b.least, b.value, b.why)
	case b.value > b.most:
		return fmt.Errorf("--%s must be at most %v, it is %v: %s", b.flag, b.most, b.value, b.why)
	}
	return nil
}

func checkBounds[T cmp.Ordered](bounds ...bound[T]) error {
	for _, b := range bounds {
		if err := b.check(); err != nil {
			return err
		}
	}
	return nil
}

const day = 24 * time.Hour

// sharedBounds are of what all processes of a system are to agree on.
func sharedBounds(requeueAfter, lease time.Duration) []bound[time.Duration] {
	return []bound[time.Duration]{
		{"requeue-after", requeueAfter, 100 * time.Millisecond, day, "workers need that long for a segment, and a " +
			"work item that is lost is missed as long; 1m is good"},
		{"lease", lease, 100 * time.Millisecond, 10 * time.Minute, "it is renewed over the network, and the shards " +
			"of a process that dies have no owner meanwhile; 10s is good"},
	}
}

// checkSystem checks what says how streams are made.
func checkSystem(replicas, shards int) error {
	if replicas != 1 && replicas != 3 && replicas != 5 {
		return fmt.Errorf("--replicas must be 1, 3 or 5, it is %d: an even number survives no more failures than one "+
			"less", replicas)
	}
	if shards < 0 || shards > topology.MaxShards {
		return fmt.Errorf("--shards must be from 1 to %d, it is %d", topology.MaxShards, shards)
	}
	return nil
}

// checkBounds checks every number among the flags.
func (c *serveConfig) checkBounds() error {
	for _, d := range []struct {
		flag  string
		value time.Duration
	}{{"max-delay", c.maxDelay}, {"requeue-after", c.requeueAfter}, {"lease", c.lease}, {"grace", c.grace},
		{"linger", c.linger}} {
		if d.value <= 0 {
			return fmt.Errorf("--%s must be positive, it is %s", d.flag, d.value)
		}
	}
	if c.tick == scheduler.DefaultTick {
		c.tick = max(time.Millisecond, min(c.tick, c.maxDelay))
	}
	times := append(sharedBounds(c.requeueAfter, c.lease),
		bound[time.Duration]{"max-delay", c.maxDelay, time.Millisecond, 31 * day, "entries wait so long in the " +
			"buffer, and in JetStream"},
		bound[time.Duration]{"tick", c.tick, time.Millisecond, c.maxDelay, "a log is late by up to a tick, so it " +
			"must not exceed --max-delay; 10ms is good"},
		bound[time.Duration]{"linger", c.linger, time.Nanosecond, c.requeueAfter / 2, "work items are queued again " +
			"after --requeue-after; 100ms is good"},
		bound[time.Duration]{"grace", c.grace, time.Nanosecond, time.Hour, "a process that is told to end should " +
			"end; 10s is good"},
		bound[time.Duration]{"sync-interval", c.syncInterval, 0, time.Hour, "a power failure takes the acked entries " +
			"of that long; 1s is good"},
		bound[time.Duration]{"trim-delay", c.trimDelay, 0, 31 * day, "the source stream is as much larger"},
		bound[time.Duration]{"gc-grace", c.gcGrace, time.Second, 366 * day, "work that is in flight may still need an " +
			"object of that age; 1h is good"})
	if err := checkBounds(times...); err != nil {
		return err
	}
	if err := checkBounds(
		bound[int]{"workers", c.workers, 1, 4096, "each holds a segment in memory"}); err != nil {
		return err
	}
	if err := checkBounds(
		bound[float64]{"merge-share", c.mergeShare, 0.01, 1, "it is a part of the workers; 0.25 is good"}); err != nil {
		return err
	}
	return checkBounds(
		sizeBound("segment-bytes", c.segmentBytes, 4<<10, math.MaxInt32, "each segment is an object of the bucket, "+
			"and built in memory; 8MiB is good"),
		sizeBound("buffer-limit", c.bufferLimit, 1<<20, math.MaxInt64, "with less there are few logs to pack "+
			"together; 512MiB is good"),
		sizeBound("max-bytes", c.maxBytes, 1, c.bufferLimit, "a log never has more buffered than --buffer-limit; "+
			"1MiB is good"))
}

// readableSize is a size that prints as people write it, and compares as a number.
type readableSize uint64

func (s readableSize) String() string { return (*byteSize)(&s).String() }

func sizeBound(flag string, value, least, most byteSize, why string) bound[readableSize] {
	return bound[readableSize]{flag, readableSize(value), readableSize(least), readableSize(most), why}
}

// A NATS server syncs so often unless its configuration says otherwise, and trimming trails by so much then.
const (
	outsideSyncInterval = 2 * time.Minute
	outsideTrimDelay    = 3 * time.Minute
)

// completeSync fills in how long NATS may take until what it acked is on its disk, and how far trimming has to trail
// behind. What an outside server's interval is only its system account may ask; so it is said, or taken to be the
// default.
func (c *serveConfig) completeSync() error {
	said := c.syncInterval > 0
	switch {
	case said:
	case c.embedded():
		c.syncInterval = natsserver.DefaultSyncInterval
	default:
		c.syncInterval = outsideSyncInterval
	}
	if c.trimDelay == 0 {
		if c.trimDelay = max(5*time.Second, 2*c.syncInterval); !said && !c.embedded() {
			c.trimDelay = outsideTrimDelay
		}
		return nil
	}
	if c.trimDelay > c.syncInterval || c.syncAlways {
		return nil
	}
	const why = "after a power failure the entries must outlive the record of their archiving"
	if !c.embedded() && !said {
		return fmt.Errorf("--trim-delay %s must exceed the sync interval of the NATS servers, which is %s unless "+
			"they are told otherwise: %s. "+
			"If theirs is shorter (sync_interval in their configuration), say so with --sync-interval, or "+
			"--sync-always if they sync always",
			c.trimDelay, c.syncInterval, why)
	}
	return fmt.Errorf("--trim-delay %s must exceed --sync-interval %s: %s", c.trimDelay, c.syncInterval, why)
}
