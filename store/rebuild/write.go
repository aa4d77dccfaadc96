package rebuild

import (
	"bytes"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/google/uuid"

	"dormouse/internal/entry"
	"dormouse/internal/extent"
	"dormouse/store/contents"
	"dormouse/store/segment"
)

const (
	// readAhead is what all inputs read ahead together; each has minRead to maxRead.
	readAhead = 32 << 20
	minRead   = 64 << 10
	maxRead   = 1 << 20
)

// damageError says which object could not be read.
type damageError struct {
	key string
	err error
}

func (e damageError) Error() string { return e.err.Error() }
func (e damageError) Unwrap() error { return e.err }

// lane walks over the entries of a node's segments, of which one at a time is open.
type lane struct {
	shard  *shard
	node   *node
	rest   []extent.Summary // rest[0] is open if reader is not nil
	ahead  int64
	reader *segment.Reader
	cursor *segment.Cursor
}

// next moves to the next entry and reports whether there is one.
func (l *lane) next(ctx context.Context) (more bool, err error) {
	for len(l.rest) > 0 {
		if l.reader == nil {
			err = l.open(ctx)
		}
		if err == nil {
			more, err = l.cursor.Next()
		}
		if isDamage(err) {
			err = damageError{l.rest[0].Object.Key, err}
		}
		if err != nil || more {
			return more, err
		}
		if err := l.close(); err != nil {
			return false, err
		}
		l.rest = l.rest[1:]
	}
	return false, nil
}

func (l *lane) open(ctx context.Context) (err error) {
	s := l.rest[0]
	if l.reader, err = l.shard.Open(ctx, s.Object); err != nil {
		l.reader = nil
		return err
	}
	l.cursor, err = l.reader.Cursor(ctx, l.ahead, s.Refused)
	return err
}

func (l *lane) close() (err error) {
	if l.cursor != nil {
		err = l.cursor.Close()
	}
	if l.reader != nil {
		err = errors.Join(err, l.reader.Close())
	}
	l.reader, l.cursor = nil, nil
	return err
}

// lanes is a heap, the least key first.
type lanes []*lane

func (l lanes) Len() int           { return len(l) }
func (l lanes) Less(i, j int) bool { return bytes.Compare(l[i].cursor.Key(), l[j].cursor.Key()) < 0 }
func (l lanes) Swap(i, j int)      { l[i], l[j] = l[j], l[i] }

// Push implements heap.Interface.
func (l *lanes) Push(x any) { *l = append(*l, x.(*lane)) }

// Pop implements heap.Interface.
func (l *lanes) Pop() any {
	last := (*l)[len(*l)-1]
	*l = (*l)[:len(*l)-1]
	return last
}

// writing writes nodes anew as one: each entry once, ascending. It has one output in memory, and what the inputs read
// ahead.
type writing struct {
	shard  *shard
	lanes  lanes
	floors *floors
	cuts   extent.Cuts

	key, value []byte // of the entry that is to be written
	ofTree     bool
	at         time.Time
	writer     *segment.Writer // nil between outputs
	outputs    []extent.Summary
	entries    uint64
	other      uint64 // entries that gave way to another one of their log and sequence
}

// write writes nodes anew, without what the oldest runs of the kept tree have and without what is cut, and returns the
// segments. Those it has put stay in the bucket when it fails.
func (s *shard) write(ctx context.Context, nodes []*node, runs int) (w *writing, err error) {
	ahead := min(max(readAhead/int64(len(nodes)), minRead), maxRead)
	w = &writing{shard: s, cuts: s.kept.Cuts(), floors: s.floors(ctx, nodes, runs)}
	defer w.floors.stop()
	var all lanes
	defer func() {
		for _, l := range all {
			if cerr := l.close(); err == nil { // a reader that failed says it once more
				err = cerr
			}
		}
		if w.writer != nil {
			w.writer.Close()
		}
	}()
	for _, n := range nodes {
		l := &lane{shard: s, node: n, rest: n.segments, ahead: ahead}
		all = append(all, l)
		more, err := l.next(ctx)
		if err != nil {
			return w, err
		}
		if more {
			w.lanes = append(w.lanes, l)
		}
	}
	heap.Init(&w.lanes)
	for len(w.lanes) > 0 {
		if err := w.take(ctx); err != nil {
			return w, err
		}
		if err := w.add(ctx); err != nil {
			return w, err
		}
	}
	return w, w.flush(ctx)
}

