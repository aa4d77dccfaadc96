package chaos

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/extent"
	"dormouse/internal/programtest"
	"dormouse/internal/wire"
	"dormouse/store/manifest"
	"dormouse/store/segment"
	"dormouse/store/tree"
)

// orphanGrace is how old an object that nothing names must be before it is sure that nothing will: what a worker may
// take from naming a segment to its commit, frozen, cut off and retrying as the schedule has it.
const orphanGrace = time.Minute

// history follows the manifest, from which checkpoints take records away, and holds each record against those before
// it.
type history struct {
	*programtest.Background
	// stoodFrom and stoodTo are when the judge had all workers stand still, Unix nanoseconds. That is no fault, and
	// takes as long as all logs are read; a segment that was named before is not the older for it.
	stoodFrom, stoodTo atomic.Int64

	archive string // the bucket's folder

	// After Stop.
	trees   map[string]tree.Tree // of each shard, by its manifest's subject
	last    map[string]uint64    // of each log, the last sequence that is archived
	commits int                  // segments that were committed
	unread  int                  // of those, deleted before their tables of contents were read
	merges  int                  // that were done
	oldest  time.Duration        // the longest from a segment's naming to its commit
	missed  int                  // records that were gone before they were seen

	at       map[string]uint64 // of each shard, the last record that was seen
	unknown  map[string]bool   // shards of which records were missed
	unjudged int               // records of those
	wrong    []error
}

func startHistory(c *cluster) *history {
	c.t.Helper()
	_, js := programtest.Dial(c.t, c.directURLs())
	h := &history{archive: c.archive, trees: make(map[string]tree.Tree), last: make(map[string]uint64),
		at: make(map[string]uint64), unknown: make(map[string]bool)}
	var seen uint64 // the last record's sequence
	h.Background = programtest.Beside(c.t, every(100*time.Millisecond, func(ctx context.Context) {
		h.follow(ctx, js, &seen) // whatever ended it: the servers fail all the time
	}))
	return h
}

func (h *history) follow(ctx context.Context, js jetstream.JetStream, seen *uint64) {
	consumer, err := js.OrderedConsumer(ctx, wire.ManifestStream, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: *seen + 1,
	})
	if err != nil {
		return
	}
	messages, err := consumer.Messages()
	if err != nil {
		return
	}
	defer messages.Stop()
	for {
		msg, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return
		}
		meta, err := msg.Metadata()
		if err != nil {
			return
		}
		seq := meta.Sequence.Stream
		if seq <= *seen {
			continue
		}
		h.missed += int(seq - *seen - 1)
		*seen = seq
		if msg.Subject() != wire.SystemSubject { // which is no shard's
			h.take(seq, msg)
		}
	}
}

func (h *history) bad(format string, args ...any) {
	if len(h.wrong) < 20 {
		h.wrong = append(h.wrong, fmt.Errorf(format, args...))
	}
}

func (h *history) take(seq uint64, msg jetstream.Msg) {
	if msg.Subject() == wire.SystemSubject {
		return // whose system it is, which is no shard's record
	}
	r, err := manifest.Decode(msg.Data())
	if err != nil {
		h.bad("manifest record %d: %w", seq, err)
		return
	}
	live, err := h.next(msg.Subject(), seq, r)
	if err != nil {
		h.bad("manifest record %d: %w", seq, err)
		return
	}
	segments := r.Segments
	if r.Merge != nil {
		segments = r.Merge.Outputs
		h.merges++
	}
	for _, s := range segments {
		h.named(seq, r, s.Object.Key)
		h.uncut(seq, s, live.Cuts(), r.Merge != nil)
	}
	for _, s := range r.Segments {
		h.commits++
		h.ascends(seq, s)
	}
}

