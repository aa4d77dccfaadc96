package reader

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"dormouse/internal/entry"
	"dormouse/internal/extent"
	"dormouse/store/bucket"
	"dormouse/store/tree"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// model is a shard as a reader can meet it: a source stream that drops whatever it likes, and an owner that trails it.
// Between any two steps of a reader it goes on: entries arrive, are sent to the owner, taken in and committed; the
// stream is trimmed and loses others at any time; another owner takes over, with less on its disk, and the one before
// may go on answering.
type model struct {
	rand *rand.Rand

	log     []entry.Entry // all entries of the log that is read; the gaps are other logs'
	last    uint64        // sequence in the stream
	first   uint64        // nothing below is in the stream
	dropped map[uint64]bool
	limit   int  // entries of log, after which no more arrive
	calm    bool // nothing happens by itself
	// seconds that an entry's time may be behind that of one before it, as after a change of the stream's leader
	skew int

	owner  modelOwner
	stale  *modelOwner     // who answers in its place now and then
	sent   uint64          // up to where the owner's consumer was sent the stream
	flying []entry.Entry   // sent, and not taken in yet
	lost   map[uint64]bool // left the stream before any owner, or with the last that had it
	mute   int             // questions that no owner answers

	mu       sync.Mutex // segments are opened ahead
	segments map[string][]entry.Entry
	record   uint64   // of the manifest
	waste    []string // segments that a merge has replaced, and that are there still

	buffered []entry.Entry // what the stream has sent to the reader's consumer, which has not looked yet
	after    uint64        // where that consumer is
	trace    []string
}

// modelOwner is what an owner has at one moment. What it has is replaced, never changed.
type modelOwner struct {
	applied  uint64
	archived uint64 // last entry that is
	tree     tree.Tree
	buffered []entry.Entry
}

const theLog = "acme.web"

func newModel(seed uint64) *model {
	m := emptyModel(seed, 1)
	m.limit = 1 + m.rand.IntN(40)
	for range m.rand.IntN(60) {
		m.step()
	}
	return m
}

func emptyModel(seed, stream uint64) *model {
	return &model{first: 1, rand: rand.New(rand.NewPCG(seed, stream)), dropped: make(map[uint64]bool),
		lost: make(map[uint64]bool), segments: make(map[string][]entry.Entry)}
}

// pass lets the world go on for a while, often not at all.
func (m *model) pass() {
	if m.rand.IntN(3) > 0 {
		return
	}
	for range m.rand.IntN(8) {
		m.step()
	}
}

func (m *model) step() {
	if m.calm {
		return
	}
	switch m.rand.IntN(10) {
	case 0, 1, 2:
		m.arrive()
	case 3:
		m.send(m.last)
	case 4:
		m.takeIn()
	case 5:
		m.commit()
		if m.rand.IntN(2) == 0 {
			m.commitOthers()
		}
		if m.rand.IntN(2) == 0 {
			m.merge()
		}
	case 6:
		m.trim()
		m.collect()
	case 7:
		m.drop()
	case 8:
		if m.rand.IntN(4) == 0 {
			m.takeover()
		}
	case 9:
		if m.stale = nil; m.rand.IntN(4) == 0 {
			was := m.owner
			m.stale = &was
		}
		if m.mute = 0; m.rand.IntN(10) == 0 {
			m.mute = m.rand.IntN(10)
		}
	}
}

func (m *model) note(format string, args ...any) {
	m.trace = append(m.trace, fmt.Sprintf(format, args...))
}

func (m *model) arrive() {
	m.last++
	if m.rand.IntN(2) == 0 && len(m.log) < m.limit {
		at := timeOf(m.last)
		if m.skew > 0 {
			at = at.Add(-time.Duration(m.rand.IntN(m.skew)) * time.Second)
		}
		m.log = append(m.log, entry.Entry{Log: theLog, Seq: m.last, Time: at})
	}
	m.note("last=%d", m.last)
}

