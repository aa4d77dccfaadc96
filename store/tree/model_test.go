package tree

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"dormouse/internal/extent"
)

// model is a shard as a map of logs, and what fake segments hold.
type model struct {
	rand   *rand.Rand
	tree   Tree
	record uint64
	seq    uint64
	logs   map[string][]uint64            // committed, in order
	holds  map[string]map[string][]uint64 // key -> log -> sequences
	cut    map[uint64]bool                // sequences that a merge has left out
	under  []plan
	trace  []string
}

// plan is a merge under way.
type plan struct {
	runs []Run
}

func newModel(seed uint64) *model {
	return &model{rand: rand.New(rand.NewPCG(seed, 0)), logs: make(map[string][]uint64),
		holds: make(map[string]map[string][]uint64), cut: make(map[uint64]bool)}
}

var logs = []string{"a.a", "a.b", "a.bb", "a.c", "b.a"}

var small = Limits{Fresh: 3, Runs: []int{2, 3}, Inputs: 12, Bytes: 30}

func (m *model) note(format string, args ...any) {
	m.trace = append(m.trace, fmt.Sprintf(format, args...))
}

// segment makes a segment that holds these sequences of logs, of which none is empty.
func (m *model) segment(key string, of map[string][]uint64, refused ...string) extent.Summary {
	m.holds[key] = of
	var extents []extent.Extent
	for _, log := range logs {
		seqs := of[log]
		if len(seqs) == 0 || slices.Contains(refused, log) {
			continue
		}
		extents = append(extents, extent.Extent{Log: log, First: seqs[0], Last: seqs[len(seqs)-1], Count: uint64(len(seqs)),
			MinTime: int64(seqs[0]), MaxTime: int64(seqs[len(seqs)-1])})
	}
	s := extent.Summarize(extent.Segment{Key: key, Size: 1 + m.rand.Uint64N(5)}, extents)
	s.Refused = refused
	return s
}

// commit commits up to three segments that share no log.
func (m *model) commit() error {
	m.record++
	var segments []extent.Summary
	left := slices.Clone(logs)
	m.rand.Shuffle(len(left), func(i, j int) { left[i], left[j] = left[j], left[i] })
	for n := range 1 + m.rand.IntN(3) {
		of := make(map[string][]uint64)
		for range 1 + m.rand.IntN(2) {
			if len(left) == 0 {
				break
			}
			log := left[0]
			left = left[1:]
			for range 1 + m.rand.IntN(3) {
				m.seq += 1 + m.rand.Uint64N(3)
				of[log] = append(of[log], m.seq)
			}
		}
		if len(of) == 0 {
			break
		}
		var refused []string
		if len(left) > 0 && m.rand.IntN(4) == 0 { // the object has a log that is not part of the archive
			refused = []string{left[0]}
			of[left[0]] = []uint64{m.seq + 1}
		}
		for log, seqs := range of {
			if !slices.Contains(refused, log) {
				m.logs[log] = append(m.logs[log], seqs...)
			}
		}
		segments = append(segments, m.segment(fmt.Sprintf("%d-%d", m.record, n), of, refused...))
	}
	m.note("record %d commits %d", m.record, len(segments))
	before := m.tree
	if err := m.become(before.Commit(m.record, segments)); err != nil {
		return err
	}
	// Another tree that is made of the same one is of no concern to this one.
	_, err := before.Commit(m.record, []extent.Summary{m.segment("none", map[string][]uint64{logs[0]: {1}})})
	return err
}

// become takes the tree that m.tree became, and holds that its runs are in order and add up.
func (m *model) become(next Tree, err error) error {
	if err != nil {
		return err
	}
	m.tree = next
	var count, bytes, highest uint64
	var fresh int
	for i, r := range next.Runs() {
		if i > 0 && (r.Level > next.Runs()[i-1].Level || r.Newest < next.Runs()[i-1].Newest) {
			return fmt.Errorf("run %d is of a higher level, or older, than the one before it", i)
		}
		if r.Level == 0 {
			fresh++
		}
		for _, s := range r.Segments {
			count, bytes, highest = count+1, bytes+s.Object.Size, max(highest, s.MaxSeq)
			if !next.Has(s.Object.Key) || next.Has(s.Object.Key+"x") {
				return fmt.Errorf("segment %s is not known to be live, or one that is none is", s.Object.Key)
			}
		}
	}
	if err := m.uncut(); err != nil {
		return err
	}
	if n, size := next.Segments(); n != count || size != bytes || next.Highest() != highest || next.Fresh() != fresh {
		return fmt.Errorf("%d segments with %d bytes up to %d, %d fresh, want %d, %d, %d and %d", n, size, next.Highest(),
			next.Fresh(), count, bytes, highest, fresh)
	}
	return next.Validate()
}

