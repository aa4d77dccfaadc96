package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// publishWindow is how many publishes may wait for their acks.
const publishWindow = 4096

// publishPatience is how long a full window may stay full.
const publishPatience = time.Minute

// payloads returns a source of entries of a size: log lines of words and numbers, which shrink under compression about
// as real ones do.
func payloads(size int) func(i int) []byte {
	rng := rand.New(rand.NewPCG(1, uint64(size)))
	words := []string{"request", "served", "cache", "miss", "upstream", "timeout", "retry", "GET", "POST", "/api/v1/items",
		"/healthz", "200", "404", "503", "user", "session", "latency_ms", "bytes", "eu-central-1", "info", "warn",
		"connection", "closed"}
	lines := make([][]byte, 1024)
	for i := range lines {
		line := fmt.Appendf(nil, "2026-01-31T08:%02d:%02d.%06dZ id=%016x", rng.IntN(60), rng.IntN(60), rng.IntN(1e6),
			rng.Uint64())
		for len(line) < size {
			line = append(append(line, ' '), words[rng.IntN(len(words))]...)
			if rng.IntN(3) == 0 {
				line = fmt.Appendf(line, "=%d", rng.IntN(100_000))
			}
		}
		lines[i] = line[:size]
	}
	return func(i int) []byte { return lines[i%len(lines)] }
}

// subjectOf returns the subject of log number i; a thousand logs are one tenant's.
func subjectOf(i int) string { return fmt.Sprintf("logs.t%d.device%d", i/1000, i) }

// shuffled returns a fixed random order of n logs: devices do not write in the order of their names.
func shuffled(n int) func(i int) string {
	order := rand.New(rand.NewPCG(2, uint64(n))).Perm(n)
	return func(i int) string { return subjectOf(order[i%n]) }
}

// load is what is to be published: count entries, the i-th to subject(i).
type load struct {
	count   int
	subject func(i int) string
	data    func(i int) []byte
	rate    float64 // entries a second; 0 is as fast as they are acked
}

// publish publishes a load and returns when JetStream has acked all of it.
func (p *program) publish(ctx context.Context, l load) (took time.Duration, err error) {
	began := time.Now()
	acks := make([]jetstream.PubAckFuture, 0, 2*publishWindow)
	settle := func(keep int) error {
		for len(acks) > keep {
			n := len(acks) - keep
			for _, ack := range acks[:n] {
				select {
				case <-ack.Ok():
				case err := <-ack.Err():
					return fmt.Errorf("publishing: %w", err)
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			acks = append(acks[:0], acks[n:]...)
		}
		return nil
	}
	for i := range l.count {
		if l.rate > 0 && i%64 == 0 {
			if wait := time.Duration(float64(i)/l.rate*1e9) - time.Since(began); wait > 0 {
				time.Sleep(wait)
			}
		}
		ack, err := p.js.PublishAsync(l.subject(i), l.data(i), jetstream.WithStallWait(publishPatience))
		if err != nil {
			return 0, fmt.Errorf("publishing: %w", err)
		}
		if acks = append(acks, ack); len(acks) == cap(acks) {
			if err := settle(publishWindow); err != nil {
				return 0, err
			}
		}
	}
	err = settle(0)
	return time.Since(began), err
}
