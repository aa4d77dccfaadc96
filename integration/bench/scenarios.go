package bench

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"dormouse/internal/entry"
	"dormouse/internal/extent"
	"dormouse/store/archive"
	"dormouse/store/reader"
	"dormouse/store/segment"
)

// scenario is one thing to measure.
type scenario struct {
	name    string
	about   string
	measure func(context.Context, *run) error
}

const (
	entryBytes    = 256
	hotBytes      = 1024
	hotLogs       = 100
	drainLogs     = 100_000
	maxDelay      = 5 * time.Second // the default of serve
	wakeMargin    = 15 * time.Second
	delayMargin   = 250 * time.Millisecond
	bucketLatency = 50 * time.Millisecond
)

// scenarios returns all there is to measure with a configuration.
func scenarios(cfg Config) []scenario {
	var list []scenario
	for _, n := range cfg.Logs {
		list = append(list, scenario{fmt.Sprintf("sleep-%s", short(n)), fmt.Sprintf("%d logs asleep, then all woken", n),
			func(ctx context.Context, r *run) error { return sleepAndWake(ctx, r, n) }})
	}
	return append(list,
		scenario{"drain", "a backlog in the stream, until all of it is committed", drain},
		scenario{"hot", "few logs written as fast as JetStream takes it", hot},
		scenario{"delay", "steady load: entry arrival to commit", delay},
		scenario{"lateness", "100,000 deadlines: due to ready", late},
		scenario{"read", "one log out of the archive", read},
		scenario{"scale-workers", "a bucket that answers in 50 ms: 1 and 4 worker processes", scaleWorkers},
		scenario{"scale-owners", "8 shards: 1 and 2 ingest processes", scaleOwners},
		scenario{"failover", "an ingest process leaves, or is killed: how long nothing is committed", failover},
		scenario{"slow-bucket", "a bucket that answers in 50 ms: 1, 4 and 16 workers", slowBucket},
	)
}

func short(n int) string {
	switch {
	case n%1_000_000 == 0:
		return fmt.Sprintf("%dM", n/1_000_000)
	case n%1000 == 0:
		return fmt.Sprintf("%dk", n/1000)
	default:
		return fmt.Sprint(n)
	}
}

// Names returns the names of all scenarios of a configuration, each with a tab and what it measures.
func Names(cfg Config) (names []string) {
	for _, sc := range scenarios(cfg) {
		names = append(names, sc.name+"\t"+sc.about)
	}
	return names
}