// next returns the tree that a record makes. When records before it were dropped before they were seen, the tree is not
// known, and empty, until a checkpoint of just the record before tells it.
func (h *history) next(shard string, seq uint64, r manifest.Record) (live tree.Tree, err error) {
	if r.Prev != h.at[shard] {
		h.unknown[shard] = true
	}
	h.at[shard] = seq
	if h.unknown[shard] {
		if r.Checkpoint == nil || r.Checkpoint.UpTo != r.Prev {
			h.unjudged++
			return live, nil
		}
		data, err := os.ReadFile(filepath.Join(h.archive, filepath.FromSlash(r.Checkpoint.Object.Key)))
		if errors.Is(err, fs.ErrNotExist) { // there is a newer one already
			return live, nil
		}
		if err == nil {
			h.trees[shard], err = tree.Decode(data)
		}
		if err != nil {
			return live, err
		}
		delete(h.unknown, shard)
	}
	live, _, err = r.Apply(h.trees[shard], seq)
	if err == nil {
		h.trees[shard] = live
	}
	return live, err
}

// named holds that a segment is not committed long after it was named: it might be taken for garbage.
func (h *history) named(seq uint64, r manifest.Record, key string) {
	id, err := uuid.Parse(strings.TrimSuffix(path.Base(key), path.Ext(key)))
	if err != nil {
		h.bad("manifest record %d: segment %s: %w", seq, key, err)
		return
	}
	named := time.Unix(id.Time().UnixTime())
	age := r.Time.Sub(named)
	if from := h.stoodFrom.Load(); named.UnixNano() < from && r.Time.UnixNano() > from {
		to := r.Time.UnixNano()
		if ended := h.stoodTo.Load(); ended > 0 {
			to = min(to, ended)
		}
		age -= time.Duration(to - from)
	}
	if h.oldest = max(h.oldest, age); age > orphanGrace {
		h.bad("manifest record %d refers to segment %s, which was named %s before", seq, key, age)
	}
}

// uncut holds that nothing is archived, or merged, that was cut before.
func (h *history) uncut(seq uint64, s extent.Summary, cuts extent.Cuts, merged bool) {
	if len(cuts) == 0 {
		return
	}
	extents, err := h.contents(s)
	if errors.Is(err, fs.ErrNotExist) {
		return // merged and deleted already
	}
	if err != nil {
		h.bad("manifest record %d: segment %s: %w", seq, s.Object.Key, err)
	}
	for _, e := range extents {
		for _, c := range cuts {
			if s.MayHold(e.Log) && c.Covers(e.Log) && c.Has(e.First, e.MinTime) && (!merged || c.Record <= s.Cut) {
				h.bad("manifest record %d archives %s from %d, which record %d has cut up to %d", seq, e.Log, e.First, c.Record,
					c.UpTo)
			}
		}
	}
}

// ascends holds what a commit archives against what is archived already.
func (h *history) ascends(seq uint64, s extent.Summary) {
	extents, err := h.contents(s)
	if errors.Is(err, fs.ErrNotExist) {
		h.unread++
		return
	}
	if err != nil {
		h.bad("manifest record %d: segment %s: %w", seq, s.Object.Key, err)
	}
	for _, e := range extents {
		if !s.MayHold(e.Log) {
			continue
		}
		if e.First <= h.last[e.Log] {
			h.bad("manifest record %d archives %s from %d, which is archived up to %d", seq, e.Log, e.First, h.last[e.Log])
		}
		h.last[e.Log] = e.Last
	}
}

// contents reads a segment's table of contents.
func (h *history) contents(s extent.Summary) ([]extent.Extent, error) {
	data, err := os.ReadFile(filepath.Join(h.archive, filepath.FromSlash(s.Object.Key)))
	if err != nil {
		return nil, err
	}
	r, err := segment.Open(context.Background(), segment.Bytes(s.Object.Key, data))
	if err != nil {
		return nil, err
	}
	extents, err := r.Contents(context.Background())
	return extents, errors.Join(err, r.Close())
}
