package chaos

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"dormouse/internal/proc"
	"dormouse/internal/programtest"
)

// gaps collects how long something stood still.
type gaps struct {
	last   time.Time
	stalls []stall
}

type stall struct {
	from time.Time
	long time.Duration
}

// stalled is from when on a pause counts as a stall.
const stalled = 500 * time.Millisecond

func (g *gaps) progress(now time.Time) {
	if pause := now.Sub(g.last); !g.last.IsZero() && pause >= stalled {
		g.stalls = append(g.stalls, stall{g.last, pause})
	}
	g.last = now
}

func (g *gaps) String() string {
	if len(g.stalls) == 0 {
		return fmt.Sprintf("none above %s", stalled)
	}
	sorted := slices.SortedFunc(slices.Values(g.stalls), func(a, b stall) int { return cmp.Compare(a.long, b.long) })
	longest := sorted[len(sorted)-1]
	return fmt.Sprintf("%d above %s, median %s, longest %s from %s", len(sorted), stalled,
		round(sorted[len(sorted)/2].long), round(longest.long), stamp(longest.from))
}

// counters are those that are watched, and that start at zero again with their process.
const (
	lostEntries  = "dormouse_entries_lost_total"
	stepDowns    = "dormouse_owner_stepdowns_total"
	syncedMetric = "dormouse_entries_synced_total"
	refusedParts = "dormouse_extents_refused_total"
	skipped      = "dormouse_entries_skipped_total"
)

var counters = []string{lostEntries, stepDowns, syncedMetric, refusedParts, skipped}

// sampler scrapes the metrics of the dormouse processes and sums counters up over their restarts. What a process counts
// in the last moments before a kill is missed; what must never be missed is in the logs as well.
type sampler struct {
	*programtest.Background
	frozen atomic.Bool // the harness itself keeps workers from committing: that is no stall

	commits gaps                          // after Stop
	seen    map[string]map[string]float64 // by process and counter: the last sample
	total   map[string]float64            // by counter
}

const sampleEvery = 250 * time.Millisecond

func startSampler(c *cluster) *sampler {
	s := &sampler{seen: make(map[string]map[string]float64), total: make(map[string]float64)}
	s.Background = programtest.Beside(c.t, every(sampleEvery, func(ctx context.Context) { s.sample(ctx, c) }))
	return s
}

func (s *sampler) sample(ctx context.Context, c *cluster) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	names := c.parts.ingests // the counters are theirs
	samples := make([]map[string]float64, len(names))
	var scraped sync.WaitGroup
	for i, name := range names {
		scraped.Go(func() { samples[i] = proc.Metrics(ctx, c.http[name]) })
	}
	scraped.Wait()
	before := s.total[syncedMetric]
	for i, name := range names {
		if samples[i] == nil {
			continue
		}
		for _, counter := range counters {
			now, last := samples[i][counter], s.seen[name][counter]
			if now < last { // it has started again
				last = 0
			}
			s.total[counter] += now - last
		}
		s.seen[name] = samples[i]
	}
	if s.total[syncedMetric] > before && !s.frozen.Load() {
		s.commits.progress(time.Now())
	}
}

// figures are what a run reports.
type figures struct {
	seed               uint64
	length             time.Duration
	shards             int
	faults             []fault
	oracle             *oracle
	sampler            *sampler
	reader             *reader
	history            *history
	deleter            *deleter
	remarks            remarks
	healed, archived   time.Duration
	readMixed, readAll time.Duration
	verified           string
	orphans, temporary int
}

func (f *figures) String() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("seed %d, %s of faults, %s", f.seed, f.length, shardsText(f.shards))
	line("%d faults:", len(f.faults))
	for _, text := range countsOf(f.faults) {
		line("  %s", text)
	}
	entries, unknown := f.oracle.Counts()
	line("entries: %d acked, %d unknown, %d never sent", entries, unknown, f.oracle.unsent)
	line("publishing stalled (no ack): %s", &f.oracle.acks)
	line("archiving stalled (no commit): %s", &f.sampler.commits)
	line("shards taken %d times; %v step-downs", f.remarks.ownerships, f.sampler.total[stepDowns])
	line("extents refused %v, entries met again %v", f.sampler.total[refusedParts], f.sampler.total[skipped])
	line("reads during the faults: %d right, %d failed, %d wrong", f.reader.good, f.reader.failed, len(f.reader.wrong))
	line("ready %s after healing; archived %s after that", round(f.healed), round(f.archived))
	line("reading all logs: %s directly after healing, %s from the archive", round(f.readMixed), round(f.readAll))
	line("%s; %d orphans, %d unfinished puts", f.verified, f.orphans, f.temporary)
	line("%d deletes, of which %d failed", f.deleter.deletes, f.deleter.failed)
	line("%d segments committed, %d merges; %d were deleted before the judge had read them", f.history.commits,
		f.history.merges, f.history.unread)
	line("a segment was committed %s after it was named at most; %d manifest records were gone before they were seen, "+
		"and %d not judged for want of them", round(f.history.oldest), f.history.missed, f.history.unjudged)
	for _, message := range slices.Sorted(maps.Keys(f.remarks.errors)) {
		line("logged as an error %d times: %s", f.remarks.errors[message], message)
	}
	return b.String()
}

func shardsText(n int) string {
	if n == 0 {
		return "one stream"
	}
	return fmt.Sprintf("%d shards", n)
}

// unfinishedPuts counts the files that killed workers were writing.
func (c *cluster) unfinishedPuts() int {
	c.t.Helper()
	names, err := filepath.Glob(filepath.Join(c.archive, "*", ".put-*"))
	c.must(err)
	return len(names)
}