// take takes the next entry: what all lanes have of one log and sequence. That is one entry as a rule. But if the
// source stream lost its end in a power failure, it uses sequences again, and what a worker had put of before was not
// committed. Then the checkpoint's entry is right, and else the later one.
func (w *writing) take(ctx context.Context) error {
	w.key = w.key[:0]
	for len(w.lanes) > 0 {
		l := w.lanes[0]
		if len(w.key) > 0 && !bytes.Equal(l.cursor.Key(), w.key) {
			return nil
		}
		at, _, err := entry.Measure(l.cursor.Value())
		if err != nil {
			return damageError{l.rest[0].Object.Key, fmt.Errorf("%w: %s: %w", segment.ErrCorrupt, l.rest[0].Object.Key, err)}
		}
		first := len(w.key) == 0
		if !first && !at.Equal(w.at) {
			w.other++
		}
		if first || l.node.ofTree && !w.ofTree || l.node.ofTree == w.ofTree && at.After(w.at) {
			w.key = append(w.key[:0], l.cursor.Key()...)
			w.value = append(w.value[:0], l.cursor.Value()...)
			w.at, w.ofTree = at, l.node.ofTree
		}
		more, err := l.next(ctx)
		if err != nil {
			return err
		}
		if more {
			heap.Fix(&w.lanes, 0)
		} else {
			heap.Pop(&w.lanes)
		}
	}
	return nil
}

// add writes the entry that was taken, if it is to be in the tree.
func (w *writing) add(ctx context.Context) (err error) {
	log, seq, err := entry.SplitKey(w.key)
	if err != nil {
		return err
	}
	if w.cuts.Have(string(log), seq, w.at.UnixNano()) {
		return nil
	}
	floor, err := w.floors.of(string(log))
	if err != nil || seq <= floor {
		return err
	}
	if w.entries++; w.entries%tellEvery == 0 {
		w.shard.tell.progress("shard "+w.shard.ID.String()+": writing entries", w.entries, 0)
	}
	if w.writer != nil && w.writer.Size() >= segmentBytes {
		if err := w.flush(ctx); err != nil {
			return err
		}
	}
	if w.writer == nil {
		if w.writer, err = segment.NewWriter(segment.Options{}); err != nil {
			return err
		}
	}
	return w.writer.Add(w.key, w.value)
}

// flush makes an output durable.
func (w *writing) flush(ctx context.Context) error {
	if w.writer == nil {
		return nil
	}
	data, extents, err := w.writer.Finish()
	w.writer = nil
	if err != nil {
		return err
	}
	id, err := uuid.NewV7()
	if err != nil {
		return err
	}
	object := extent.Segment{Key: w.shard.ID.SegmentKey(id.String()), Size: uint64(len(data))}
	if err := w.shard.bucket.Put(ctx, object.Key, data); err != nil {
		return err
	}
	sum := extent.Summarize(object, extents)
	sum.Cut = w.shard.kept.NewestCut().Record
	w.outputs = append(w.outputs, sum)
	return nil
}

// floors tells, log by log and ascending, up to which sequence the oldest runs have it.
type floors struct {
	next func() (contents.Log, error, bool)
	stop func()
	now  contents.Log
	over bool
}

func (s *shard) floors(ctx context.Context, nodes []*node, runs int) *floors {
	first, end := "", ""
	for i, n := range nodes {
		from, to := n.segments[0].First, n.segments[len(n.segments)-1].Last+"\x00"
		if i == 0 || from < first {
			first = from
		}
		end = max(end, to)
	}
	f := &floors{}
	f.next, f.stop = iter.Pull2(contents.Gather(ctx, s, s.pieces(runs, first, end, make(map[string]found)), first, end))
	return f
}

// of returns the floor of a log, which is not below the one that was asked for before.
func (f *floors) of(log string) (floor uint64, err error) {
	for !f.over && f.now.Log < log {
		now, err, ok := f.next()
		if err != nil {
			return 0, err
		}
		f.now, f.over = now, !ok
	}
	if f.over || f.now.Log != log {
		return 0, nil
	}
	for _, l := range f.now.Extents {
		floor = max(floor, l.Extent.Last)
	}
	return floor, nil
}

// mostNodes is how many nodes are compared at a time: each has the end of a segment in memory. More are written anew,
// so many at a time, as fewer.
const mostNodes = 1024

// condense makes few nodes of the young ones, however many there are.
func (s *shard) condense(ctx context.Context, most int) error {
	if len(s.young) <= most {
		return nil
	}
	var few []*node
	for group := range slices.Chunk(s.young, most) {
		w, err := s.write(ctx, group, 0)
		if err != nil {
			return err
		}
		if len(w.outputs) > 0 {
			few = append(few, &node{segments: w.outputs})
		}
	}
	s.young = few
	return nil
}
