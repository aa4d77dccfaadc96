package buffer

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/batchrepr"
	"go.uber.org/goleak"

	"dormouse/internal/entry"
	"dormouse/internal/extent"
	"dormouse/internal/wire"
	"dormouse/store/cache"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type stored struct {
	log   string
	seq   uint64
	value []byte
}

func open(t testing.TB) (*cache.DB, *Buffer) {
	t.Helper()
	db, err := cache.Open(t.TempDir(), cache.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db, New(db, 3)
}

func fill(t testing.TB, db *cache.DB, b *Buffer, entries []stored) {
	t.Helper()
	batch := db.NewBatch()
	defer batch.Close()
	var key []byte
	var err error
	for _, e := range entries {
		if key, err = b.Put(batch, key, e.log, e.seq, e.value); err != nil {
			t.Fatal(err)
		}
	}
	if err := batch.Commit(pebble.NoSync); err != nil {
		t.Fatal(err)
	}
}

func value(seq uint64, data []byte) []byte {
	return entry.AppendValue(nil, time.Unix(int64(seq), 0), nil, data)
}

// drainAll asks as a worker does, until Done, and returns what came.
func drainAll(t *testing.T, b *Buffer, logs []string, maxBytes int) (got []stored) {
	t.Helper()
	req := wire.DrainRequest{Logs: logs, MaxBytes: maxBytes}
	var piece []byte
	for {
		var reply wire.DrainReply
		err := b.Drain(req, func(r wire.DrainReply) { reply, reply.Data = r, bytes.Clone(r.Data) })
		if err != nil {
			t.Fatal(err)
		}
		if data, err := wire.Encode(reply); err != nil || len(data) > maxBytes {
			t.Fatalf("reply of %d bytes for a limit of %d, %v", len(data), maxBytes, err)
		}
		if len(reply.Data) > 0 {
			reader := batchrepr.Read(reply.Data)
			for {
				_, key, value, ok, err := reader.Next()
				if err != nil {
					t.Fatal(err)
				}
				if !ok {
					break
				}
				log, seq, err := entry.SplitKey(key)
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, stored{string(log), seq, bytes.Clone(value)})
			}
		}
		if p := reply.Piece; p != nil {
			if p.Offset != len(piece) {
				t.Fatalf("piece at %d, have %d bytes", p.Offset, len(piece))
			}
			if piece = append(piece, p.Bytes...); len(piece) == p.Total {
				log, seq, err := entry.SplitKey(p.Key)
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, stored{string(log), seq, piece})
				piece = nil
			}
		}
		if reply.Done {
			return got
		}
		req.Logs, req.After, req.Offset = req.Logs[reply.Skip:], reply.After, reply.Offset
	}
}

// TestDrainYieldsEveryEntryOnce drains random buffers with random byte limits, entries larger than the limit among
// them, and compares with what was put in.
func TestDrainYieldsEveryEntryOnce(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			db, b := open(t)
			limit := 2*replyOverhead + r.IntN(16<<10)
			var logs []string
			var all []stored
			seq := uint64(0)
			for i := range 1 + r.IntN(20) {
				log := fmt.Sprintf("t.log%03d", i)
				if r.IntN(4) > 0 {
					logs = append(logs, log)
				}
				for range r.IntN(20) {
					seq += 1 + uint64(r.IntN(3))
					size := r.IntN(500)
					if r.IntN(20) == 0 {
						size = limit + r.IntN(3*limit)
					}
					e := stored{log, seq, value(seq, bytes.Repeat([]byte{byte(seq)}, size))}
					all = append(all, e)
				}
			}
			fill(t, db, b, all)
			if len(logs) == 0 {
				logs = []string{"t.none"}
			}
			asked := make(map[string]bool)
			for _, log := range logs {
				asked[log] = true
			}
			var want []stored
			for _, e := range all {
				if asked[e.log] {
					want = append(want, e)
				}
			}
			got := drainAll(t, b, logs, limit)
			if len(got) != len(want) {
				t.Fatalf("drained %d entries, want %d", len(got), len(want))
			}
			for i := range want {
				if got[i].log != want[i].log || got[i].seq != want[i].seq || !bytes.Equal(got[i].value, want[i].value) {
					t.Fatalf("entry %d is (%s, %d), want (%s, %d)", i, got[i].log, got[i].seq, want[i].log, want[i].seq)
				}
			}
		})
	}
}

