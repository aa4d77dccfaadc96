package bench

import (
	"context"
	"fmt"
	"time"
)

// backlog publishes entries over logs while nobody takes them in, and stops the program. The system has its archive
// from the first process on: flags name it if it is not the default.
func (r *run) backlog(ctx context.Context, l load, flags ...string) (mark uint64, took time.Duration, err error) {
	r.step(fmt.Sprintf("publishing %d entries that nobody takes in", l.count))
	p, err := r.serve(ctx, append([]string{"--roles", "worker"}, flags...)...)
	if err != nil {
		return 0, 0, err
	}
	if took, err = p.publish(ctx, l); err != nil {
		return 0, 0, err
	}
	if mark, err = p.mark(ctx); err != nil {
		return 0, 0, err
	}
	return mark, took, r.stop()
}

// spread returns entries in rounds over logs, so that a log's entries lie far apart in the stream.
func spread(entries, logs, size int) load {
	return load{count: entries, subject: shuffled(logs), data: payloads(size)}
}

func drain(ctx context.Context, r *run) error {
	rate, bare, peak, err := drainOnce(ctx, r)
	if err != nil {
		return err
	}
	r.compare("claim to last commit", "entries/s", rate, "bare ordered consumer", bare, ratioAtLeast(0.5))
	r.add("peak memory", "MiB", peak.resident, atMost(300))
	r.add("peak goroutines", "", peak.goroutines, atMost(200))
	return nil
}

// drainOnce returns the rates, in entries a second, at which a backlog is archived and at which it is merely read.
func drainOnce(ctx context.Context, r *run, flags ...string) (rate, bare float64, peak usage, err error) {
	l := spread(r.Entries, min(drainLogs, r.Entries/5), entryBytes)
	mark, _, err := r.backlog(ctx, l)
	if err != nil {
		return 0, 0, peak, err
	}
	r.step("reading it with a bare ordered consumer")
	if bare, err = r.consumerBaseline(ctx, l.count); err != nil {
		return 0, 0, peak, err
	}
	r.step("archiving it")
	h, peak, err := r.archiveBacklog(ctx, mark, l.count, flags...)
	if err != nil {
		return 0, 0, peak, err
	}
	return float64(l.count) / h.last.Sub(h.claimed).Seconds(), bare, peak, nil
}

// archiveBacklog starts the program on a backlog of entries and waits until it is committed.
func (r *run) archiveBacklog(ctx context.Context, mark uint64, entries int, flags ...string) (h history, peak usage,
	err error) {
	p, err := r.serve(ctx, flags...)
	if err != nil {
		return h, peak, err
	}
	commits, err := p.follow(ctx, mark)
	if err != nil {
		return h, peak, err
	}
	peaks := p.watchPeaks(ctx)
	err = p.untilSynced(ctx, entries)
	peak = peaks()
	if err != nil {
		return h, peak, err
	}
	if h, err = commits.history(ctx); err == nil {
		err = h.expect(entries)
	}
	return h, peak, err
}

// hot compares the same publisher with nobody consuming and with its logs being archived meanwhile.
func hot(ctx context.Context, r *run) error {
	l := spread(r.Entries, hotLogs, hotBytes)
	_, alone, err := r.backlog(ctx, l)
	if err != nil {
		return err
	}
	if err := r.fresh(ctx); err != nil {
		return err
	}
	r.step("publishing the same while it is archived")
	p, err := r.serve(ctx)
	if err != nil {
		return err
	}
	commits, err := p.followFromHere(ctx)
	if err != nil {
		return err
	}
	peaks := p.watchPeaks(ctx)
	began := time.Now()
	took, err := p.publish(ctx, l)
	if err == nil {
		err = p.untilSynced(ctx, l.count)
	}
	peak := peaks()
	if err != nil {
		return err
	}
	h, err := commits.history(ctx)
	if err == nil {
		err = h.expect(l.count)
	}
	if err != nil {
		return err
	}
	n := float64(l.count)
	r.compare("published while archiving", "entries/s", n/took.Seconds(), "nobody consuming", n/alone.Seconds(),
		ratioAtLeast(0.6))
	r.add("first publish to last commit", "entries/s", n/h.last.Sub(began).Seconds(), nil)
	r.add("peak memory", "MiB", peak.resident, nil)
	return nil
}

// delay finds the rate at which a backlog drains, and then loads an idle system with half of it.
func delay(ctx context.Context, r *run) error {
	rate, _, _, err := drainOnce(ctx, r)
	if err != nil {
		return err
	}
	limit := atMost((maxDelay + delayMargin).Seconds())
	if err := delayAt(ctx, r, "half", rate/2, limit); err != nil {
		return err
	}
	return delayAt(ctx, r, "a quarter", rate/4, nil)
}

// delayAt measures the sync delay under a steady load of so many entries a second, a share of the drain rate.
func delayAt(ctx context.Context, r *run, share string, rate float64, limit *target) error {
	if err := r.fresh(ctx); err != nil {
		return err
	}
	p, err := r.serve(ctx)
	if err != nil {
		return err
	}
	l := spread(int(rate*r.Steady.Seconds()), drainLogs, entryBytes)
	l.rate = rate
	r.step(fmt.Sprintf("publishing %.0f entries/s for %s", l.rate, r.Steady))
	commits, err := p.followFromHere(ctx)
	if err != nil {
		return err
	}
	took, err := p.publish(ctx, l)
	if err != nil {
		return err
	}
	if err := p.untilSynced(ctx, l.count); err != nil {
		return err
	}
	h, err := commits.history(ctx)
	if err == nil {
		err = h.expect(l.count)
	}
	if err != nil {
		return err
	}
	if len(h.delays) == 0 {
		return errNoSamples
	}
	r.compare(share+": rate that was published", "entries/s", float64(l.count)/took.Seconds(), share+" of the drain rate",
		l.rate, nil)
	r.add(share+": arrival to commit, median", "s", quantile(h.delays, 0.5), nil)
	r.add(share+": arrival to commit, 99%", "s", quantile(h.delays, 0.99), limit)
	r.add(share+": arrival to commit, worst", "s", quantile(h.delays, 1), nil)
	return nil
}