func timeOf(seq uint64) time.Time { return time.Unix(1_700_000_000+int64(seq), 0).UTC() }

// send sends the owner some of what the stream has up to a sequence.
func (m *model) send(upTo uint64) {
	from := m.sent
	m.sent += m.rand.Uint64N(upTo - m.sent + 1)
	for _, e := range m.log {
		if from < e.Seq && e.Seq <= m.sent && !m.dropped[e.Seq] {
			m.flying = append(m.flying, e)
		}
	}
	m.note("sent=%d", m.sent)
}

// takeIn has the owner take in some of what it was sent, but for what is archived.
func (m *model) takeIn() {
	to := m.owner.applied + m.rand.Uint64N(m.sent-m.owner.applied+1)
	buffered := slices.Clone(m.owner.buffered)
	for len(m.flying) > 0 && m.flying[0].Seq <= to {
		if !m.archived(m.flying[0].Seq) {
			buffered = append(buffered, m.flying[0])
		}
		m.flying = m.flying[1:]
	}
	m.owner.applied, m.owner.buffered = to, buffered
	m.note("applied=%d", to)
}

func (m *model) archived(seq uint64) bool { return seq <= m.owner.archived }

func (m *model) commit() {
	n := len(m.owner.buffered)
	if n == 0 {
		return
	}
	n = 1 + m.rand.IntN(n)
	e := extent.Extent{Log: theLog}
	for _, entry := range m.owner.buffered[:n] {
		e.Add(entry.Seq, entry.Time, 1)
	}
	m.put(m.owner.buffered[:n:n], e)
	m.owner.archived, m.owner.buffered = e.Last, m.owner.buffered[n:]
	m.note("record %d commits %d..%d", m.record, e.First, e.Last)
}

// commitOthers commits a segment that can have entries of the log, and has none.
func (m *model) commitOthers() {
	if m.owner.applied == 0 {
		return
	}
	seq := 1 + m.rand.Uint64N(m.owner.applied)
	e := extent.Extent{First: seq, Last: seq, Count: 1, MinTime: timeOf(seq).UnixNano(), MaxTime: timeOf(seq).UnixNano()}
	before, after := e, e
	before.Log, after.Log = "a", "z"
	m.put(nil, before, after)
}

func (m *model) put(entries []entry.Entry, extents ...extent.Extent) {
	m.record++
	object := extent.Segment{Key: fmt.Sprint(m.record), Size: 1}
	m.mu.Lock()
	m.segments[object.Key] = entries
	m.mu.Unlock()
	m.must(m.owner.tree.Commit(m.record, []extent.Summary{extent.Summarize(object, extents)}))
}

func (m *model) must(next tree.Tree, err error) {
	if err != nil {
		panic(err)
	}
	m.owner.tree = next
}

// merge merges what the tree says, or what is left of a tree that rests, into one segment, or two that share the log.
func (m *model) merge() {
	plans := m.owner.tree.Plan(tree.Limits{Fresh: 4, Runs: []int{2}, Inputs: 100, Bytes: 100}, m.rand.IntN(2) == 0,
		func(uint8) bool { return false })
	if len(plans) == 0 {
		return
	}
	m.record++
	inputs := tree.Inputs(plans[0])
	var all []entry.Entry
	sum := plans[0][0].Segments[0]
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, run := range plans[0] {
		for _, s := range run.Segments {
			all = append(all, m.segments[s.Object.Key]...)
			sum.First, sum.Last = min(sum.First, s.First), max(sum.Last, s.Last)
			sum.MinSeq, sum.MaxSeq = min(sum.MinSeq, s.MinSeq), max(sum.MaxSeq, s.MaxSeq)
			sum.MinTime, sum.MaxTime = min(sum.MinTime, s.MinTime), max(sum.MaxTime, s.MaxTime)
		}
	}
	parts := [][]entry.Entry{all}
	if n := m.rand.IntN(len(all) + 1); n > 0 && n < len(all) {
		parts = [][]entry.Entry{all[:n], all[n:]}
	}
	var outputs []extent.Summary
	for i, part := range parts {
		out := sum
		out.Object = extent.Segment{Key: fmt.Sprintf("%d-%d", m.record, i), Size: 1}
		if len(parts) == 2 {
			out.First, out.Last = theLog, theLog
		}
		m.segments[out.Object.Key] = part
		outputs = append(outputs, out)
	}
	if len(parts) == 2 {
		outputs[0].First, outputs[1].Last = sum.First, sum.Last
	}
	next, _, err := m.owner.tree.Replace(tree.Replacement{Inputs: inputs, Outputs: outputs})
	m.must(next, err)
	m.waste = append(m.waste, inputs...)
	m.note("record %d merges %v into %d", m.record, inputs, len(parts))
}

