package reader

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"dormouse/internal/entry"
	"dormouse/internal/extent"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// model is a shard as a reader can meet it: a source stream, the manifest, and an owner's catalog that may trail the
// manifest. Between any two steps of a reader it goes on: entries arrive, runs of them are committed, the catalog catches
// up or an owner with an older one takes over, and the stream is trimmed, but only of what is committed.
type model struct {
	rand *rand.Rand

	log       []entry.Entry // all entries of the log that is read; the gaps are other logs'
	last      uint64        // sequence in the stream
	first     uint64        // sequence in the stream; 1 above last when it is empty
	committed int           // entries of log
	extents   []extent.Located
	applied   int // extents that the catalog knows
	limit     int // entries of log, after which no more arrive
	skew      int // seconds that an entry's time may be behind that of one before it, as after a change of the stream's leader

	buffered []entry.Entry // what the stream has sent to a consumer that has not looked yet
	after    uint64        // where that consumer is
	trace    []string
}

const theLog = "acme.web"

func newModel(seed uint64) *model {
	m := &model{rand: rand.New(rand.NewPCG(seed, 1)), first: 1}
	m.limit = 1 + m.rand.IntN(40)
	for range m.rand.IntN(60) {
		m.step()
	}
	return m
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
	switch m.rand.IntN(6) {
	case 0, 1:
		m.arrive()
	case 2:
		m.commit()
	case 3:
		m.applied += m.rand.IntN(len(m.extents) - m.applied + 1)
	case 4:
		m.trim()
	case 5:
		if m.rand.IntN(10) == 0 {
			m.applied = m.rand.IntN(m.applied + 1) // another owner, whose disk is older
		}
	}
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
	m.trace = append(m.trace, fmt.Sprintf("last=%d", m.last))
}

func timeOf(seq uint64) time.Time { return time.Unix(1_700_000_000+int64(seq), 0).UTC() }

func (m *model) commit() {
	n := len(m.log) - m.committed
	if n == 0 {
		return
	}
	var e extent.Extent
	for _, entry := range m.log[m.committed : m.committed+1+m.rand.IntN(n)] {
		e.Log = theLog
		e.Add(entry.Seq, entry.Time, 1)
		m.committed++
	}
	key := fmt.Sprint(len(m.extents) / 2) // some neighbours share a segment
	m.extents = append(m.extents, extent.Located{Extent: e, Segment: extent.Segment{Key: key}})
	m.trace = append(m.trace, fmt.Sprintf("commit=%d..%d", e.First, e.Last))
}

// trim removes what is committed from the stream; entries of other logs count as committed.
func (m *model) trim() {
	floor := m.last
	if m.committed < len(m.log) {
		floor = m.log[m.committed].Seq - 1
	}
	if floor >= m.first {
		m.first += m.rand.Uint64N(floor - m.first + 2)
		m.trace = append(m.trace, fmt.Sprintf("first=%d", m.first))
	}
}

func (m *model) Extents(_ context.Context, _ string, after uint64, fresh bool) (page []extent.Located, more bool, err error) {
	m.pass()
	defer m.pass()
	if fresh {
		head := len(m.extents)
		m.pass()
		m.applied = max(m.applied, head) // the owner answers when it has caught up
	}
	for _, l := range m.extents[:m.applied] {
		if l.Extent.Last > after {
			page = append(page, l)
		}
	}
	if n := 1 + m.rand.IntN(3); len(page) > n {
		return page[:n], true, nil
	}
	return page, false, nil
}

func (m *model) Open(_ context.Context, s extent.Segment) (Segment, error) {
	m.pass()
	return modelSegment{m, s.Key}, nil
}

type modelSegment struct {
	*model
	key string
}

func (s modelSegment) Scan(_ context.Context, log string, first, last uint64, fn func(entry.Entry) error) error {
	for _, l := range s.extents {
		if l.Segment.Key != s.key {
			continue
		}
		for _, e := range s.log {
			if inExtent := e.Seq >= l.Extent.First && e.Seq <= l.Extent.Last; !inExtent || e.Seq < first || e.Seq > last {
				continue
			}
			s.pass()
			if err := fn(e); err != nil {
				return err
			}
		}
	}
	return nil
}

func (modelSegment) Close() error { return nil }

func (m *model) First(context.Context) (first uint64, err error) {
	m.pass()
	defer m.pass()
	return m.first, nil
}