func TestDrainRefusesAnOffsetBeyondTheEntry(t *testing.T) {
	db, b := open(t)
	large := value(1, make([]byte, 9000))
	fill(t, db, b, []stored{{"a.b", 1, large}})
	for _, offset := range []int{len(large), 100_000} {
		err := b.Drain(wire.DrainRequest{Logs: []string{"a.b"}, MaxBytes: 2048, Offset: offset},
			func(wire.DrainReply) { t.Error("it was answered") })
		if !errors.Is(err, wire.ErrBadRequest) {
			t.Fatalf("offset %d: got %v, want ErrBadRequest", offset, err)
		}
	}
}

// TestOffsetOfAnotherEntry: an offset is into the first log's entry. When that is gone, the next log's begins at its
// beginning.
func TestOffsetOfAnotherEntry(t *testing.T) {
	db, b := open(t)
	fill(t, db, b, []stored{{"a.b", 1, value(1, make([]byte, 9000))}})
	err := b.Drain(wire.DrainRequest{Logs: []string{"a.a", "a.b"}, MaxBytes: 2048, Offset: 1000}, func(r wire.DrainReply) {
		if r.Piece == nil || r.Piece.Offset != 0 || r.Skip != 1 {
			t.Errorf("answered %+v", r)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestDrainOfLogsWhoseNamesBeginAlike, and whose entries do not come in the order of their names: each gives its own
// entries, from the first one on.
func TestDrainOfLogsWhoseNamesBeginAlike(t *testing.T) {
	db, b := open(t)
	logs := []string{"a.b", "a.b.c", "a.bb", "a.c"}
	var want []stored
	for i, log := range logs {
		for n := range 40 {
			seq := uint64((len(logs)-i)*100 + n)
			want = append(want, stored{log, seq, value(seq, make([]byte, 100))})
		}
	}
	fill(t, db, b, want)
	for _, asked := range [][]string{logs, {"a.b"}, {"a.b", "a.c"}} {
		var expected []string
		for _, e := range want {
			if slices.Contains(asked, e.log) {
				expected = append(expected, fmt.Sprint(e.log, e.seq))
			}
		}
		var got []string
		for _, e := range drainAll(t, b, asked, 3*replyOverhead) {
			got = append(got, fmt.Sprint(e.log, e.seq))
		}
		if !slices.Equal(got, expected) {
			t.Errorf("%v: drained %v", asked, got)
		}
	}
}

// TestRunsOfAllLengths: what is removed key by key, and what as a range, is what was asked for.
func TestRunsOfAllLengths(t *testing.T) {
	for _, n := range []uint64{1, rangeKeys - 1, rangeKeys, rangeKeys + 1, rangeKeys + 2} {
		db, b := open(t)
		var all []stored
		for seq := uint64(1); seq <= n+1; seq++ {
			all = append(all, stored{"a.b", seq, value(seq, nil)})
		}
		fill(t, db, b, append(all, stored{"a.a", 1, value(1, nil)}))
		batch := db.NewBatch()
		err := b.Remove(batch, []extent.Extent{{Log: "a.b", First: 1, Last: n, Count: n}})
		if err := errors.Join(err, batch.Commit(pebble.NoSync), batch.Close()); err != nil {
			t.Fatal(err)
		}
		var left []string
		if err := b.Restore(func(a Active) { left = append(left, fmt.Sprint(a.Log, a.First, a.Count)) }); err != nil {
			t.Fatal(err)
		}
		if want := []string{"a.a1 1", fmt.Sprintf("a.b%d 1", n+1)}; !slices.Equal(left, want) {
			t.Errorf("%d entries: left are %v, want %v", n, left, want)
		}
	}
}

func TestRemoveAndRestore(t *testing.T) {
	db, b := open(t)
	var all []stored
	for seq := uint64(1); seq <= 30; seq++ {
		all = append(all, stored{[]string{"a.x", "a.x.y", "b.z"}[seq%3], seq, value(seq, []byte("12345"))})
	}
	fill(t, db, b, all)
	fill(t, db, New(db, 4), []stored{{"other.shard", 1, value(1, nil)}})
	batch := db.NewBatch()
	// b.z has 2, 5, ... 29; a.x has 3, 6, ... 30; a.x.y has 1, 4, ... 28
	err := b.Remove(batch, []extent.Extent{ // out of order on purpose
		{Log: "b.z", First: 2, Last: 29, Count: 10}, {Log: "a.x", First: 3, Last: 15, Count: 5},
		{Log: "a.x.y", First: 1, Last: 4, Count: 2}})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(batch.Commit(pebble.NoSync), batch.Close()); err != nil {
		t.Fatal(err)
	}
	var got []Active
	if err := b.Restore(func(a Active) { got = append(got, a) }); err != nil {
		t.Fatal(err)
	}
	want := []Active{
		{Log: "a.x", First: 18, Last: 30, Count: 5, Bytes: 25, FirstTime: time.Unix(18, 0).UTC(),
			Newest: time.Unix(30, 0).UTC()},
		{Log: "a.x.y", First: 7, Last: 28, Count: 8, Bytes: 40, FirstTime: time.Unix(7, 0).UTC(),
			Newest: time.Unix(28, 0).UTC()},
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("got  %v\nwant %v", got, want)
	}
}

// TestRemoveTakesNothingElse removes random extents of random buffers and compares what is left with a plain list.
func TestRemoveTakesNothingElse(t *testing.T) {
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 2))
		db, b := open(t)
		var all []stored
		for i := range 1 + r.IntN(100) {
			seq := uint64(0)
			for range r.IntN(6) {
				seq += 1 + uint64(r.IntN(3))
				all = append(all, stored{fmt.Sprintf("t.log%03d", i), seq, value(seq, nil)})
			}
		}
		fill(t, db, b, all)
		var extents []extent.Extent
		var left []stored
		whole := r.IntN(2) == 0 // logs, so that long runs come about
		for i, chance := 0, 1+r.IntN(40); i < len(all); {
			n := 1
			for i+n < len(all) && all[i+n].log == all[i].log {
				n++
			}
			gone := 0
			if r.IntN(chance) > 0 {
				if gone = 1 + r.IntN(n); whole {
					gone = n
				}
				extents = append(extents, extent.Extent{Log: all[i].log, First: all[i].seq, Last: all[i+gone-1].seq,
					Count: uint64(gone)})
			}
			left = append(left, all[i+gone:i+n]...)
			i += n
		}
		if r.IntN(4) == 0 {
			r.Shuffle(len(extents), func(i, j int) { extents[i], extents[j] = extents[j], extents[i] })
		}
		batch := db.NewBatch()
		if err := b.Remove(batch, extents); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(batch.Commit(pebble.NoSync), batch.Close()); err != nil {
			t.Fatal(err)
		}
		c, err := b.Iter()
		if err != nil {
			t.Fatal(err)
		}
		for ok := c.First(); ok; ok = c.Next() {
			log, seq, err := entry.SplitKey(c.Key())
			if err != nil || len(left) == 0 || left[0].log != string(log) || left[0].seq != seq {
				t.Fatalf("seed %d: found %s %d, want the first of %v (%v)", seed, log, seq, left, err)
			}
			left = left[1:]
		}
		if err := c.Close(); err != nil || len(left) > 0 {
			t.Fatalf("seed %d: %v is missing (%v)", seed, left, err)
		}
	}
}
