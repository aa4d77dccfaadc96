package bench

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"dormouse/internal/entry"
	"dormouse/internal/extent"
	"dormouse/store/bucket"
	"dormouse/store/client"
	"dormouse/store/reader"
	"dormouse/store/segment"
)

// read measures reading one long log whose entries lie between those of many others.
func read(ctx context.Context, r *run) error {
	const long, rounds = 10_000, 10
	others := min(drainLogs, 2*r.Entries)
	// long enough for a round to be published; what is measured comes after them
	p, err := r.serve(ctx, "--max-delay", "2s")
	if err != nil {
		return err
	}
	data := payloads(entryBytes)
	log := "bench.long"
	r.step(fmt.Sprintf("archiving %d logs and one of %d entries", others, long))
	for round := range rounds {
		first := round * others / rounds
		if _, err := p.publish(ctx, load{count: others / rounds, data: data, subject: func(i int) string {
			return subjectOf(first + i)
		}}); err != nil {
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
	owners := client.New(p.nc, p.js)
	url, err := owners.Archive(ctx)
	if err != nil {
		return err
	}
	bucket, err := bucket.OpenToRead(ctx, url)
	if err != nil {
		return err
	}
	defer func() { _ = bucket.Close() }() // only read from
	archive := reader.NewBucket(p.js, bucket)
	open := func(context.Context, string) (*reader.Bucket, error) { return archive, nil }
	at, err := reader.Locate(ctx, owners, open, log)
	if err != nil {
		return err
	}
	rd, closeReader, err := reader.Open(ctx, owners, at, archive)
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
	r.add("segments opened", "", float64(counted.opened.Load()), nil)
	r.add("requests to the bucket", "", float64(counted.requests.Load()), nil)
	size := float64(len(compressed)) / 1024
	fetched := float64(counted.bytes.Load()) / 1024
	r.compare("fetched", "KiB", fetched, "the log alone in one segment", size, atMost(2*size+256))
	return nil
}

// countingSegments opens segments and counts what is fetched of them.
type countingSegments struct {
	bucket                  *bucket.Bucket
	opened, requests, bytes atomic.Int64 // segments are opened ahead
}

// Open implements reader.Segments.
func (c *countingSegments) Open(ctx context.Context, s extent.Segment) (reader.Segment, error) {
	object, err := c.bucket.Segment(s)
	if err != nil {
		return nil, err
	}
	c.opened.Add(1)
	return segment.Open(ctx, countingSource{object, c})
}

type countingSource struct {
	segment.Source
	c *countingSegments
}

// ReadAt implements segment.Source.
func (s countingSource) ReadAt(ctx context.Context, p []byte, off int64) error {
	s.c.requests.Add(1)
	s.c.bytes.Add(int64(len(p)))
	return s.Source.ReadAt(ctx, p, off)
}
