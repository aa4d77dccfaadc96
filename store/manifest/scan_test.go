package manifest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/wire"
)

// broken is a JetStream in which consumers cannot be made as often as failures has errors, each of them one time; after them,
// requests are not answered if deaf.
type broken struct {
	jetstream.JetStream
	failures []error
	deaf     bool
}

func (b *broken) CreateConsumer(ctx context.Context, stream string, cfg jetstream.ConsumerConfig) (jetstream.Consumer, error) {
	if len(b.failures) > 0 {
		err := b.failures[0]
		b.failures = b.failures[1:]
		return nil, err
	}
	if b.deaf {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return b.JetStream.CreateConsumer(ctx, stream, cfg)
}

// longManifest has more records than Scan asks for at once.
func longManifest(t *testing.T, js jetstream.JetStream) *Manifest {
	t.Helper()
	m := open(t, js, 0)
	for epoch := range uint64(3 * scanWindow) {
		mustAppend(t, m, claim(epoch+1, "n"))
	}
	return m
}

// dropConsumers deletes the consumers of the manifest stream.
func dropConsumers(t *testing.T, js jetstream.JetStream) {
	t.Helper()
	stream, err := js.Stream(t.Context(), wire.ManifestStream)
	if err != nil {
		t.Fatal(err)
	}
	names := stream.ConsumerNames(t.Context())
	for name := range names.Name() {
		if err := stream.DeleteConsumer(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	if err := names.Err(); err != nil {
		t.Fatal(err)
	}
}

// TestScanGoesOn behind the last record that it has, when consumers die or the servers are without a leader for a moment.
func TestScanGoesOn(t *testing.T) {
	js := &broken{JetStream: newStream(t), failures: []error{context.DeadlineExceeded, &jetstream.APIError{Code: 503}}}
	m := longManifest(t, js)
	next := uint64(1)
	err := Scan(t.Context(), js, 0, Mark{}, m.Mark(), func(seq, _ uint64, r Record) error {
		if seq != next || r.Epoch != next {
			t.Errorf("record %d of epoch %d, want %d", seq, r.Epoch, next)
		}
		if next++; seq%scanWindow == 1 {
			dropConsumers(t, js)
			js.failures = append(js.failures, context.DeadlineExceeded)
		}
		return nil
	})
	if err != nil || next != 3*scanWindow+1 {
		t.Errorf("%d records, %v", next-1, err)
	}
}

// TestScanEnds when the stream is gone, and with its context while nobody answers.
func TestScanEnds(t *testing.T) {
	for name, js := range map[string]*broken{"gone": {}, "no answer": {deaf: true}} {
		t.Run(name, func(t *testing.T) {
			js.JetStream = newStream(t)
			m := longManifest(t, js)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			done := make(chan error, 1)
			go func() {
				done <- Scan(ctx, js, 0, Mark{}, m.Mark(), func(seq, _ uint64, _ Record) error {
					if seq > 1 {
						return nil
					}
					return js.DeleteStream(ctx, wire.ManifestStream)
				})
			}()
			if js.deaf {
				time.AfterFunc(50*time.Millisecond, cancel)
			}
			select {
			case err := <-done:
				if err == nil || js.deaf && !errors.Is(err, context.Canceled) {
					t.Errorf("ended with %v", err)
				}
			case <-time.After(5 * time.Second):
				t.Fatal("does not end")
			}
		})
	}
}
