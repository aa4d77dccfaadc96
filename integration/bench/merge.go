package bench

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"dormouse/internal/entry"
	"dormouse/store/bucket"
	"dormouse/store/client"
	"dormouse/store/reader"
)

// Bounds of what a history of wake-ups may cost. The processor time is 0.6 of what it was when each extent was a row of
// an index.
const (
	processorPerExtent = 38 // microseconds
	requestsOfALog     = 30
	kibOfALog          = 1536
	localMiB           = 10
	objectsLeft        = 30
)

// merges measures what the past costs: logs that wake up again and again, with one entry each time.
func merges(ctx context.Context, r *run) error {
	logs, rounds := min(2000, max(r.Entries/250, 100)), max(r.Entries/1250, 20)
	empty, err := timeToReady(ctx, r)
	if err != nil {
		return err
	}
	const delay = 100 * time.Millisecond
	p, err := r.serve(ctx, "--max-delay", delay.String())
	if err != nil {
		return err
	}
	before, err := p.stats.Times()
	if err != nil {
		return err
	}
	r.step(fmt.Sprintf("waking %d logs %d times", logs, rounds))
	data := payloads(entryBytes / 3)
	began := time.Now()
	for round := range rounds {
		if _, err := p.publish(ctx, load{count: logs, subject: subjectOf, data: func(i int) []byte {
			return data(round*logs + i)
		}}); err != nil {
			return err
		}
		time.Sleep(delay) // nothing is due before that, and each look is at the cost of who is looked at
		if err := p.untilSynced(ctx, (round+1)*logs); err != nil {
			return err
		}
	}
	took := time.Since(began)
	extents := float64(logs * rounds)
	r.step("letting merges and deletes end")
	m, err := p.untilMerged(ctx)
	if err != nil {
		return err
	}
	after, err := p.stats.Times()
	if err != nil {
		return err
	}
	busy := after.User + after.System - before.User - before.System
	r.add("extents", "/s", extents/took.Seconds(), nil)
	r.add("processor time per extent, merges included", "us", busy/extents*1e6, atMost(processorPerExtent))
	r.add("segments committed", "", m["dormouse_segments_committed_total"], nil)
	r.add("objects left", "", m["dormouse_segments_live"], atMost(objectsLeft))
	written := m[`dormouse_merge_bytes_total{direction="written"}`]
	r.add("write amplification", "", written/m["dormouse_segment_bytes_sum"], atMost(4))
	if err := readOneOf(ctx, r, p, rounds); err != nil {
		return err
	}
	if err := r.stop(); err != nil {
		return err
	}
	cache := filepath.Join(r.data(), "pebble")
	local, err := sizeOf(cache)
	if err != nil {
		return err
	}
	r.add("local state", "MiB", float64(local)/mib, atMost(localMiB))
	if err := os.RemoveAll(cache); err != nil {
		return err
	}
	r.step("taking over with an empty disk")
	again, err := timeToReady(ctx, r)
	if err != nil {
		return err
	}
	r.compare("ready with an empty disk", "s", again.Seconds(), "an empty system", empty.Seconds(),
		atMost(empty.Seconds()+1))
	return nil
}

// timeToReady returns how long the program takes from its start until it serves, and stops it.
func timeToReady(ctx context.Context, r *run) (time.Duration, error) {
	began := time.Now()
	if _, err := r.serve(ctx); err != nil {
		return 0, err
	}
	return time.Since(began), r.stop()
}

// untilMerged waits until nothing has been merged or deleted for longer than the grace and the time after which a shard
// at rest is merged.
func (p *program) untilMerged(ctx context.Context) (m map[string]float64, err error) {
	var last string
	since := time.Now()
	const still = 150 * time.Second // of which two minutes are until a shard at rest is merged, and one is the grace
	err = p.until(ctx, "merges and deletes to end", time.Second, func() (bool, error) {
		if m, err = p.metrics(ctx); err != nil {
			return false, err
		}
		now := fmt.Sprint(m["dormouse_merges_total"], m["dormouse_garbage_objects_total"])
		if now != last {
			last, since = now, time.Now()
		}
		return time.Since(since) > still, nil
	})
	return m, err
}

// readOneOf reads one log and counts what that takes of the bucket.
func readOneOf(ctx context.Context, r *run, p *program, want int) error {
	log := strings.TrimPrefix(subjectOf(7), "logs.")
	owners := client.New(p.nc, p.js)
	url, err := owners.Archive(ctx)
	if err != nil {
		return err
	}
	b, err := bucket.OpenToRead(ctx, url)
	if err != nil {
		return err
	}
	defer func() { _ = b.Close() }() // only read from
	sources, err := owners.Sources(ctx)
	if err != nil {
		return err
	}
	rd, closeReader, err := reader.Open(ctx, owners, reader.Located{Source: sources[0], Archive: url},
		reader.NewBucket(p.js, b))
	if err != nil {
		return err
	}
	defer closeReader()
	counted := &countingSegments{bucket: b}
	rd.Segments = counted
	entries := 0
	began := time.Now()
	if err := rd.Read(ctx, reader.Query{Log: log}, func(entry.Entry) error { entries++; return nil }); err != nil {
		return err
	}
	if entries != want {
		return fmt.Errorf("read %d of %d entries of %s", entries, want, log)
	}
	r.add("reading one log", "ms", time.Since(began).Seconds()*1000, nil)
	r.add("reading one log: requests", "", float64(counted.requests.Load()), atMost(requestsOfALog))
	r.add("reading one log: fetched", "KiB", float64(counted.bytes.Load())/1024, atMost(kibOfALog))
	return nil
}

// sizeOf returns how many bytes the files of a folder have; one that is not there has none.
func sizeOf(folder string) (bytes int64, err error) {
	err = filepath.WalkDir(folder, func(_ string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			bytes += info.Size()
		}
		return err
	})
	return bytes, err
}