// collect deletes a segment that a merge has replaced.
func (m *model) collect() {
	if len(m.waste) == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.segments, m.waste[0])
	m.note("deleted %s", m.waste[0])
	m.waste = m.waste[1:]
}

// trim removes a beginning of what is committed from the stream; entries of other logs count as committed.
func (m *model) trim() {
	floor := m.owner.applied
	if len(m.owner.buffered) > 0 {
		floor = m.owner.buffered[0].Seq - 1
	}
	m.dropUpTo(m.rand.Uint64N(floor + 1))
}

// drop removes anything from the stream: one entry, as a delete or a limit for each subject, or a beginning, as a
// purge.
func (m *model) drop() {
	switch {
	case m.last == 0:
	case m.rand.IntN(8) == 0:
		m.dropUpTo(m.rand.Uint64N(m.last + 1))
	default:
		seq := 1 + m.rand.Uint64N(m.last)
		m.dropOne(seq)
		m.note("dropped %d", seq)
	}
}

func (m *model) dropUpTo(seq uint64) {
	for ; m.first <= seq; m.first++ {
		m.dropOne(m.first)
	}
	m.note("first=%d", m.first)
}

func (m *model) dropOne(seq uint64) {
	if m.dropped[seq] = true; seq > m.sent {
		m.lost[seq] = true
	}
}

// takeover makes another node the owner, whose disk lacks the end of what this one has taken in, or everything. It
// knows all commits. What only this one had is lost.
func (m *model) takeover() {
	applied := m.rand.Uint64N(m.owner.applied + 1)
	if len(m.owner.buffered) > 0 && m.rand.IntN(2) == 0 {
		applied = min(applied, m.owner.buffered[0].Seq-1)
	}
	for _, e := range append(slices.Clone(m.owner.buffered), m.flying...) {
		if e.Seq > applied && m.dropped[e.Seq] && !m.archived(e.Seq) {
			m.lost[e.Seq] = true
		}
	}
	if was := m.owner; m.rand.IntN(2) == 0 {
		m.stale = &was
	}
	m.owner.buffered = slices.DeleteFunc(slices.Clone(m.owner.buffered), func(e entry.Entry) bool {
		return e.Seq > applied
	})
	m.owner.applied, m.sent, m.flying = applied, applied, nil
	m.note("takeover at %d", applied)
}

// asked returns the owner who answers, nil when nobody does.
func (m *model) asked() *modelOwner {
	switch {
	case m.mute > 0:
		m.mute--
		return nil
	case m.stale != nil && m.rand.IntN(2) == 0:
		return m.stale
	}
	return &m.owner
}

func (m *model) Held(_ context.Context, log string, at Place) (held Held, err error) {
	m.pass()
	defer m.pass()
	o := m.asked()
	for ; o == nil; o = m.asked() {
		m.pass()
	}
	held.Applied = o.applied
	room := 1 + m.rand.IntN(3)
	for p := range o.tree.ForLog(log, at.After, at.Since) {
		if n := len(held.Pieces); n >= room && held.Pieces[n-1].Newest < p.Newest {
			held.More = true
			return held, nil
		}
		held.Pieces = append(held.Pieces, p)
	}
	buffered := slices.DeleteFunc(slices.Clone(o.buffered), func(e entry.Entry) bool { return e.Seq <= at.After })
	n := min(1+m.rand.IntN(5), len(buffered))
	held.Entries, held.More = buffered[:n], n < len(buffered)
	return held, nil
}

