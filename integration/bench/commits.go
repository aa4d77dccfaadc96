package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/extent"
	"dormouse/internal/wire"
	"dormouse/store/bucket"
	"dormouse/store/client"
	"dormouse/store/manifest"
	"dormouse/store/segment"
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
	commits  []commit
}

// commit is one record with segments.
type commit struct {
	stored  time.Time
	entries int
}

// follower reads the manifest as it is written: what a checkpoint has may be dropped from it before a run is over.
type follower struct {
	owners   *client.Client
	stream   jetstream.Stream
	messages jetstream.MessagesContext
	done     chan struct{}

	mu      sync.Mutex
	last    uint64
	records []jetstream.Msg
	err     error
}

// follow begins above a sequence. history ends it.
func (p *program) follow(ctx context.Context, after uint64) (*follower, error) {
	stream, err := p.js.Stream(ctx, wire.ManifestStream)
	if err != nil {
		return nil, fmt.Errorf("opening the manifest: %w", err)
	}
	consumer, err := p.js.OrderedConsumer(ctx, wire.ManifestStream, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: after + 1})
	if err != nil {
		return nil, fmt.Errorf("reading the manifest: %w", err)
	}
	f := &follower{owners: client.New(p.nc, p.js), stream: stream, done: make(chan struct{}), last: after}
	if f.messages, err = consumer.Messages(jetstream.PullMaxMessages(64)); err != nil {
		return nil, fmt.Errorf("reading the manifest: %w", err)
	}
	go f.read()
	return f, nil
}

// followFromHere begins with the next record.
func (p *program) followFromHere(ctx context.Context) (*follower, error) {
	mark, err := p.mark(ctx)
	if err != nil {
		return nil, err
	}
	return p.follow(ctx, mark)
}

func (f *follower) read() {
	defer close(f.done)
	for {
		msg, err := f.messages.Next()
		var meta *jetstream.MsgMetadata
		if err == nil {
			meta, err = msg.Metadata()
		}
		f.mu.Lock()
		if f.err = err; err == nil {
			f.last = meta.Sequence.Stream
			if msg.Subject() != wire.SystemSubject { // which is no shard's
				f.records = append(f.records, msg)
			}
		}
		f.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// history waits for the records there are now, and sums them up.
func (f *follower) history(ctx context.Context) (h history, err error) {
	defer func() { f.messages.Stop(); <-f.done }()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	info, err := f.stream.Info(ctx)
	if err != nil {
		return h, fmt.Errorf("reading the manifest: %w", err)
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		f.mu.Lock()
		last, failed := f.last, f.err
		f.mu.Unlock()
		if last >= info.State.LastSeq {
			break
		}
		if failed != nil {
			return h, fmt.Errorf("reading the manifest: %w", failed)
		}
		select {
		case <-ctx.Done():
			return h, fmt.Errorf("reading the manifest: %d of %d: %w", last, info.State.LastSeq, ctx.Err())
		case <-tick.C:
		}
	}
	url, err := f.owners.Archive(ctx)
	if err != nil {
		return h, err
	}
	archive, err := bucket.OpenToRead(ctx, url)
	if err != nil {
		return h, err
	}
	defer func() { _ = archive.Close() }() // only read from
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, msg := range f.records {
		meta, err := msg.Metadata()
		if err != nil {
			return h, err
		}
		record, err := manifest.Decode(msg.Data())
		if err != nil {
			return h, err
		}
		h.take(ctx, record, meta.Timestamp, archive)
	}
	return h, nil
}

// delaysOf returns the earliest time of each extent of a segment, as its table of contents has it. One that is merged
// and deleted already, or cannot be read from here, has only its own.
func delaysOf(ctx context.Context, s extent.Summary, archive *bucket.Bucket) (times []int64) {
	extents, err := segment.ContentsOf(ctx, s.Object, archive.Segment)
	if err != nil {
		return []int64{s.MinTime}
	}
	for _, e := range extents {
		if s.MayHold(e.Log) {
			times = append(times, e.MinTime)
		}
	}
	return times
}

func (h *history) take(ctx context.Context, r manifest.Record, stored time.Time, archive *bucket.Bucket) {
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
	before := h.entries
	defer func() { h.commits = append(h.commits, commit{stored, h.entries - before}) }()
	for _, s := range r.Segments {
		h.segments++
		h.bytes += s.Object.Size
		h.extents += int(s.Logs)
		h.entries += int(s.Entries)
		if opening {
			h.opening += int(s.Entries)
		}
		h.raw += s.Bytes
		for _, at := range delaysOf(ctx, s, archive) {
			h.delays = append(h.delays, stored.Sub(time.Unix(0, at)).Seconds())
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