func choose(cfg Config, names []string) (chosen []scenario, err error) {
	all := scenarios(cfg)
	if len(names) == 0 {
		return all, nil
	}
	for _, name := range names {
		i := slices.IndexFunc(all, func(sc scenario) bool { return sc.name == name })
		if i < 0 {
			return nil, fmt.Errorf("no scenario %q: there are %s", name, strings.ReplaceAll(strings.Join(Names(cfg), ", "), "\t", ": "))
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

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
	goroutineMiB, goroutineCores, err := r.idleBaseline(ctx, n)
	if err != nil {
		return err
	}
	r.add("idle: memory of an empty system", "MiB", empty, nil)
	r.compare("idle: memory over empty", "MiB", resident-empty, "goroutine per log", goroutineMiB, atMost(16))
	r.compare("idle: CPU", "% of a core", 100*cores, "goroutine per log", 100*goroutineCores, atMost(0.5))
	r.compare("idle: goroutines", "", now.goroutines, "goroutine per log", float64(n), atMost(150))
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
	r.add("wake: last entry acked to last commit", "s", (last - published).Seconds(), atMost((maxDelay + wakeMargin).Seconds()))
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

// backlog publishes entries over logs while nobody takes them in, and stops the program.
func (r *run) backlog(ctx context.Context, l load) (mark uint64, took time.Duration, err error) {
	r.step(fmt.Sprintf("publishing %d entries that nobody takes in", l.count))
	p, err := r.serve(ctx, "--roles", "worker")
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
func (r *run) archiveBacklog(ctx context.Context, mark uint64, entries int, flags ...string) (h history, peak usage, err error) {
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
	r.compare("published while archiving", "entries/s", n/took.Seconds(), "nobody consuming", n/alone.Seconds(), ratioAtLeast(0.6))
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
	r.compare(share+": rate that was published", "entries/s", float64(l.count)/took.Seconds(), share+" of the drain rate", l.rate, nil)
	r.add(share+": arrival to commit, median", "s", quantile(h.delays, 0.5), nil)
	r.add(share+": arrival to commit, 99%", "s", quantile(h.delays, 0.99), limit)
	r.add(share+": arrival to commit, worst", "s", quantile(h.delays, 1), nil)
	return nil
}

// read measures reading one long log whose entries lie between those of many others.
func read(ctx context.Context, r *run) error {
	const long, rounds = 10_000, 10
	others := min(drainLogs, 2*r.Entries)
	p, err := r.serve(ctx)
	if err != nil {
		return err
	}
	data := payloads(entryBytes)
	log := "bench.long"
	r.step(fmt.Sprintf("archiving %d logs and one of %d entries", others, long))
	for round := range rounds {
		first := round * others / rounds
		if _, err := p.publish(ctx, load{count: others / rounds, data: data, subject: func(i int) string { return subjectOf(first + i) }}); err != nil {
			return err
		}
		_, err := p.publish(ctx, load{count: long / rounds, data: func(i int) []byte { return data(round*long/rounds + i) },
			subject: func(int) string { return "logs." + log }})
		if err != nil {
			return err
		}
		// Every round is an extent of its own, as with a log that writes now and then.
		if err := p.untilSynced(ctx, (round+1)*(others/rounds+long/rounds)); err != nil {
			return err
		}
	}
	r.step("reading it back")
	client := reader.NewClient(p.nc, p.js)
	at, err := client.Locate(ctx, log)
	if err != nil {
		return err
	}
	bucket, err := archive.Open(ctx, at.Archive)
	if err != nil {
		return err
	}
	defer func() { _ = bucket.Close() }() // only read from
	rd, closeReader, err := client.Open(ctx, at, bucket)
	if err != nil {
		return err
	}
	defer closeReader()
	counted := &countingSegments{bucket: bucket}
	rd.Segments = counted
	alone, err := segment.NewWriter(segment.Options{})
	if err != nil {
		return err
	}
	defer alone.Close()
	var first time.Duration
	entries := 0
	began := time.Now()
	var kept []entry.Entry
	err = rd.Read(ctx, reader.Query{Log: log}, func(e entry.Entry) error {
		if entries++; entries == 1 {
			first = time.Since(began)
		}
		e.Data = slices.Clone(e.Data)
		kept = append(kept, e)
		return nil
	})
	if err != nil {
		return err
	}
	took := time.Since(began)
	if entries != long {
		return fmt.Errorf("read %d of %d entries", entries, long)
	}
	for _, e := range kept {
		if err := alone.Add(entry.AppendKey(nil, log, e.Seq), entry.AppendValue(nil, e.Time, e.Headers, e.Data)); err != nil {
			return err
		}
	}
	compressed, _, err := alone.Finish()
	if err != nil {
		return err
	}
	r.add("time to first entry", "ms", first.Seconds()*1000, nil)
	r.add("rate", "entries/s", long/took.Seconds(), nil)
	r.add("segments opened", "", float64(counted.opened), nil)
	r.add("requests to the bucket", "", float64(counted.requests), nil)
	size := float64(len(compressed)) / 1024
	r.compare("fetched", "KiB", float64(counted.bytes)/1024, "the log alone in one segment", size, atMost(2*size+256))
	return nil
}

// countingSegments opens segments and counts what is fetched of them.
type countingSegments struct {
	bucket                  *archive.Bucket
	opened, requests, bytes int
}

// Open implements reader.Segments.
func (c *countingSegments) Open(ctx context.Context, s extent.Segment) (reader.Segment, error) {
	object, err := c.bucket.Segment(s)
	if err != nil {
		return nil, err
	}
	c.opened++
	return segment.Open(ctx, countingSource{object, c})
}

type countingSource struct {
	segment.Source
	c *countingSegments
}

// ReadAt implements segment.Source.
func (s countingSource) ReadAt(ctx context.Context, p []byte, off int64) error {
	s.c.requests++
	s.c.bytes += len(p)
	return s.Source.ReadAt(ctx, p, off)
}
