package ingest

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"dormouse/internal/entry"
	"dormouse/internal/extent"
	"dormouse/internal/wire"
	"dormouse/store/bucket"
	"dormouse/store/client"
	"dormouse/store/reader"
	"dormouse/store/segment"
)

// countingSegments opens segments of a bucket, and counts them and the requests that they take.
type countingSegments struct {
	bucket           *bucket.Bucket
	opened, requests atomic.Int64
}

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
	of *countingSegments
}

func (s countingSource) ReadAt(ctx context.Context, p []byte, off int64) error {
	s.of.requests.Add(1)
	return s.Source.ReadAt(ctx, p, off)
}

// archive puts a segment of what is buffered of some logs, and commits it.
func (s *system) archive(key string, logs ...string) {
	s.T.Helper()
	entries, _ := s.Drain(logs...)
	w, err := segment.NewWriter(segment.Options{})
	if err != nil {
		s.T.Fatal(err)
	}
	for _, e := range entries {
		value := entry.AppendValue(nil, e.Time, e.Headers, e.Data)
		if err := w.Add(entry.AppendKey(nil, e.Log, e.Seq), value); err != nil {
			s.T.Fatal(err)
		}
	}
	data, extents, err := w.Finish()
	if err != nil {
		s.T.Fatal(err)
	}
	if err := s.Bucket.Put(s.T.Context(), key, data); err != nil {
		s.T.Fatal(err)
	}
	var reply wire.CommitReply
	err = s.Ask(wire.OpCommit, wire.CommitRequest{Segment: extent.Segment{Key: key, Size: uint64(len(data))},
		Extents: extents}, &reply)
	if err != nil || reply.Err() != nil || len(reply.Refused) > 0 {
		s.T.Fatalf("%v, %+v", err, reply)
	}
}

// TestReadsOfOneLogAmongMany: there are 24 fresh segments with logs of the whole shard, two of which hold a log. A read
// of it opens these, with at most two requests each; one that nobody has opens none.
func TestReadsOfOneLogAmongMany(t *testing.T) {
	s := newSystem(t)
	n := s.start("a", t.TempDir(), func(c *Config) { c.MaxDelay = time.Hour })
	n.awaitOwned()
	const segments, log = 24, "t.m"
	published := 0
	for i := range segments {
		logs := []string{"t.a", "t.z", fmt.Sprintf("t.l%02d", i)}
		if i == 3 || i == 17 {
			logs = append(logs, log)
		}
		for _, log := range logs {
			s.Publish("logs."+log, "one", "two")
			published += 2
		}
		n.awaitMetric("dormouse_entries_ingested_total", float64(published))
		s.archive(fmt.Sprintf("0/%02d.sst", i), logs...)
	}
	owners := client.New(s.NC, s.JS)
	sources, err := owners.Sources(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	read := func(log string) (entries int, opened, requests int64) {
		t.Helper()
		at := reader.Located{Source: sources[0], Archive: "mem://"}
		r, closeReader, err := reader.Open(t.Context(), owners, at, reader.NewBucket(s.JS, s.Bucket))
		if err != nil {
			t.Fatal(err)
		}
		defer closeReader()
		counted := &countingSegments{bucket: s.Bucket}
		r.Segments = counted
		if err := r.Read(t.Context(), reader.Query{Log: log}, func(entry.Entry) error { entries++; return nil }); err != nil {
			t.Fatal(err)
		}
		return entries, counted.opened.Load(), counted.requests.Load()
	}
	if entries, opened, requests := read(log); entries != 4 || opened != 2 || requests > 2*2 {
		t.Errorf("%d entries of %s, from %d segments with %d requests", entries, log, opened, requests)
	} else {
		t.Logf("%d segments, %d requests", opened, requests)
	}
	if entries, opened, _ := read("t.a"); entries != 2*segments || opened != segments {
		t.Errorf("%d entries of the log that is everywhere, from %d segments", entries, opened)
	}
	if entries, opened, _ := read("t.nobody"); entries+int(opened) > 0 {
		t.Errorf("%d entries of a log that nobody has, from %d segments", entries, opened)
	}
}