func (m *model) End(context.Context) (last uint64, err error) {
	m.pass()
	defer m.pass()
	return m.last, nil
}

// Fetch does what a consumer does: what it was sent it delivers later, though it may be trimmed by then, and what is
// trimmed before it was sent it passes by in silence.
func (m *model) Fetch(_ context.Context, _ string, after uint64, wait bool) ([]entry.Entry, error) {
	m.pass()
	defer m.pass()
	if m.after != after || m.rand.IntN(4) == 0 {
		m.buffered, m.after = nil, after
	}
	for range 2 {
		if len(m.buffered) == 0 {
			for _, e := range m.log {
				if e.Seq >= m.first && e.Seq > m.after {
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

func (m *model) reader() *Reader { return &Reader{Catalog: m, Segments: m, Tail: m} }

func seqs(entries []entry.Entry) []uint64 {
	all := make([]uint64, 0, len(entries))
	for _, e := range entries {
		all = append(all, e.Seq)
	}
	return all
}

const seeds = 5_000

// TestSeam holds invariant 3 at the seam of archive and stream, for reads that end: every entry that was there when the
// read began, once and in order, whatever is committed and trimmed on the way.
func TestSeam(t *testing.T) {
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
		there := len(m.log)
		got := 0 // index in m.log of the entry after the newest that was emitted
		wanted := func(e entry.Entry) bool {
			return e.Seq >= q.From && (q.To == 0 || e.Seq <= q.To) &&
				(q.FromTime.IsZero() || !e.Time.Before(q.FromTime)) && (q.ToTime.IsZero() || !e.Time.After(q.ToTime))
		}
		next := func() (e entry.Entry, ok bool) {
			for ; got < len(m.log); got++ {
				if wanted(m.log[got]) {
					return m.log[got], true
				}
			}
			return e, false
		}
		err := m.reader().Read(t.Context(), q, func(e entry.Entry) error {
			want, ok := next()
			if !ok || e.Seq != want.Seq || e.Log != want.Log || !e.Time.Equal(want.Time) {
				return fmt.Errorf("entry %d came, want %d", e.Seq, want.Seq)
			}
			got++
			return nil
		})
		if rest, ok := next(); err == nil && ok && got < there {
			err = fmt.Errorf("the read ended before %d", rest.Seq)
		}
		if err != nil {
			t.Fatalf("seed %d, from %d to %d: %v\nentries %v, %d when the read began\n%v", seed, q.From, q.To, err, seqs(m.log), there, m.trace)
		}
	}
}

// TestSeamFollowing is TestSeam for a read that goes on until nothing more comes.
func TestSeamFollowing(t *testing.T) {
	for seed := range uint64(seeds) {
		m := newModel(seed)
		q := Query{Log: theLog, Follow: true, From: m.rand.Uint64N(3)}
		if m.rand.IntN(3) == 0 {
			q.To = 1 + m.rand.Uint64N(50)
		}
		ctx, cancel := context.WithCancel(t.Context())
		tail := &impatient{model: m, cancel: cancel}
		var got []uint64
		err := (&Reader{Catalog: m, Segments: m, Tail: tail}).Read(ctx, q, func(e entry.Entry) error {
			got = append(got, e.Seq)
			return nil
		})
		cancel()
		want := slices.DeleteFunc(seqs(m.log), func(seq uint64) bool { return seq < q.From || q.To > 0 && seq > q.To })
		if q.To == 0 && !errors.Is(err, context.Canceled) || q.To > 0 && err != nil && !errors.Is(err, context.Canceled) || !slices.Equal(got, want) {
			t.Fatalf("seed %d, from %d to %d: %v\ngot  %v\nwant %v\n%v", seed, q.From, q.To, err, got, want, m.trace)
		}
	}
}

// impatient ends a followed read when all entries have come and nothing has been fetched for a while.
type impatient struct {
	*model
	cancel context.CancelFunc
	idle   int
}

func (i *impatient) Fetch(ctx context.Context, log string, after uint64, wait bool) ([]entry.Entry, error) {
	batch, err := i.model.Fetch(ctx, log, after, wait)
	if i.idle++; len(batch) > 0 {
		i.idle = 0
	}
	if len(i.log) == i.limit && i.idle > 50 {
		i.cancel()
		return nil, ctx.Err()
	}
	return batch, err
}
