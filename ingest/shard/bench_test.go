package shard

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/extent"
	"dormouse/internal/streamreader"
	"dormouse/internal/wire"
)

// fill gives each log perLog entries of 256 bytes, one log after the other again and again, and returns what a worker
// would commit of them.
func fill(b testing.TB, o *trial, logs []string, perLog int) []extent.Extent {
	b.Helper()
	in := o.intake.newBatch()
	msg := streamreader.Message{Data: make([]byte, 256)}
	extents := make([]extent.Extent, len(logs))
	for range perLog {
		for i, log := range logs {
			msg.Subject, msg.Sequence, msg.Time = o.site.Source.Prefix+"."+log, in.expected, time.Now()
			if err := in.take(msg); err != nil {
				b.Fatal(err)
			}
			extents[i].Log = log
			extents[i].Add(msg.Sequence, msg.Time, len(msg.Data))
		}
	}
	if err := o.intake.apply(b.Context(), in); err != nil {
		b.Fatal(err)
	}
	return extents
}

// BenchmarkCommit is a commit of 2,000 extents with five entries each, from the request's bytes to the logs asleep: the
// manifest append goes to a real server, in this process.
func BenchmarkCommit(b *testing.B) {
	const extents, perLog = 2000, 5
	o := claimed(b)
	logs := make([]string, extents)
	for i := range logs {
		logs[i] = fmt.Sprintf("tenant%03d.log%05d", i/10, i)
	}
	segments := 0
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		segments++
		data, err := wire.Encode(wire.CommitRequest{
			Segment: extent.Segment{Key: fmt.Sprintf("0/%036d.sst", segments), Size: 1 << 20},
			Extents: fill(b, o, logs, perLog),
		})
		if err != nil {
			b.Fatal(err)
		}
		call := &commitCall{msg: &nats.Msg{Data: data}} // the answer goes nowhere
		b.StartTimer()
		err = o.committer.commit(b.Context(), []appendRequest{{commit: call}})
		if err != nil || call.err != nil || len(call.refused) > 0 {
			b.Fatalf("%v, %v, %d extents refused", err, call.err, len(call.refused))
		}
	}
	if stats := o.sched.Stats(); stats.Active > 0 {
		b.Fatalf("%d logs are still active", stats.Active)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*extents), "ns/extent")
}

// BenchmarkConsume is an entry of 256 bytes on its way from the stream into the buffer while there is a backlog.
func BenchmarkConsume(b *testing.B) {
	o := claimed(b)
	o.intake.limit.bytes = 1 << 40 // nobody drains
	publisher, err := jetstream.New(o.site.NC)
	if err != nil {
		b.Fatal(err)
	}
	for i := range b.N {
		if _, err := publisher.PublishAsync(fmt.Sprintf("%s.T.log%03d", o.site.Source.Prefix, i%1000),
			make([]byte, 256)); err != nil {
			b.Fatal(err)
		}
	}
	<-publisher.PublishAsyncComplete()
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	b.ReportAllocs()
	b.ResetTimer()
	go func() { done <- o.intake.run(ctx) }()
	for tick := time.NewTicker(time.Millisecond); o.ledger.applied() < uint64(b.N); <-tick.C {
	}
	b.StopTimer()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		b.Fatal(err)
	}
}
