package workers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/entry"
	"dormouse/internal/extent"
	"dormouse/internal/wire"
	"dormouse/store/bucket"
	"dormouse/store/segment"
)

const (
	// mergeReadAhead is what the inputs of one merge read ahead together; each has minMergeRead to maxMergeRead.
	mergeReadAhead = 32 << 20
	minMergeRead   = 64 << 10
	maxMergeRead   = 1 << 20
	idlePoll       = 100 * time.Millisecond // between looks for an idle worker
	// vainRest is how long a merge rests that fails until somebody mends an input: longer than its queue keeps it. Each
	// try may leave orphans, so the owner, who plans it anew, says how often.
	vainRest = 20 * time.Minute
)

// mergers returns how many merges the pool does at a time.
func (p *Pool) mergers() int {
	if p.cfg.Segments == nil {
		return 0
	}
	return max(1, int(float64(p.cfg.Size)*p.cfg.MergeShare))
}

// mergeAll is one who merges: ctx ends fetching, hard ends what is in hand.
func (p *Pool) mergeAll(ctx, hard context.Context, consumer jetstream.Consumer) {
	for ctx.Err() == nil {
		for _, msg := range p.fetchMerge(ctx, consumer) {
			p.mergeItem(ctx, hard, msg, consumer.CachedInfo().Config.AckWait)
		}
	}
}

// fetchMerge waits for a merge. One of those who merge does it at a time, so that a process at rest has one request at
// the server for it.
func (p *Pool) fetchMerge(ctx context.Context, consumer jetstream.Consumer) []jetstream.Msg {
	select {
	case <-ctx.Done():
		return nil
	case p.mergeTurn <- struct{}{}:
	}
	defer func() { <-p.mergeTurn }()
	items, err := first(ctx, consumer)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		p.cfg.Metrics.retries.WithLabelValues("fetch").Inc()
		p.outages.merges.Failed(err)
		pause(ctx, time.Second)
	default:
		p.outages.merges.Over()
	}
	return items
}

// mergeItem does one merge and tells the queue.
func (p *Pool) mergeItem(ctx, hard context.Context, msg jetstream.Msg, ackWait time.Duration) {
	stop := p.keepAlive([]jetstream.Msg{msg}, ackWait)
	defer stop()
	var item wire.MergeItem
	err := wire.Decode(msg.Data(), &item)
	if err == nil {
		err = item.Validate()
	}
	if err != nil {
		p.end(msg, poison, err)
		return
	}
	if err = p.awaitIdle(ctx); err == nil {
		err = p.merge(hard, item)
	}
	what, rest := done, p.rest
	switch {
	case errors.Is(err, errStale) || errors.Is(err, errRefused):
		what = stale // the owner plans anew
		p.cfg.Logger.Debug("a merge came too late", "shard", item.Shard, "epoch", item.Epoch, "error", err)
	case inVain(err):
		what, rest = abandoned, vainRest
	case err != nil:
		what = abandoned
	}
	if err != nil {
		err = fmt.Errorf("merging %d segments of shard %s: %w", len(item.Inputs()), item.Shard, err)
	}
	p.endAs(msg, what, err, p.outages.merged, rest)
}

// inVain reports whether a merge fails in the same way if it is tried again soon: an input is damaged, or gone. One
// that is gone was most likely merged by another worker, and then the owner does not plan it again.
func inVain(err error) bool {
	return errors.Is(err, segment.ErrCorrupt) || errors.Is(err, segment.ErrDuplicate) || errors.Is(err, bucket.ErrNotFound)
}

// awaitIdle waits until a worker of the pool has nothing to do: merges are never ahead of syncs.
func (p *Pool) awaitIdle(ctx context.Context) error {
	for int(p.busy.Load()) >= p.cfg.Size {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(idlePoll):
		}
	}
	return ctx.Err()
}

