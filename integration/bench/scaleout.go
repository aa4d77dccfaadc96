package bench

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"
)

// rateOfProcesses archives a backlog with so many worker processes of one worker each.
func rateOfProcesses(ctx context.Context, r *run, workers int, b slowBacklog) (float64, error) {
	p, err := r.serve(ctx, "--roles", "ingest", "--archive", b.archive)
	if err != nil {
		return 0, err
	}
	commits, err := p.follow(ctx, b.mark)
	if err != nil {
		return 0, err
	}
	for i := range workers {
		if _, err := r.join(ctx, fmt.Sprintf("worker%d", i), "--roles", "worker", "--archive", b.archive, "--workers", "1",
			"--segment-bytes", slowSegmentBytes); err != nil {
			return 0, err
		}
	}
	if err := p.untilSynced(ctx, b.logs); err != nil {
		return 0, err
	}
	h, err := commits.history(ctx)
	if err == nil {
		err = h.expect(b.logs)
	}
	if err != nil {
		return 0, err
	}
	// While the processes start, one after the other, less than all of them work: the second half is measured.
	return h.rateOfSecondHalf(), nil
}

// rateOfSecondHalf returns entries a second from the commit that reaches half of them to the last one.
func (h history) rateOfSecondHalf() float64 {
	sum := 0
	for _, c := range h.commits {
		if sum += c.entries; sum >= h.entries/2 {
			return float64(h.entries-sum) / h.last.Sub(c.stored).Seconds()
		}
	}
	return 0
}

const (
	scaleShards = 8
	// the entries of the other scenarios: so many that a process has its share of the memory for most of the time
	scaleTimes = 3
)

// scaleOwners archives a backlog of several shards with one ingest process and with two, beside the same workers and
// the same NATS server in a process of its own.
func scaleOwners(ctx context.Context, r *run) error {
	entries := scaleTimes * r.Entries
	var rateOfOne float64
	var memoryOfOne usage
	for _, owners := range []int{1, 2} {
		if err := r.fresh(ctx); err != nil {
			return err
		}
		archive := "file://" + filepath.Join(r.data(), "archive")
		r.step(fmt.Sprintf("publishing %d entries to %d shards", entries, scaleShards))
		p, err := r.serve(ctx, "--roles", "worker", "--shards", fmt.Sprint(scaleShards), "--archive", archive)
		if err != nil {
			return err
		}
		if _, err := p.publish(ctx, spread(entries, min(drainLogs, r.Entries/5), entryBytes)); err != nil {
			return err
		}
		commits, err := p.followFromHere(ctx)
		if err != nil {
			return err
		}
		r.step(fmt.Sprintf("archiving it with %d ingest processes", owners))
		stops := make([]func() usage, owners)
		errs := make([]error, owners)
		var started sync.WaitGroup
		began := time.Now()
		var joining sync.Mutex
		for i := range owners {
			started.Go(func() {
				joining.Lock()
				other := newProgram(p.url, true, filepath.Join(r.dir, fmt.Sprintf("ingest%d.log", i)))
				r.others = append(r.others, other)
				joining.Unlock()
				errs[i] = other.start(ctx, r.Program, filepath.Join(r.dir, fmt.Sprintf("ingest%d", i)),
					append(outsideFlags, "--roles", "ingest", "--archive", archive))
				if errs[i] == nil {
					stops[i] = other.watchPeaks(ctx)
				}
			})
		}
		started.Wait()
		for _, err := range errs {
			if err != nil {
				return err
			}
		}
		if err := r.untilAllSynced(ctx, entries); err != nil {
			return err
		}
		var peak usage // of the larger
		for _, stop := range stops {
			of := stop()
			peak.resident, peak.private = max(peak.resident, of.resident), max(peak.private, of.private)
		}
		h, err := commits.history(ctx)
		if err == nil {
			err = h.expect(entries)
		}
		if err != nil {
			return err
		}
		rate := float64(entries) / h.last.Sub(began).Seconds()
		if owners == 1 {
			rateOfOne, memoryOfOne = rate, peak
			r.add("1 ingest process", "entries/s", rate, nil)
			r.add("1 ingest process: its peak memory", "MiB", peak.resident, nil)
			r.add("1 ingest process: of that its own", "MiB", peak.private, nil)
			continue
		}
		r.compare("2 ingest processes", "entries/s", rate, "one", rateOfOne, ratioAtLeast(0.9))
		r.compare("2 ingest processes: peak memory of the larger", "MiB", peak.resident, "one", memoryOfOne.resident, nil)
		r.compare("2 ingest processes: of that its own", "MiB", peak.private, "one", memoryOfOne.private,
			&target{atMost: true, ofRatio: true, bound: 0.5})
	}
	return nil
}