// begin plans merges, of levels of which none is under way, or, as when one takes too long, of any.
func (m *model) begin() {
	late := m.rand.IntN(6) == 0
	busy := func(level uint8) bool {
		return !late && slices.ContainsFunc(m.under, func(p plan) bool { return p.runs[0].Level == level })
	}
	for _, runs := range m.tree.Plan(small, m.rand.IntN(4) == 0, busy) {
		m.under = append(m.under, plan{runs})
		m.note("plan of level %d: %v", runs[0].Level, Inputs(runs))
	}
}

// flat names runs and their bounds.
func flat(runs []Run) string {
	text := "|"
	for _, r := range runs {
		text += strings.Join(Inputs([]Run{r}), ",") + "|"
	}
	return text
}

// end ends one that is under way: it is done, or it comes too late, or it was given up.
func (m *model) end() error {
	if len(m.under) == 0 {
		return nil
	}
	i := m.rand.IntN(len(m.under))
	p := m.under[i]
	m.under = slices.Delete(m.under, i, i+1)
	switch {
	case m.rand.IntN(5) == 0:
		m.note("given up: %v", Inputs(p.runs))
		return nil
	case !strings.Contains(flat(m.tree.Runs()), flat(p.runs)):
		m.note("too late: %v", Inputs(p.runs))
		m.record++
		r := Replacement{Inputs: Inputs(p.runs), Outputs: m.merged(p.runs)}
		if next, _, err := m.tree.Replace(r); !errors.Is(err, ErrNotLive) || !reflect.DeepEqual(next, m.tree) {
			return fmt.Errorf("merging %v, which are live no more: %w", r.Inputs, err)
		}
		return nil
	}
	return m.replace(p.runs)
}

// replace merges runs, which are neighbours; now and then all that they have is cut.
func (m *model) replace(runs []Run) error {
	m.record++
	r := Replacement{Inputs: Inputs(runs)}
	if m.rand.IntN(8) > 0 {
		r.Outputs = m.merged(runs)
	} else {
		m.forget(runs)
	}
	next, replaced, err := m.tree.Replace(r)
	if err != nil {
		return fmt.Errorf("merging %v: %w", r.Inputs, err)
	}
	m.note("record %d merges %v into %d", m.record, r.Inputs, len(r.Outputs))
	var keys []string
	for _, s := range replaced {
		keys = append(keys, s.Object.Key)
	}
	if !slices.Equal(keys, r.Inputs) {
		return fmt.Errorf("%v are replaced, want %v", keys, r.Inputs)
	}
	if _, _, err := next.Replace(r); !errors.Is(err, ErrNotLive) {
		return fmt.Errorf("the same merge again: %w", err)
	}
	return m.become(next, nil)
}

// forget cuts all that runs have.
func (m *model) forget(runs []Run) {
	for _, r := range runs {
		for _, s := range r.Segments {
			for log, seqs := range m.holds[s.Object.Key] {
				if slices.Contains(s.Refused, log) {
					continue
				}
				for _, seq := range seqs {
					m.cut[seq] = true
				}
			}
		}
	}
	for log := range m.logs {
		m.logs[log] = m.left(m.logs[log], 0)
	}
}

// left returns the sequences above one that are not cut.
func (m *model) left(seqs []uint64, above uint64) []uint64 {
	return slices.DeleteFunc(slices.Clone(seqs), func(seq uint64) bool { return m.cut[seq] || seq <= above })
}

// any merges neighbours that nobody has planned, also of several levels. They become a run of a level above theirs,
// which an older run must have at least.
func (m *model) any() error {
	runs := m.tree.Runs()
	if len(runs) < 2 {
		return nil
	}
	from := m.rand.IntN(len(runs) - 1)
	to := from + 2 + m.rand.IntN(min(3, len(runs)-from-1))
	level := slices.MaxFunc(runs[from:to], func(a, b Run) int { return int(a.Level) - int(b.Level) }).Level
	if from == 0 || runs[from-1].Level > level {
		return m.replace(runs[from:to])
	}
	next, _, err := m.tree.Replace(Replacement{Inputs: Inputs(runs[from:to])})
	if !errors.Is(err, ErrInvalid) || !reflect.DeepEqual(next, m.tree) {
		return fmt.Errorf("merging runs %d to %d, behind one of no higher level: %w", from, to, err)
	}
	return nil
}

