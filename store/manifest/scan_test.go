package manifest

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/natstest"
	"dormouse/internal/wire"
)

// broken is a JetStream without a leader that makes consumers: that many requests for one are refused, and then, if
// deaf, none is answered.
type broken struct {
	jetstream.JetStream
	failures atomic.Int32
	deaf     bool
}

func newBroken(t *testing.T, deaf bool) *broken {
	b := &broken{deaf: deaf}
	b.JetStream = natstest.Gate(t, newStream(t).Conn(), func(request string, msg *nats.Msg) bool {
		switch {
		case !strings.HasPrefix(request, "CONSUMER.CREATE."):
			return false
		case b.failures.Load() > 0:
			b.failures.Add(-1)
			natstest.Refuse(t, msg, jetstream.APIError{Code: 503, ErrorCode: 10008,
				Description: "JetStream system temporarily unavailable"})
			return true
		}
		return b.deaf
	})
	return b
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

// TestScanGoesOn behind the last record that it has, when consumers die or the servers are without a leader for a
// moment.
func TestScanGoesOn(t *testing.T) {
	js := newBroken(t, false)
	js.failures.Store(2)
	m := longManifest(t, js)
	next := uint64(1)
	err := Scan(t.Context(), js, 0, Mark{}, m.Mark(), func(seq, _ uint64, r Record) error {
		if seq != next || r.Epoch != next {
			t.Errorf("record %d of epoch %d, want %d", seq, r.Epoch, next)
		}
		if next++; seq%scanWindow == 1 {
			dropConsumers(t, js)
			js.failures.Add(1)
		}
		return nil
	})
	if err != nil || next != 3*scanWindow+1 {
		t.Errorf("%d records, %v", next-1, err)
	}
}

// TestScanEnds when the stream is gone, and with its context while nobody answers.
func TestScanEnds(t *testing.T) {
	for name, deaf := range map[string]bool{"gone": false, "no answer": true} {
		t.Run(name, func(t *testing.T) {
			js := newBroken(t, deaf)
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
