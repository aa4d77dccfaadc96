package bench

import (
	"context"
	"fmt"
	"time"
)

// sleepAndWake measures what n logs cost that were written once, and what it takes to wake all of them.
func sleepAndWake(ctx context.Context, r *run, n int) error {
	r.step("starting an empty system")
	p, err := r.serve(ctx)
	if err != nil {
		return err
	}
	empty, err := p.settled(ctx)
	if err != nil {
		return err
	}
	once := load{count: n, subject: shuffled(n), data: payloads(entryBytes)}
	r.step(fmt.Sprintf("writing %d logs once", n))
	if _, err := p.publish(ctx, once); err != nil {
		return err
	}
	if err := p.untilAsleep(ctx); err != nil {
		return err
	}
	if err := idle(ctx, r, p, n, empty); err != nil {
		return err
	}
	if err := wake(ctx, r, p, once); err != nil {
		return err
	}
	return overdue(ctx, r, once)
}

func idle(ctx context.Context, r *run, p *program, n int, empty float64) error {
	r.step("waiting for memory to settle")
	resident, err := p.settled(ctx)
	if err != nil {
		return err
	}
	r.step(fmt.Sprintf("watching it sleep for %s", r.Idle))
	cores, err := p.cores(ctx, r.Idle)
	if err != nil {
		return err
	}
	now, err := p.usage(ctx)
	if err != nil {
		return err
	}
	r.step(fmt.Sprintf("the baseline: a goroutine, a ticker and a buffer for each of %d logs", n))
	each, err := r.idleBaseline(ctx, n)
	if err != nil {
		return err
	}
	r.add("idle: memory of an empty system", "MiB", empty, nil)
	r.compare("idle: memory over empty", "MiB", resident-empty, "goroutine per log", each.resident, atMost(16))
	r.compare("idle: CPU", "% of a core", 100*cores, "goroutine per log", 100*each.cores, atMost(0.5))
	r.compare("idle: goroutines", "", now.goroutines, "goroutine per log", each.goroutines, atMost(150))
	r.add("idle: open files", "", now.files, nil)
	return nil
}

// wake writes one more entry to every log, as fast as JetStream takes them.
func wake(ctx context.Context, r *run, p *program, once load) error {
	r.step("waking all logs")
	commits, err := p.followFromHere(ctx)
	if err != nil {
		return err
	}
	peaks := p.watchPeaks(ctx)
	began := time.Now()
	published, err := p.publish(ctx, once)
	if err == nil {
		err = p.untilSynced(ctx, 2*once.count)
	}
	peak := peaks()
	if err != nil {
		return err
	}
	h, err := commits.history(ctx)
	if err == nil {
		err = h.expect(once.count)
	}
	if err != nil {
		return err
	}
	last := h.last.Sub(began)
	r.add("wake: time to publish", "s", published.Seconds(), nil)
	r.add("wake: last entry acked to last commit", "s", (last - published).Seconds(),
		atMost((maxDelay + wakeMargin).Seconds()))
	r.add("wake: first publish to last commit", "s", last.Seconds(), nil)
	r.add("wake: peak goroutines", "", peak.goroutines, atMost(200))
	r.add("wake: peak memory", "MiB", peak.resident, atMost(1024))
	packing(r, h)
	return nil
}

// S3 list prices of us-east-1, standard storage, of 2026: dollars for a PUT, and for a GiB stored for a month.
const (
	dollarsPerPut   = 0.005 / 1000
	dollarsPerGiB   = 0.023
	wakesPerMonth   = 30 * 24 // a log that wakes once an hour
	millionLogs     = 1_000_000
	monthlyPutsEach = wakesPerMonth * millionLogs
)

// packing says what the commits of a wake cost in requests, beside an object for each log that is ready.
func packing(r *run, h history) {
	if h.segments == 0 {
		return
	}
	perPut := float64(h.extents) / float64(h.segments)
	stored := float64(h.bytes) / float64(h.extents) * monthlyPutsEach / (1 << 30) * dollarsPerGiB
	puts := monthlyPutsEach * dollarsPerPut
	r.add("packing: logs per PUT", "", perPut, atLeast(200))
	r.add("packing: PUTs", "", float64(h.segments), nil)
	r.add("packing: KiB per PUT", "KiB", float64(h.bytes)/float64(h.segments)/1024, nil)
	r.add("packing: bytes stored per byte written", "", float64(h.bytes)/float64(h.raw), nil)
	r.compare("packing: requests for 1M logs woken hourly", "$/month", puts/perPut, "object per log", puts, nil)
	r.add("packing: a month of that kept for a month", "$/month", stored, nil)
}

// overdue lets all logs fall due in the same tick: their entries come while nobody takes them in, longer ago than the
// delay bound when an owner starts.
func overdue(ctx context.Context, r *run, once load) error {
	r.step("letting all logs fall due at once")
	if err := r.stop(); err != nil {
		return err
	}
	p, err := r.serve(ctx, "--roles", "worker")
	if err != nil {
		return err
	}
	if _, err := p.publish(ctx, once); err != nil {
		return err
	}
	mark, err := p.mark(ctx)
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(maxDelay):
	}
	if err := r.stop(); err != nil {
		return err
	}
	if p, err = r.serve(ctx); err != nil {
		return err
	}
	commits, err := p.follow(ctx, mark)
	if err != nil {
		return err
	}
	peaks := p.watchPeaks(ctx)
	err = p.untilSynced(ctx, once.count)
	peak := peaks()
	if err != nil {
		return err
	}
	h, err := commits.history(ctx)
	if err == nil {
		err = h.expect(once.count)
	}
	if err != nil {
		return err
	}
	r.add("overdue: claim to last commit", "s", h.last.Sub(h.claimed).Seconds(), atMost(wakeMargin.Seconds()))
	r.add("overdue: peak goroutines", "", peak.goroutines, atMost(200))
	r.add("overdue: peak memory", "MiB", peak.resident, atMost(1024))
	r.add("overdue: logs per PUT", "", float64(h.extents)/float64(h.segments), atLeast(200))
	return nil
}