// takeTurn takes one of the pool's turns to pack.
func (p *Pool) takeTurn(ctx context.Context) error {
	select {
	case p.turns <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// letSyncsGoFirst gives the turn back, between two outputs of a merge, until a worker has nothing to do. It has a turn
// again when it returns, whatever that is.
func (p *Pool) letSyncsGoFirst(ctx context.Context) error {
	<-p.turns
	err := p.awaitIdle(ctx)
	p.turns <- struct{}{} // each turn ends
	return err
}

// errRefused means that the owner does not take a merge, and never will.
var errRefused = errors.New("the owner refused a merge")

// merge reads the inputs, puts the outputs and offers them to the owner. A crash in between leaves orphans. It has one
// output in memory, and what the inputs read ahead.
func (p *Pool) merge(ctx context.Context, item wire.MergeItem) (err error) {
	b := &batch{ownerID: ownerID{item.Shard, item.Epoch}}
	if p.silence.turnAway(b.ownerID, time.Now()) {
		return errSilent
	}
	if err := p.takeTurn(ctx); err != nil {
		return err
	}
	defer func() { <-p.turns }()
	m := &merging{pool: p, item: item}
	defer func() {
		if cerr := m.close(); err == nil { // a reader that failed says it once more
			err = cerr
		}
	}()
	if err := m.open(ctx); err != nil {
		return err
	}
	if err := m.write(ctx); err != nil {
		return err
	}
	if err := m.check(); err != nil {
		return err
	}
	_, err = ask[wire.ReplaceReply](ctx, p, b, wire.OpReplace,
		wire.ReplaceRequest{Inputs: item.Inputs(), Outputs: m.outputs, Bucket: p.cfg.BucketID(), Cut: item.Cut, Left: m.left})
	if errors.Is(err, errImpossible) {
		p.cfg.Metrics.orphans.Add(float64(len(m.outputs)))
		return fmt.Errorf("%w: %w", errRefused, err)
	}
	if err == nil {
		m.count()
	}
	return err
}

// merging is one merge under way.
type merging struct {
	pool    *Pool
	item    wire.MergeItem
	readers []*segment.Reader
	cursors []*segment.Cursor
	writer  *segment.Writer // nil between outputs
	outputs []extent.Summary
	left    extent.Size // entries that are cut
}

// readAhead is how much each of so many inputs reads ahead.
func readAhead(inputs int) int64 {
	return min(max(mergeReadAhead/int64(inputs), minMergeRead), maxMergeRead)
}

// open opens the inputs.
func (m *merging) open(ctx context.Context) error {
	ahead := readAhead(len(m.item.Inputs()))
	for _, run := range m.item.Runs {
		for _, s := range run {
			r, err := m.pool.cfg.Segments.Open(ctx, s.Object)
			if err != nil {
				return err
			}
			m.readers = append(m.readers, r)
			c, err := r.Cursor(ctx, ahead, s.Refused)
			if err != nil {
				return err
			}
			m.cursors = append(m.cursors, c)
		}
	}
	return nil
}

// close releases what is open.
func (m *merging) close() (err error) {
	for _, c := range m.cursors {
		err = errors.Join(err, c.Close())
	}
	for _, r := range m.readers {
		err = errors.Join(err, r.Close())
	}
	if m.writer != nil {
		m.writer.Close()
	}
	return err
}

// write writes the outputs. One may end between two entries of a log, which then goes on in the next.
func (m *merging) write(ctx context.Context) error {
	merged := segment.Merge(m.cursors)
	for {
		more, err := merged.Next()
		if err != nil {
			return err
		}
		if more && len(m.item.Cuts) > 0 {
			cut, err := m.isCut(merged.Key(), merged.Value())
			if err != nil {
				return fmt.Errorf("%w: %s: %w", segment.ErrCorrupt, merged.Segment(), err)
			}
			if cut {
				continue
			}
		}
		// One that is written anew stays one, so that it has its place in its run.
		full := m.writer != nil && m.writer.Size() >= m.pool.cfg.MergeBytes && len(m.cursors) > 1
		if m.writer != nil && (full || !more) {
			if err := m.flush(ctx); err != nil {
				return err
			}
		}
		if !more {
			return nil
		}
		if full {
			if err := m.pool.letSyncsGoFirst(ctx); err != nil {
				return err
			}
		}
		if m.writer == nil {
			if m.writer, err = segment.NewWriter(segment.Options{Compression: m.pool.cfg.Compression}); err != nil {
				return fmt.Errorf("beginning a segment: %w", err)
			}
		}
		if err := m.writer.Add(merged.Key(), merged.Value()); err != nil { // behind its checksums it was never right
			return fmt.Errorf("%w: %s: %w", segment.ErrCorrupt, merged.Segment(), err)
		}
	}
}

// isCut reports whether an entry is to be left out.
func (m *merging) isCut(key, value []byte) (bool, error) {
	log, seq, err := entry.SplitKey(key)
	if err != nil {
		return false, err
	}
	at, size, err := entry.Measure(value)
	if err != nil || !m.item.Cuts.Have(string(log), seq, at.UnixNano()) {
		return false, err
	}
	m.left.Entries++
	m.left.Bytes += uint64(size)
	return true, nil
}

// flush makes an output durable.
func (m *merging) flush(ctx context.Context) error {
	data, extents, err := m.writer.Finish()
	m.writer = nil
	if err != nil {
		return fmt.Errorf("finishing a segment: %w", err)
	}
	id, err := uuid.NewV7()
	if err != nil {
		return fmt.Errorf("naming a segment: %w", err)
	}
	s := extent.Segment{Key: m.item.Shard.SegmentKey(id.String()), Size: uint64(len(data))}
	if err := m.pool.put(ctx, s.Key, data); err != nil {
		return err
	}
	m.outputs = append(m.outputs, extent.Summarize(s, extents))
	return nil
}

// check compares what was written with what the inputs are said to have. The owner compares it again.
func (m *merging) check() error {
	have, want := extent.TotalOf(m.outputs), extent.TotalOf(slices.Concat(m.item.Runs...))
	if have != want && (len(m.item.Cuts) == 0 || !have.Without(m.left, want)) {
		return fmt.Errorf("%w: the segments of a merge add up to %+v, and should to %+v: run dormouse verify",
			segment.ErrCorrupt, have, want)
	}
	return nil
}

// count counts a merge that is done.
func (m *merging) count() {
	metrics := m.pool.cfg.Metrics
	metrics.merges.Inc()
	for _, run := range m.item.Runs {
		for _, s := range run {
			metrics.mergedBytes.WithLabelValues("read").Add(float64(s.Object.Size))
		}
	}
	for _, s := range m.outputs {
		metrics.mergedBytes.WithLabelValues("written").Add(float64(s.Object.Size))
	}
}