var errNobody = errors.New("no owner answers")

func (m *model) Complete(_ context.Context, log string, at Place, upTo uint64, seqs []uint64) (bool, uint64, error) {
	m.pass()
	defer m.pass()
	o := m.asked()
	if o == nil {
		return false, 0, errNobody
	}
	var has []uint64
	for _, e := range o.buffered {
		if at.After < e.Seq && e.Seq <= upTo {
			has = append(has, e.Seq)
		}
	}
	for p := range o.tree.ForLog(log, at.After, at.Since) {
		if p.Segment.MinSeq <= upTo {
			return false, o.applied, nil
		}
	}
	return o.applied >= upTo && slices.Equal(has, seqs), o.applied, nil
}

func (m *model) Open(_ context.Context, s extent.Segment) (Segment, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	entries, ok := m.segments[s.Key]
	if !ok {
		return nil, fmt.Errorf("%w: %s", bucket.ErrNotFound, s.Key)
	}
	return modelSegment{m, entries}, nil
}

type modelSegment struct {
	*model
	entries []entry.Entry
}

func (s modelSegment) Scan(_ context.Context, _ string, first, last uint64, fn func(entry.Entry) error) error {
	for _, e := range s.entries {
		if e.Seq < first || e.Seq > last {
			continue
		}
		s.pass()
		if err := fn(e); err != nil {
			return err
		}
	}
	return nil
}

func (modelSegment) Close() error { return nil }

func (m *model) Kept(_ context.Context, after, upTo uint64) (bool, error) {
	m.pass()
	defer m.pass()
	for seq := after + 1; seq <= min(upTo, m.last); seq++ {
		if m.dropped[seq] {
			return false, nil
		}
	}
	return true, nil
}

func (m *model) End(context.Context) (last uint64, err error) {
	m.pass()
	defer m.pass()
	return m.last, nil
}

// Fetch does what a consumer does: what it was sent it delivers later, though it may be dropped by then, and what is
// dropped before it was sent it passes by in silence.
func (m *model) Fetch(_ context.Context, _ string, after uint64, wait bool) ([]entry.Entry, error) {
	m.pass()
	defer m.pass()
	if m.after != after || m.rand.IntN(4) == 0 {
		m.buffered, m.after = nil, after
	}
	for range 2 {
		if len(m.buffered) == 0 {
			for _, e := range m.log {
				if !m.dropped[e.Seq] && e.Seq > m.after {
					m.buffered = append(m.buffered, e)
				}
			}
		}
		m.pass()
	}
	if len(m.buffered) == 0 && wait {
		m.step()
		return nil, nil
	}
	n := min(1+m.rand.IntN(5), len(m.buffered))
	batch := m.buffered[:n:n]
	m.buffered = m.buffered[n:]
	if n > 0 {
		m.after = batch[n-1].Seq
	}
	return batch, nil
}

func (m *model) reader() *Reader { return &Reader{Owner: m, Segments: m, Tail: m} }

func seqs(entries []entry.Entry) []uint64 {
	all := make([]uint64, 0, len(entries))
	for _, e := range entries {
		all = append(all, e.Seq)
	}
	return all
}

