package workers

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"dormouse/internal/entry"
	"dormouse/internal/wire"
	"dormouse/store/segment"
)

// logLine returns size bytes that compress about as log lines do.
func logLine(r *rand.Rand, size int) []byte {
	var line strings.Builder
	for line.Len() < size {
		fmt.Fprintf(&line, "2026-01-02T15:04:05.%06dZ GET /api/v1/items/%x 200 %dus upstream=10.0.0.%d ",
			r.IntN(1e6), r.Uint32(), r.IntN(1000), r.IntN(256))
	}
	return []byte(line.String()[:size])
}

// BenchmarkTake is what a worker does with one reply of about max_payload's default: decode it and check its entries,
// and then also pack them into a segment.
func BenchmarkTake(b *testing.B) {
	const logs, perLog = 640, 5
	r := rand.New(rand.NewPCG(1, 1))
	var names []string
	var repr batchRepr
	for i := range logs {
		names = append(names, fmt.Sprintf("tenant%03d.log%05d", i/10, i))
		for j := range perLog {
			seq := uint64(j*logs + i + 1)
			repr.set(entry.AppendKey(nil, names[i], seq), record{seq, logLine(r, 256)}.value())
		}
	}
	data, err := wire.Encode(wire.DrainReply{Data: repr.bytes(), Skip: logs, Done: true})
	if err != nil {
		b.Fatal(err)
	}
	take := func(b *testing.B, add func(key, value []byte) error) {
		var reply wire.DrainReply
		if err := wire.Decode(data, &reply); err != nil {
			b.Fatal(err)
		}
		if err := (&sink{logs: names, add: add}).take(reply, &wire.DrainRequest{Logs: names}); err != nil {
			b.Fatal(err)
		}
	}
	run := func(name string, fn func(b *testing.B)) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				fn(b)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*logs*perLog), "ns/entry")
		})
	}
	run("check", func(b *testing.B) {
		entries := 0
		if take(b, func(_, _ []byte) error { entries++; return nil }); entries != logs*perLog {
			b.Fatalf("%d entries, want %d", entries, logs*perLog)
		}
	})
	run("check and pack", func(b *testing.B) {
		writer, err := segment.NewWriter(segment.Options{})
		if err != nil {
			b.Fatal(err)
		}
		defer writer.Close()
		take(b, writer.Add)
		if _, extents, err := writer.Finish(); err != nil || len(extents) != logs {
			b.Fatalf("%d extents, %v, want %d", len(extents), err, logs)
		}
	})
}