// delete cuts a log or some, up to anything that there is.
func (m *model) delete() error {
	if m.seq == 0 {
		return nil
	}
	m.record++
	which := append(slices.Clone(logs), "a.>", ">")
	c := extent.Cut{Logs: which[m.rand.IntN(len(which))], UpTo: 1 + m.rand.Uint64N(m.seq), ID: fmt.Sprint(m.record)}
	if m.rand.IntN(3) == 0 {
		c.Before = 1 + int64(m.rand.Uint64N(m.seq+1))
	}
	m.note("record %d cuts %s up to %d before %d", m.record, c.Logs, c.UpTo, c.Before)
	for log, seqs := range m.logs {
		for _, seq := range seqs {
			if (extent.Cuts{c}).Have(log, seq, int64(seq)) {
				m.cut[seq] = true
			}
		}
	}
	for log := range m.logs {
		m.logs[log] = m.left(m.logs[log], 0)
	}
	return m.become(m.tree.Cut(m.record, c))
}

// rewrite writes a segment anew that may have something of a cut, or drops it unread.
func (m *model) rewrite() error {
	for u := range m.tree.Uncut() {
		if m.rand.IntN(2) == 0 {
			continue
		}
		m.record++
		outputs := m.merged([]Run{{Segments: []extent.Summary{u.Segment}}})
		if u.Whole && len(outputs) > 0 {
			return fmt.Errorf("all of %s is to be cut, and has %+v left", u.Segment.Object.Key, outputs)
		}
		if len(outputs) > 1 {
			return nil
		}
		m.note("record %d writes %s anew", m.record, u.Segment.Object.Key)
		next, replaced, err := m.tree.Replace(Replacement{Inputs: []string{u.Segment.Object.Key}, Outputs: outputs})
		if err == nil && (len(replaced) != 1 || !reflect.DeepEqual(replaced[0], u.Segment)) {
			err = fmt.Errorf("%+v is replaced", replaced)
		}
		return m.become(next, err)
	}
	return nil
}

// uncut holds that an object has nothing of a cut, unless it is known that it may, and that what is settled is gone.
func (m *model) uncut() error {
	for _, c := range m.tree.Cuts() {
		var left uint64
		for _, r := range m.tree.Runs() {
			for _, s := range r.Segments {
				if r.mayHave(s, c) {
					left++
					continue
				}
				for log, seqs := range m.holds[s.Object.Key] {
					for _, seq := range seqs {
						if (extent.Cuts{c}).Have(log, seq, int64(seq)) {
							return fmt.Errorf("%s has %d of %s, which record %d has cut", s.Object.Key, seq, log, c.Record)
						}
					}
				}
			}
		}
		if n, _ := m.tree.Left(c); n != left {
			return fmt.Errorf("%d segments are left of the cut of record %d, want %d", n, c.Record, left)
		}
		settled := !slices.ContainsFunc(m.tree.Settle(c.UpTo, time.Unix(0, c.Made).Add(cutLife+1)).Cuts(),
			func(one extent.Cut) bool { return one.Record == c.Record })
		if settled != (left == 0) {
			return fmt.Errorf("the cut of record %d is settled: %v, with %d segments left", c.Record, settled, left)
		}
	}
	return nil
}

// merged makes the outputs of a merge, which are cut anywhere, also within a log.
func (m *model) merged(runs []Run) (outputs []extent.Summary) {
	type entry struct {
		log string
		seq uint64
	}
	var all []entry
	for _, log := range logs {
		for _, run := range runs {
			for _, s := range run.Segments {
				if slices.Contains(s.Refused, log) {
					continue
				}
				for _, seq := range m.holds[s.Object.Key][log] {
					if !m.tree.Cuts().Have(log, seq, int64(seq)) {
						all = append(all, entry{log, seq})
					}
				}
			}
		}
	}
	for n := 0; len(all) > 0; n++ {
		of := make(map[string][]uint64)
		for range min(1+m.rand.IntN(8), len(all)) {
			of[all[0].log] = append(of[all[0].log], all[0].seq)
			all = all[1:]
		}
		s := m.segment(fmt.Sprintf("m%d-%d", m.record, n), of)
		s.Cut = m.tree.NewestCut().Record
		outputs = append(outputs, s)
	}
	return outputs
}

// wrong tries merges that must be refused.
func (m *model) wrong() error {
	runs := m.tree.Runs()
	if len(runs) < 3 {
		return nil
	}
	i := m.rand.IntN(len(runs) - 2)
	for name, inputs := range map[string][]string{
		"with a gap":             append(Inputs(runs[i:i+1]), Inputs(runs[i+2:i+3])...),
		"backwards":              append(Inputs(runs[i+1:i+2]), Inputs(runs[i:i+1])...),
		"one twice":              append(Inputs(runs[i:i+1]), Inputs(runs[i:i+1])...),
		"one that is not":        append(Inputs(runs[i:i+1]), "none"),
		"nothing":                nil,
		"the beginning of a run": Inputs(runs[i : i+2])[:len(runs[i].Segments)+1],
		"a part of a run":        append(Inputs(runs[i : i+2])[:len(Inputs(runs[i:i+2]))-1], "none"),
	} {
		if name == "the beginning of a run" && len(runs[i+1].Segments) == 1 {
			continue
		}
		if _, _, err := m.tree.Replace(Replacement{Inputs: inputs}); !errors.Is(err, ErrNotLive) {
			return fmt.Errorf("a merge %s of %v: %w", name, inputs, err)
		}
	}
	return nil
}

