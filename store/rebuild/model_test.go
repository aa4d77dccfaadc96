package rebuild

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"dormouse/internal/entry"
	"dormouse/internal/extent"
	"dormouse/store/alone"
	"dormouse/store/bucket"
	"dormouse/store/segment"
	"dormouse/store/tree"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a shard with its bucket, as owners and workers leave it. Entries of a log are committed in order.
type world struct {
	t         testing.TB
	rand      *rand.Rand
	bucket    *bucket.Bucket
	tree      tree.Tree
	record    uint64
	now       time.Time
	seq       uint64
	committed map[string][]entry.Entry // that are not cut
	buffered  map[string][]entry.Entry
	put       map[string][]entry.Entry // ever, committed or not
	most      int                      // nodes that are compared at a time
}

func newWorld(t testing.TB, seed uint64) *world {
	b, err := bucket.Open(t.Context(), "mem://")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return &world{t: t, rand: rand.New(rand.NewPCG(seed, 1)), bucket: b, now: time.Now().Add(-time.Hour), record: 100,
		seq: 10, committed: make(map[string][]entry.Entry), buffered: make(map[string][]entry.Entry),
		put: make(map[string][]entry.Entry)}
}

// name names an object; the clock goes on.
func (w *world) name() string {
	w.now = w.now.Add(10 * time.Millisecond)
	id := uuid.New()
	binary.BigEndian.PutUint64(id[:], uint64(w.now.UnixMilli())<<16|7<<12|0x123)
	return id.String()
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// publish buffers an entry.
func (w *world) publish(log string) {
	w.seq += 1 + w.rand.Uint64N(2)
	w.now = w.now.Add(time.Millisecond)
	e := entry.Entry{Log: log, Seq: w.seq, Time: w.now, Data: fmt.Appendf(nil, "%s %d", log, w.seq)}
	w.buffered[log] = append(w.buffered[log], e)
}

// segment puts entries, ascending, into segments of at most so many.
func (w *world) segments(entries []entry.Entry, most int) (sums []extent.Summary) {
	w.t.Helper()
	for part := range slices.Chunk(entries, most) {
		writer, err := segment.NewWriter(segment.Options{})
		w.must(err)
		for _, e := range part {
			w.must(writer.Add(entry.AppendKey(nil, e.Log, e.Seq), entry.AppendValue(nil, e.Time, nil, e.Data)))
			w.put[e.Log] = append(w.put[e.Log], e)
		}
		data, extents, err := writer.Finish()
		w.must(err)
		object := extent.Segment{Key: "0/" + w.name() + ".sst", Size: uint64(len(data))}
		w.must(w.bucket.Put(w.t.Context(), object.Key, data))
		sums = append(sums, extent.Summarize(object, extents))
	}
	return sums
}

// drain puts what some logs have buffered, and commits it, or parts of it, or nothing.
func (w *world) drain(commits, parts bool) {
	var entries, left []entry.Entry
	var refused []string
	for _, log := range slices.Sorted(maps.Keys(w.buffered)) {
		if w.rand.IntN(3) == 0 || len(w.buffered[log]) == 0 {
			continue
		}
		entries = append(entries, w.buffered[log]...)
		if parts && w.rand.IntN(3) == 0 {
			refused = append(refused, log)
			continue
		}
		left = append(left, w.buffered[log]...)
	}
	if len(entries) == 0 {
		return
	}
	sum := w.segments(entries, math.MaxInt)[0]
	if !commits || len(left) == 0 {
		return
	}
	sum = extent.Summarize(sum.Object, extentsOf(left))
	sum.Refused = refused
	w.record++
	var err error
	w.tree, err = w.tree.Commit(w.record, []extent.Summary{sum})
	w.must(err)
	for _, e := range left {
		w.committed[e.Log] = append(w.committed[e.Log], e)
		delete(w.buffered, e.Log)
	}
}

func extentsOf(entries []entry.Entry) (all []extent.Extent) {
	for _, e := range entries {
		if n := len(all); n == 0 || all[n-1].Log != e.Log {
			all = append(all, extent.Extent{Log: e.Log})
		}
		all[len(all)-1].Add(e.Seq, e.Time, entry.Size(e.Headers, e.Data))
	}
	return all
}

// merge merges neighbours of one level, as workers do, and may commit it, and delete some or all of the inputs.
func (w *world) merge() {
	runs := w.tree.Runs()
	end := len(runs)
	if end < 2 {
		return
	}
	end -= w.rand.IntN(end - 1)
	from := end - 1
	for from > 0 && runs[from-1].Level == runs[end-1].Level {
		from--
	}
	if end-from < 2 {
		return
	}
	inputs := runs[from:end]
	var entries []entry.Entry
	var live []extent.Summary
	for _, run := range inputs {
		live = append(live, run.Segments...)
		for _, s := range run.Segments {
			entries = append(entries, w.read(s, w.tree.Cuts())...)
		}
	}
	slices.SortStableFunc(entries, func(a, b entry.Entry) int { return strings.Compare(a.Log, b.Log) })
	var outputs []extent.Summary
	if len(entries) > 0 {
		outputs = w.segments(entries, 1+w.rand.IntN(len(entries)))
	}
	if len(outputs) > 1 && w.rand.IntN(4) == 0 { // the worker died on the way
		w.must(w.bucket.Delete(w.t.Context(), outputs[len(outputs)-1].Object.Key))
		return
	}
	for i := range outputs {
		outputs[i].Cut = w.tree.NewestCut().Record
	}
	if w.rand.IntN(4) == 0 {
		return
	}
	next, _, err := w.tree.Replace(tree.Replacement{Inputs: tree.Inputs(inputs), Outputs: outputs})
	if err != nil {
		return // older runs have a lower level
	}
	w.tree, w.record = next, w.record+1
	gone := len(live) * w.rand.IntN(3) / 2 // none of the inputs, half of them, or all
	for _, s := range live[:gone] {
		w.must(w.bucket.Delete(w.t.Context(), s.Object.Key))
	}
}

// read reads a segment, without what is cut or refused.
func (w *world) read(s extent.Summary, cuts extent.Cuts) (entries []entry.Entry) {
	w.t.Helper()
	object, err := w.bucket.Segment(s.Object)
	w.must(err)
	r, err := segment.Open(w.t.Context(), object)
	w.must(err)
	defer r.Close()
	tables, err := r.Contents(w.t.Context())
	w.must(err)
	for _, e := range tables {
		if !s.MayHold(e.Log) {
			continue
		}
		w.must(r.Scan(w.t.Context(), e.Log, 0, math.MaxUint64, func(e entry.Entry) error {
			if !cuts.Have(e.Log, e.Seq, e.Time.UnixNano()) {
				entries = append(entries, e)
			}
			return nil
		}))
	}
	return entries
}

// checkpoint puts the tree.
func (w *world) checkpoint() {
	data, err := w.tree.Encode()
	w.must(err)
	w.must(w.bucket.Put(w.t.Context(), "0/checkpoint/"+w.name()+".tree", data))
}

// cut deletes a log up to now, and writes a checkpoint as delete does.
func (w *world) cut(log string) {
	w.record++
	c := extent.Cut{Logs: log, UpTo: w.seq, Made: w.now.UnixNano()}
	var err error
	w.tree, err = w.tree.Cut(w.record, c)
	w.must(err)
	delete(w.committed, log)
	delete(w.buffered, log)
	w.checkpoint()
}

// some does something.
func (w *world) some() {
	log := "t." + string(rune('a'+w.rand.IntN(6)))
	switch w.rand.IntN(20) {
	case 0:
		w.drain(false, false)
	case 1:
		w.checkpoint()
	case 2:
		if w.rand.IntN(4) == 0 {
			w.cut(log)
		}
	case 3, 4, 5:
		w.merge()
	case 6, 7, 8, 9, 10, 11:
		w.drain(true, w.rand.IntN(4) == 0)
	default:
		w.publish(log)
	}
}

// rebuilt makes the tree of what the bucket has.
func (w *world) rebuilt() (*shard, Built) {
	w.t.Helper()
	found, err := alone.Survey(w.t.Context(), w.bucket)
	w.must(err)
	s := &shard{Shard: found[0], bucket: w.bucket, damaged: make(map[string]error), most: w.most}
	w.must(s.look(w.t.Context()))
	b, err := s.build(w.t.Context())
	w.must(err)
	return s, b
}

// holds holds that a tree has what was committed, each entry once and in order, and besides only what was put.
func (w *world) holds(what string, b Built) {
	w.t.Helper()
	got := make(map[string][]entry.Entry)
	for _, run := range b.Tree.Runs() {
		for _, s := range run.Segments {
			for _, e := range w.read(s, b.Tree.Cuts()) {
				if all := got[e.Log]; len(all) > 0 && all[len(all)-1].Seq >= e.Seq {
					w.t.Fatalf("%s: log %s has entry %d after %d", what, e.Log, e.Seq, all[len(all)-1].Seq)
				}
				got[e.Log] = append(got[e.Log], e)
				if e.Seq > b.Highest {
					w.t.Errorf("%s: entry %d is above the highest, %d", what, e.Seq, b.Highest)
				}
			}
		}
	}
	same := func(a entry.Entry) func(entry.Entry) bool {
		return func(b entry.Entry) bool {
			return a.Seq == b.Seq && a.Time.Equal(b.Time) && string(a.Data) == string(b.Data)
		}
	}
	for log, want := range w.committed {
		for _, e := range want {
			if !slices.ContainsFunc(got[log], same(e)) {
				w.t.Errorf("%s: entry %d of %s was committed, and there is none", what, e.Seq, log)
			}
		}
	}
	for log, have := range got {
		for _, e := range have {
			if !slices.ContainsFunc(w.put[log], same(e)) {
				w.t.Errorf("%s: nobody has put entry %d of %s", what, e.Seq, log)
			}
		}
	}
	w.uncut(what, b.Tree)
}

// uncut holds that objects which have something of a cut are known to.
func (w *world) uncut(what string, t tree.Tree) {
	w.t.Helper()
	known := make(map[string]bool)
	for u := range t.Uncut() {
		known[u.Segment.Object.Key] = true
	}
	for _, run := range t.Runs() {
		for _, s := range run.Segments {
			for _, e := range w.read(extent.Summary{Object: s.Object, Last: "\U0010ffff"}, nil) {
				if t.Cuts().Have(e.Log, e.Seq, e.Time.UnixNano()) && !known[s.Object.Key] {
					w.t.Errorf("%s: segment %s has entry %d of %s, which is cut, and nobody knows", what, s.Object.Key, e.Seq, e.Log)
				}
			}
		}
	}
}

// TestModel: whatever owners and workers had done, a rebuilt tree has all that was committed, once each and in order.
// Doing it again, with what the first one has put, gives the same, and nothing is written then.
func TestModel(t *testing.T) {
	taken, written, seeds := 0, 0, uint64(150)
	if testing.Short() {
		seeds = 30
	}
	for seed := range seeds {
		w := newWorld(t, seed)
		if seed%5 == 0 {
			w.most = 3 // the others are written anew first
		}
		for range 40 + w.rand.IntN(100) {
			w.some()
		}
		w.publish("t.a")
		w.drain(true, false)
		if n, _ := w.tree.Segments(); n == 0 {
			continue
		}
		s, b := w.rebuilt()
		w.holds(fmt.Sprintf("seed %d", seed), b)
		if p := s.problems(); len(p) > 0 {
			t.Errorf("seed %d: %v", seed, p)
		}
		taken, written = taken+b.Taken, written+b.Written
		_, again := w.rebuilt()
		w.holds(fmt.Sprintf("seed %d, again", seed), again)
		w.tree, w.record = again.Tree, again.Tree.Record()
		w.checkpoint()
		_, third := w.rebuilt()
		w.holds(fmt.Sprintf("seed %d, from its own checkpoint", seed), third)
		if third.Taken+third.Written > 0 {
			t.Errorf("seed %d: from its own checkpoint %d segments came on top", seed, third.Taken+third.Written)
		}
		if t.Failed() {
			return
		}
	}
	if t.Logf("%d segments were taken as they are, %d were written anew", taken, written); taken == 0 || written == 0 {
		t.Errorf("%d segments were taken as they are, %d written anew: one of the ways was not tried", taken, written)
	}
}