// untilAllSynced waits until the other processes have committed n entries together.
func (r *run) untilAllSynced(ctx context.Context, n int) error {
	return r.program.until(ctx, fmt.Sprintf("%d entries to be committed", n), 100*time.Millisecond, func() (bool, error) {
		sum := 0.0
		for _, p := range r.others {
			m, err := p.metrics(ctx)
			if err != nil {
				return false, err
			}
			sum += m["dormouse_entries_synced_total"]
		}
		return sum >= float64(n), nil
	})
}

// failover lets two ingest processes with the default lease leave by turns, in order and killed, under a light load of
// logs with a short delay bound, and looks for the longest time without a commit.
func failover(ctx context.Context, r *run) error {
	const rate, logs, turns = 500, 100, 5
	archive := "file://" + filepath.Join(r.data(), "archive")
	if _, err := r.serve(ctx, "--roles", "worker", "--archive", archive, "--linger", "20ms"); err != nil {
		return err
	}
	p := r.program
	var owners []*program
	for i := range 2 {
		o, err := r.join(ctx, fmt.Sprintf("ingest%d", i), "--roles", "ingest", "--archive", archive, "--max-delay", "100ms")
		if err != nil {
			return err
		}
		owners = append(owners, o)
	}
	loading, stop := context.WithCancel(ctx)
	loaded := make(chan error, 1)
	go func() {
		_, err := p.publish(loading, load{count: 1 << 40, subject: shuffled(logs), data: payloads(entryBytes), rate: rate})
		loaded <- err
	}()
	defer func() { stop(); <-loaded }()
	for _, end := range []struct {
		name string
		end  func(*program) error
	}{
		{"leaves in order", func(o *program) error { return o.Signal(syscall.SIGTERM) }},
		{"is killed", func(o *program) error { return o.Signal(syscall.SIGKILL) }},
	} {
		var gaps []float64
		for turn := range turns {
			r.step(fmt.Sprintf("the owner %s, %d of %d", end.name, turn+1, turns))
			gap, err := failOnce(ctx, r, p, owners, end.end)
			if err != nil {
				return err
			}
			gaps = append(gaps, gap)
		}
		var limit *target
		if end.name == "leaves in order" {
			limit = atMost(2)
		}
		r.add("owner "+end.name+": median gap", "s", quantile(gaps, 0.5), nil)
		r.add("owner "+end.name+": worst gap", "s", slices.Max(gaps), limit)
	}
	return nil
}

// failOnce ends the owner, waits until the other one commits, and returns the longest time between two commits. It
// starts the process that ended again.
func failOnce(ctx context.Context, r *run, p *program, owners []*program, end func(*program) error) (float64, error) {
	owning := func() (owner, other *program, err error) {
		err = p.until(ctx, "an owner that commits", 50*time.Millisecond, func() (bool, error) {
			for i, o := range owners {
				m, err := o.metrics(ctx)
				if err != nil {
					return false, err
				}
				if m["dormouse_shards_owned"] == 1 && m["dormouse_entries_synced_total"] > 0 {
					owner, other = o, owners[1-i]
				}
			}
			return owner != nil, nil
		})
		return owner, other, err
	}
	owner, other, err := owning()
	if err != nil {
		return 0, err
	}
	if err := other.until(ctx, "the other to stand by", 50*time.Millisecond, func() (bool, error) {
		return other.ready(ctx), nil
	}); err != nil {
		return 0, err
	}
	commits, err := p.followFromHere(ctx)
	if err != nil {
		return 0, err
	}
	last := time.Now() // a commit was a moment ago
	if err := end(owner); err != nil {
		return 0, err
	}
	<-owner.Ended()
	before, err := other.metrics(ctx)
	if err != nil {
		return 0, err
	}
	err = other.until(ctx, "the takeover and some commits", 50*time.Millisecond, func() (bool, error) {
		m, err := other.metrics(ctx)
		return m["dormouse_segments_committed_total"] > before["dormouse_segments_committed_total"]+5, err
	})
	if err != nil {
		return 0, err
	}
	h, err := commits.history(ctx)
	if err != nil {
		return 0, err
	}
	gap := 0.0
	for _, c := range h.commits {
		gap = max(gap, c.stored.Sub(last).Seconds())
		last = c.stored
	}
	owner.nc.Close()
	_ = owner.Wait() // as it was told to
	return gap, owner.start(ctx, r.Program, owner.data, owner.joined)
}
