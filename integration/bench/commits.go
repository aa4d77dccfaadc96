package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/wire"
	"dormouse/store/manifest"
)

// history is what the manifest says of commits.
type history struct {
	claimed  time.Time // when the last owner claimed the shard
	first    time.Time // when the first commit after the claim was stored
	opening  int       // entries in it
	last     time.Time // when the last commit was stored
	records  int       // commits, each of which may carry several segments
	segments int
	extents  int
	entries  int
	bytes    uint64    // of the segments
	raw      uint64    // payload and header bytes of the entries
	delays   []float64 // seconds from the arrival of an extent's first entry to its commit
}

// commits reads the manifest of shard 0 above a sequence, and returns the sequence of its last record too.
func (p *program) commits(ctx context.Context, after uint64) (h history, last uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	stream, err := p.js.Stream(ctx, wire.ManifestStream)
	if err != nil {
		return h, 0, fmt.Errorf("opening the manifest: %w", err)
	}
	if last = stream.CachedInfo().State.LastSeq; last <= after {
		return h, last, nil
	}
	consumer, err := p.js.OrderedConsumer(ctx, wire.ManifestStream, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: after + 1})
	if err != nil {
		return h, 0, fmt.Errorf("reading the manifest: %w", err)
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessages(64))
	if err != nil {
		return h, 0, fmt.Errorf("reading the manifest: %w", err)
	}
	defer messages.Stop()
	for {
		msg, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return h, 0, fmt.Errorf("reading the manifest: %w", err)
		}
		meta, err := msg.Metadata()
		if err != nil {
			return h, 0, err
		}
		record, err := manifest.Decode(msg.Data())
		if err != nil {
			return h, 0, err
		}
		h.take(record, meta.Timestamp)
		if meta.Sequence.Stream >= last {
			return h, last, nil
		}
	}
}

func (h *history) take(r manifest.Record, stored time.Time) {
	if r.Kind == manifest.Claim {
		h.claimed, h.first = stored, time.Time{}
	}
	if len(r.Segments) == 0 {
		return
	}
	h.records++
	h.last = stored
	opening := h.first.IsZero()
	if opening {
		h.first, h.opening = stored, 0
	}
	for _, s := range r.Segments {
		h.segments++
		h.bytes += s.Segment.Size
		for _, e := range s.Extents {
			h.extents++
			h.entries += int(e.Count)
			if opening {
				h.opening += int(e.Count)
			}
			h.raw += e.Bytes
			h.delays = append(h.delays, stored.Sub(time.Unix(0, e.MinTime)).Seconds())
		}
	}
}

// expect makes sure that exactly the entries that were published were committed.
func (h history) expect(entries int) error {
	if h.entries != entries {
		return fmt.Errorf("%d entries were published and %d committed", entries, h.entries)
	}
	return nil
}

// mark returns the sequence of the manifest's last record.
func (p *program) mark(ctx context.Context) (uint64, error) {
	stream, err := p.js.Stream(ctx, wire.ManifestStream)
	if err != nil {
		return 0, err
	}
	return stream.CachedInfo().State.LastSeq, nil
}

var errNoSamples = errors.New("nothing was measured")
