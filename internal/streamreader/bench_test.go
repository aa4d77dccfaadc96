package streamreader

import (
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/natstest"
)

// BenchmarkNext reads a backlog of messages of 256 bytes, once as the owner of a shard does and once with the
// library's consumer.
func BenchmarkNext(b *testing.B) {
	for name, open := range map[string]func(b *testing.B, js jetstream.JetStream) (next func() error){
		"streamreader": func(b *testing.B, js jetstream.JetStream) func() error {
			c, err := Open(b.Context(), js, "S", "", 1, Limits{Messages: 4096, Bytes: 16 << 20})
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(c.Stop)
			return func() error {
				_, err := c.Next(b.Context())
				return err
			}
		},
		"library": func(b *testing.B, js jetstream.JetStream) func() error {
			c, err := js.CreateConsumer(b.Context(), "S", jetstream.ConsumerConfig{
				AckPolicy: jetstream.AckNonePolicy, MemoryStorage: true,
			})
			if err != nil {
				b.Fatal(err)
			}
			messages, err := c.Messages(jetstream.PullMaxMessagesWithBytesLimit(4096, 16<<20),
				jetstream.PullThresholdMessages(1))
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(messages.Stop)
			return func() error {
				msg, err := messages.Next(jetstream.NextContext(b.Context()))
				if err == nil {
					_, err = msg.Metadata()
				}
				return err
			}
		},
	} {
		b.Run(name, func(b *testing.B) {
			_, js := natstest.Dial(b, natstest.Start(b))
			makeStream(b, js, 0)
			for range b.N {
				if _, err := js.PublishAsync("S.a", make([]byte, 256), jetstream.WithStallWait(patience)); err != nil {
					b.Fatal(err)
				}
			}
			<-js.PublishAsyncComplete()
			next := open(b, js)
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				if err := next(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
