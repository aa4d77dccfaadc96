package shard

import (
	"context"
	"errors"
	"testing"
	"time"

	"dormouse/ingest/ingesttest"
	"dormouse/internal/streamreader"
)

// trickling is a consumer of which each message was the stream's last one when it was sent. All but the first come
// while a batch waits.
type trickling struct {
	sent, comes uint64
	began       time.Time // when the first came
	waits       int       // Nexts that found nothing
}

func (c *trickling) message() streamreader.Message {
	if c.sent++; c.sent == 1 {
		c.began = time.Now()
	}
	return streamreader.Message{Subject: "logs.t.a", Sequence: c.sent, Delivered: c.sent, Time: time.Now()}
}

func (c *trickling) Next(ctx context.Context) (streamreader.Message, error) {
	if c.sent == c.comes {
		c.waits++
		<-ctx.Done()
		return streamreader.Message{}, ctx.Err()
	}
	return c.message(), nil
}

func (c *trickling) Try() (m streamreader.Message, ok bool, err error) {
	if c.sent == c.comes || time.Since(c.began) < gatherWait {
		return m, false, nil
	}
	return c.message(), true, nil
}

// TestTrickleIsGathered: what is published within a moment becomes one batch, though each message was the last one when
// it came, and nothing else is waited for.
func TestTrickleIsGathered(t *testing.T) {
	o := claimed(t)
	ctx, cancel := context.WithTimeout(t.Context(), ingesttest.Patience)
	defer cancel()
	for name, tc := range map[string]struct {
		comes uint64
		want  int
	}{"one": {1, 1}, "some": {50, 50}, "more than a batch": {batchMessages + 10, batchMessages}} {
		source := &trickling{comes: tc.comes}
		in, err := o.intake.readBatch(ctx, source)
		if err != nil {
			t.Fatal(err)
		}
		if in.messages != tc.want || in.pending != 0 || source.waits > 0 {
			t.Errorf("%s: a batch of %d messages with %d pending, after %d waits", name, in.messages, in.pending, source.waits)
		}
		in.close()
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if _, err := o.intake.readBatch(ended, &trickling{comes: 5}); !errors.Is(err, context.Canceled) {
		t.Errorf("a batch that is ended ends with %v", err)
	}
}
