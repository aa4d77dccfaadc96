package chaos

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
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
	return fmt.Sprintf("%d above %s, median %s, longest %s from %s", len(sorted), stalled, round(sorted[len(sorted)/2].long),
		round(longest.long), stamp(longest.from))
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

// sampler scrapes the metrics of the dormouse processes and sums counters up over their restarts. What a process counts in
// the last moments before a kill is missed; what must never be missed is in the logs as well.
type sampler struct {
	cancel context.CancelFunc
	joined sync.WaitGroup
	frozen atomic.Bool // the harness itself keeps workers from committing: that is no stall

	commits gaps                          // after stop
	seen    map[string]map[string]float64 // by process and counter: the last sample
	total   map[string]float64            // by counter
}

const sampleEvery = 250 * time.Millisecond

func startSampler(c *cluster) *sampler {
	ctx, cancel := context.WithCancel(context.Background())
	s := &sampler{cancel: cancel, seen: make(map[string]map[string]float64), total: make(map[string]float64)}
	c.t.Cleanup(s.stop)
	s.joined.Go(func() {
		tick := time.NewTicker(sampleEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				s.sample(ctx, c)
			}
		}
	})
	return s
}

// stop ends sampling; it may be called twice.
func (s *sampler) stop() { s.cancel(); s.joined.Wait() }

func (s *sampler) sample(ctx context.Context, c *cluster) {
	names := c.parts.ingests // the counters are theirs
	samples := make([]map[string]float64, len(names))
	var scraped sync.WaitGroup
	for i, name := range names {
		scraped.Go(func() { samples[i] = scrape(ctx, c.http[name]) })
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

// scrape returns a process's samples without labels; nil if it does not answer.
func scrape(ctx context.Context, addr string) map[string]float64 {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/metrics", nil)
	if err != nil {
		return nil
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil
	}
	values := make(map[string]float64)
	for line := range strings.Lines(string(body)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if v, err := strconv.ParseFloat(value, 64); ok && err == nil {
			values[name] = v
		}
	}
	return values
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
	entries, unknown, unsent := f.oracle.counts()
	line("entries: %d acked, %d unknown, %d never sent", entries, unknown, unsent)
	line("publishing stalled (no ack): %s", &f.oracle.acks)
	line("archiving stalled (no commit): %s", &f.sampler.commits)
	line("shards taken %d times; %d step-downs (metric: %v)", f.remarks.ownerships, f.remarks.stepDowns, f.sampler.total[stepDowns])
	line("extents refused %v, entries met again %v", f.sampler.total[refusedParts], f.sampler.total[skipped])
	line("reads during the faults: %d right, %d failed, %d wrong", f.reader.good, f.reader.failed, len(f.reader.wrong))
	line("ready %s after healing; archived %s after that", round(f.healed), round(f.archived))
	line("reading all logs: %s directly after healing, %s from the archive", round(f.readMixed), round(f.readAll))
	line("%s; %d orphans, %d unfinished puts", f.verified, f.orphans, f.temporary)
	line("a segment was committed %s after it was named at most; %d manifest records were gone before they were seen",
		round(f.history.oldest), f.history.missed)
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