// judge compares what was read with what was wanted of the log: each entry once, in order, and none of the first there
// is missing, nor any before the last that was read, unless it was lost.
func (m *model) judge(got []entry.Entry, there int, wanted func(entry.Entry) bool) error {
	n := 0 // entries of got that were found in the log
	for i, e := range m.log {
		if !wanted(e) {
			continue
		}
		if n < len(got) && got[n].Seq == e.Seq && got[n].Time.Equal(e.Time) && got[n].Log == e.Log {
			n++
		} else if (i < there || n < len(got)) && !m.lost[e.Seq] {
			return fmt.Errorf("entry %d did not come", e.Seq)
		}
	}
	if n < len(got) {
		return fmt.Errorf("entry %d came, which is not wanted or was read before", got[n].Seq)
	}
	return nil
}

const seeds = 5_000

// TestSeam holds invariant 3 at the seams of archive, buffer and stream, for reads that end: every entry that was there
// when the read began, once and in order, whatever is committed and leaves the stream on the way.
func TestSeam(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // where waiting for an owner takes no time
		for seed := range uint64(seeds) {
			m := newModel(seed)
			q := Query{Log: theLog}
			if m.rand.IntN(2) == 0 {
				q.From = m.rand.Uint64N(m.last + 5)
			}
			if m.rand.IntN(2) == 0 {
				q.To = m.rand.Uint64N(m.last + 5)
			}
			if m.rand.IntN(3) == 0 {
				q.FromTime, q.ToTime = timeOf(m.rand.Uint64N(m.last+5)), timeOf(m.rand.Uint64N(m.last+5))
			}
			wanted := func(e entry.Entry) bool {
				return e.Seq >= q.From && (q.To == 0 || e.Seq <= q.To) &&
					(q.FromTime.IsZero() || !e.Time.Before(q.FromTime)) && (q.ToTime.IsZero() || !e.Time.After(q.ToTime))
			}
			there := len(m.log)
			var got []entry.Entry
			err := m.reader().Read(t.Context(), q, func(e entry.Entry) error {
				got = append(got, e)
				return nil
			})
			if err == nil {
				err = m.judge(got, there, wanted)
			}
			if err != nil {
				t.Fatalf("seed %d, from %d to %d: %v\ngot %v of %v, %d when the read began\n%v", seed, q.From, q.To, err, seqs(got),
					seqs(m.log), there, m.trace)
			}
		}
	})
}

// TestSeamFollowing is TestSeam for a read that goes on until nothing more comes.
func TestSeamFollowing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for seed := range uint64(seeds) {
			m := newModel(seed)
			q := Query{Log: theLog, Follow: true, From: m.rand.Uint64N(3)}
			if m.rand.IntN(3) == 0 {
				q.To = 1 + m.rand.Uint64N(50)
			}
			ctx, cancel := context.WithCancel(t.Context())
			tail := &impatient{model: m, cancel: cancel}
			var got []entry.Entry
			err := (&Reader{Owner: m, Segments: m, Tail: tail}).Read(ctx, q, func(e entry.Entry) error {
				got = append(got, e)
				return nil
			})
			cancel()
			if errors.Is(err, context.Canceled) || err == nil && q.To > 0 {
				err = m.judge(got, len(m.log), func(e entry.Entry) bool { return e.Seq >= q.From && (q.To == 0 || e.Seq <= q.To) })
			} else {
				err = fmt.Errorf("the read ended with %w", err)
			}
			if err != nil {
				t.Fatalf("seed %d, from %d to %d: %v\ngot %v of %v\n%v", seed, q.From, q.To, err, seqs(got), seqs(m.log), m.trace)
			}
		}
	})
}

// impatient ends a followed read when all entries have come, the owner has what it was sent, and nothing has been
// fetched for a while.
type impatient struct {
	*model
	cancel context.CancelFunc
	idle   int
}

func (i *impatient) Fetch(ctx context.Context, log string, after uint64, wait bool) ([]entry.Entry, error) {
	batch, err := i.model.Fetch(ctx, log, after, wait)
	if i.idle++; len(batch) > 0 || len(i.flying) > 0 {
		i.idle = 0
	}
	if len(i.log) == i.limit && i.idle > 50 {
		i.cancel()
		return nil, ctx.Err()
	}
	return batch, err
}