// read reads a log as a reader does that is told of some segments at a time, while the tree goes on.
func (m *model) read(log string, from uint64, step func() error) (got []uint64, err error) {
	after, since := from, uint64(0)
	for {
		var pieces []extent.Piece
		for p := range m.tree.ForLog(log, after, since) {
			if n := len(pieces); n > 0 && pieces[n-1].Newest < p.Newest && m.rand.IntN(3) == 0 {
				break
			}
			pieces = append(pieces, p)
		}
		if len(pieces) == 0 {
			return got, nil
		}
		for _, p := range pieces {
			for _, seq := range m.holds[p.Segment.Object.Key][log] {
				if seq > after {
					got, after = append(got, seq), seq
				}
			}
			since = p.Newest
		}
		if err := step(); err != nil {
			return nil, err
		}
	}
}

// check compares what the segments of each log have, one behind the other, with the map of logs.
func (m *model) check() error {
	after, since := m.rand.Uint64N(m.seq+1), m.rand.Uint64N(m.record+1)
	for _, log := range logs {
		var got []uint64
		for p := range m.tree.ForLog(log, 0, 0) {
			got = append(got, m.holds[p.Segment.Object.Key][log]...)
		}
		if got = m.left(got, 0); !slices.Equal(got, m.logs[log]) {
			return fmt.Errorf("%s: the segments have %v, committed %v", log, got, m.logs[log])
		}
		var want, pieces []extent.Piece
		for _, r := range m.tree.Runs() {
			for _, s := range r.Segments {
				if r.Newest > since && s.MaxSeq > after && s.First <= log && log <= s.Last && !slices.Contains(s.Refused, log) {
					want = append(want, extent.Piece{Segment: s, Newest: r.Newest, Level: r.Level})
				}
			}
		}
		for p := range m.tree.ForLog(log, after, since) {
			pieces = append(pieces, p)
		}
		if !reflect.DeepEqual(pieces, want) {
			return fmt.Errorf("%s above %d since record %d: %+v, want %+v", log, after, since, pieces, want)
		}
	}
	return nil
}

// reads reads a log while the tree goes on: all that was there when it began, and nothing but what comes behind that.
func (m *model) reads() error {
	log, from := logs[m.rand.IntN(len(logs))], m.rand.Uint64N(m.seq+1)
	there := m.left(m.logs[log], from)
	got, err := m.read(log, from, m.step)
	there, left, all := m.left(there, from), m.left(got, from), m.left(m.logs[log], from)
	if err != nil || !slices.IsSorted(got) || len(left) < len(there) || len(left) > len(all) ||
		!slices.Equal(left, all[:len(left)]) {
		return fmt.Errorf("read %v of %s above %d, there were %v and are %v, %w", got, log, from, there, all, err)
	}
	return nil
}

func (m *model) step() error {
	switch m.rand.IntN(12) {
	case 7:
		return m.delete()
	case 8, 9:
		return m.rewrite()
	case 0, 1, 2, 3:
		return m.commit()
	case 4, 5:
		m.begin()
		return nil
	case 6:
		return m.any()
	}
	return m.end()
}

// TestModel compares trees with maps of logs over random commits, merges, several of them under way, and such as must
// be refused. A tree that somebody holds never changes, and its bytes make the same one.
func TestModel(t *testing.T) {
	seeds := uint64(1200)
	if testing.Short() {
		seeds = 200
	}
	for seed := range seeds {
		m := newModel(seed)
		fail := func(err error) {
			t.Helper()
			t.Fatalf("seed %d: %v\n%v\n%+v", seed, err, m.trace, m.tree)
		}
		var held []Tree
		var asTheyWere []string
		for range 40 {
			if m.rand.IntN(8) == 0 {
				held, asTheyWere = append(held, m.tree), append(asTheyWere, fmt.Sprint(m.tree))
			}
			if err := errors.Join(m.step(), m.wrong(), m.check()); err != nil {
				fail(err)
			}
		}
		if err := errors.Join(m.reads(), m.check()); err != nil {
			fail(err)
		}
		for i, one := range held {
			if fmt.Sprint(one) != asTheyWere[i] {
				fail(errors.New("a tree that was held has changed"))
			}
		}
		data, err := m.tree.Encode()
		if err != nil {
			fail(err)
		}
		if again, err := Decode(data); err != nil || fmt.Sprint(again) != fmt.Sprint(m.tree) {
			fail(fmt.Errorf("read from its bytes: %+v, %w", again, err))
		}
	}
}
