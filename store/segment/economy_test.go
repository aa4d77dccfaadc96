package segment

import (
	"context"
	"fmt"
	"math"
	"sync/atomic"
	"testing"
	"time"

	"dormouse/internal/entry"
)

var sampleTime = time.Unix(1700000000, 0).UTC()

// counted counts what a Source is asked for.
type counted struct {
	Source
	requests, bytes atomic.Int64
}

func (c *counted) ReadAt(ctx context.Context, p []byte, off int64) error {
	c.requests.Add(1)
	c.bytes.Add(int64(len(p)))
	return c.Source.ReadAt(ctx, p, off)
}

// TestReadingOneLogIsCheap: opening a segment and reading one log fetches at most twice the log's compressed size and
// 256 KiB, in few requests.
func TestReadingOneLogIsCheap(t *testing.T) {
	s := new(sample)
	for i := range 200 {
		s.log(fmt.Sprintf("acme.log%03d", i), 1, 1, 100, 256)
	}
	s.log("acme.long", 1, 1, 30000, 256)
	data := s.write(t, Options{Compression: "none"})
	for _, tc := range []struct {
		log         string
		first, last uint64
		requests    int64
	}{
		{"acme.log000", 0, math.MaxUint64, 2}, {"acme.log100", 0, math.MaxUint64, 2}, {"acme.log199", 0, math.MaxUint64, 2},
		{"acme.log100", 50, 50, 2}, {"acme.long", 0, math.MaxUint64, 12}, {"acme.long", 20000, 20010, 2},
		{"acme.none", 0, math.MaxUint64, 2},
	} {
		src := &counted{Source: Bytes("x", data)}
		r, err := Open(context.Background(), src)
		if err != nil {
			t.Fatal(err)
		}
		found, err := scan(r, tc.log, tc.first, tc.last)
		if err != nil {
			t.Fatal(err)
		}
		stored := int64(len(found) * (256 + 40))
		if got := src.bytes.Load(); got > 2*stored+256<<10 {
			t.Errorf("%s %d-%d: fetched %d bytes for %d of %d", tc.log, tc.first, tc.last, got, stored, len(data))
		}
		if got := src.requests.Load(); got > tc.requests {
			t.Errorf("%s %d-%d: %d requests, want at most %d", tc.log, tc.first, tc.last, got, tc.requests)
		}
	}
}

// TestStoppingEarlyIsCheap: a caller that wants one entry of a long log does not pay for the log.
func TestStoppingEarlyIsCheap(t *testing.T) {
	s := new(sample).log("acme.long", 1, 1, 30000, 256)
	src := &counted{Source: Bytes("x", s.write(t, Options{Compression: "none"}))}
	r, err := Open(context.Background(), src)
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Scan(context.Background(), "acme.long", 0, math.MaxUint64, func(entry.Entry) error { return context.Canceled })
	if got := src.bytes.Load(); got > 256<<10 {
		t.Fatalf("fetched %d bytes for one entry", got)
	}
}

// TestLargeIndex: when index and contents do not fit the first read, a second one fetches all of it, and later reads
// need nothing but data blocks.
func TestLargeIndex(t *testing.T) {
	s := new(sample)
	for i := range 5000 {
		s.log(fmt.Sprintf("acme.with-a-rather-long-name-%05d", i), 1, 1, 2, 300)
	}
	src := &counted{Source: Bytes("x", s.write(t, Options{Compression: "none", BlockSize: 512}))}
	r, err := Open(context.Background(), src)
	if err != nil {
		t.Fatal(err)
	}
	if got := src.requests.Load(); got != 2 {
		t.Fatalf("opened with %d requests, want 2", got)
	}
	if _, err := scan(r, "acme.with-a-rather-long-name-00007", 1, 2); err != nil {
		t.Fatal(err)
	}
	if got := src.requests.Load(); got != 3 {
		t.Fatalf("%d requests after one read, want 3", got)
	}
}

func TestConcurrentScans(t *testing.T) {
	s := new(sample).log("acme.a", 1, 1, 3000, 256).log("acme.b", 1, 1, 3000, 256)
	r := open(t, s.write(t, Options{}))
	defer r.Close()
	done := make(chan error, 8)
	for i := range cap(done) {
		go func() {
			log := s.extents()[i%2].Log
			found, err := scan(r, log, 0, math.MaxUint64)
			if err == nil && len(found) != 3000 {
				err = fmt.Errorf("%d entries", len(found))
			}
			done <- err
		}()
	}
	for range cap(done) {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func BenchmarkWrite(b *testing.B) {
	const logs, perLog = 256, 64
	var keys, values [][]byte
	for i := range logs {
		log := fmt.Sprintf("acme.log%03d", i)
		for j := range perLog {
			keys = append(keys, entry.AppendKey(nil, log, uint64(i+j*logs+1)))
			values = append(values, entry.AppendValue(nil, sampleTime.Add(time.Duration(j)), nil, logLine(log, i*j, 256)))
		}
	}
	for _, compression := range []string{"zstd", "snappy", "none"} {
		b.Run(compression, func(b *testing.B) {
			b.ReportAllocs()
			var size int
			for b.Loop() {
				w, err := NewWriter(Options{Compression: compression})
				if err != nil {
					b.Fatal(err)
				}
				for i := range keys {
					if err := w.Add(keys[i], values[i]); err != nil {
						b.Fatal(err)
					}
				}
				data, _, err := w.Finish()
				if err != nil {
					b.Fatal(err)
				}
				size = len(data)
			}
			entries := float64(len(keys))
			b.ReportMetric(entries*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
			b.ReportMetric(100*float64(size)/(entries*256), "%size")
		})
	}
}

func BenchmarkOpenAndScan(b *testing.B) {
	s := new(sample)
	for i := range 256 {
		s.log(fmt.Sprintf("acme.log%03d", i), 1, 1, 64, 256)
	}
	src := Bytes("x", s.write(b, Options{}))
	b.ReportAllocs()
	for b.Loop() {
		r, err := Open(context.Background(), src)
		if err != nil {
			b.Fatal(err)
		}
		if found, err := scan(r, "acme.log100", 0, math.MaxUint64); err != nil || len(found) != 64 {
			b.Fatal(len(found), err)
		}
	}
}
