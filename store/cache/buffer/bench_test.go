package buffer

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"dormouse/internal/entry"
	"dormouse/internal/wire"
	"dormouse/store/cache"
)

const payloadBytes = 256 // of every entry in these benchmarks

func names(n int) []string {
	logs := make([]string, n)
	for i := range logs {
		logs[i] = fmt.Sprintf("tenant%03d.log%06d", i%1000, i)
	}
	return logs
}

func shuffled(logs []string) []string {
	logs = slices.Clone(logs)
	r := rand.New(rand.NewPCG(1, 1))
	r.Shuffle(len(logs), func(i, j int) { logs[i], logs[j] = logs[j], logs[i] })
	return logs
}

func perEntry(b *testing.B, entriesPerOp int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*entriesPerOp), "ns/entry")
}

// BenchmarkAppend is what ingest's intake does to the database with a batch of messages of 100,000 logs. They come in
// no order, which is what costs: each key has its own place among those that are there.
func BenchmarkAppend(b *testing.B) {
	const batchEntries = 1024
	db, buffer := open(b)
	logs := shuffled(names(100_000))
	payload := make([]byte, payloadBytes)
	now := time.Now()
	var key, value []byte
	var seq uint64
	b.ReportAllocs()
	b.SetBytes(batchEntries * payloadBytes)
	for b.Loop() {
		batch := db.NewBatch()
		for range batchEntries {
			seq++
			value = entry.AppendValue(value[:0], now, nil, payload)
			var err error
			if key, err = buffer.Put(batch, key, logs[seq%uint64(len(logs))], seq, value); err != nil {
				b.Fatal(err)
			}
		}
		if err := cache.SetPosition(batch, 3, cache.Position{Source: now, Manifest: now, Applied: seq,
			AppliedTime: now}); err != nil {
			b.Fatal(err)
		}
		if err := batch.Commit(pebble.NoSync); err != nil {
			b.Fatal(err)
		}
		if err := batch.Close(); err != nil {
			b.Fatal(err)
		}
		if seq%(256*batchEntries) == 0 { // the buffer limit bounds what lies in a buffer, and so what a long run may leave
			b.StopTimer()
			empty(b, db)
			b.StartTimer()
		}
	}
	perEntry(b, batchEntries)
}

func empty(b *testing.B, db *cache.DB) {
	batch := db.NewBatch()
	defer batch.Close()
	if err := cache.Forget(batch, 3, cache.SpaceBuffer); err != nil {
		b.Fatal(err)
	}
	if err := batch.Commit(pebble.NoSync); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkDrain is the owner's side of one worker's drain: as many replies as max_payload's default asks for, encoded.
// When all logs fell due together the cursor walks from one to the next; when others lie between, it seeks.
func BenchmarkDrain(b *testing.B) {
	const drained, perLog, maxBytes = 2048, 5, 1<<20 - 8<<10
	for _, tc := range []struct {
		name  string
		every int // one buffered log in so many is drained
	}{{"neighbours", 1}, {"scattered", 10}} {
		b.Run(tc.name, func(b *testing.B) {
			db, buffer := open(b)
			logs := names(drained * tc.every)
			var entries []stored
			for range perLog {
				for _, log := range shuffled(logs) {
					seq := uint64(len(entries) + 1)
					entries = append(entries, stored{log, seq, value(seq, make([]byte, payloadBytes))})
				}
			}
			fill(b, db, buffer, entries)
			slices.Sort(logs)
			var asked []string
			for i := 0; i < len(logs); i += tc.every {
				asked = append(asked, logs[i])
			}
			b.ReportAllocs()
			b.SetBytes(drained * perLog * payloadBytes)
			for b.Loop() {
				req := wire.DrainRequest{Logs: asked, MaxBytes: maxBytes}
				for done := false; !done; {
					var reply wire.DrainReply
					err := buffer.Drain(req, func(r wire.DrainReply) {
						if reply = r; len(encoded(b, r)) == 0 {
							b.Fatal("nothing was sent")
						}
					})
					if err != nil {
						b.Fatal(err)
					}
					done = reply.Done
					req.Logs, req.After = req.Logs[reply.Skip:], reply.After
				}
			}
			perEntry(b, drained*perLog)
		})
	}
}

func encoded(b *testing.B, reply wire.DrainReply) []byte {
	b.Helper()
	data, err := wire.Encode(reply)
	if err != nil {
		b.Fatal(err)
	}
	return data
}
