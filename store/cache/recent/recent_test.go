package recent

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"dormouse/internal/extent"
	"dormouse/store/cache"
)

func open(t *testing.T) *cache.DB {
	t.Helper()
	db, err := cache.Open("db", cache.Options{FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func change(t *testing.T, db *cache.DB, fn func(*cache.Batch) error) {
	t.Helper()
	batch := db.NewBatch()
	defer batch.Close()
	if err := errors.Join(fn(batch), batch.Commit(pebble.NoSync)); err != nil {
		t.Fatal(err)
	}
}

// TestFind compares it with a plain list, over logs that are prefixes of each other, and beside another shard.
func TestFind(t *testing.T) {
	db := open(t)
	r, other := New(db, 1), New(db, 2)
	random := rand.New(rand.NewPCG(1, 2))
	want := make(map[string][]extent.Extent)
	change(t, db, func(b *cache.Batch) error {
		for _, log := range []string{"a.b", "a.b.c", "a.bc"} {
			seq := uint64(1)
			for range 20 {
				first := seq + random.Uint64N(4)
				e := extent.Extent{Log: log, First: first, Last: first + random.Uint64N(5), MinTime: -5, MaxTime: int64(first)}
				want[log], seq = append(want[log], e), e.Last+1
				if err := errors.Join(r.Put(b, e), other.Put(b, extent.Extent{Log: log, First: 1, Last: 1000})); err != nil {
					return err
				}
			}
		}
		return nil
	})
	for log, all := range want {
		for seq := uint64(0); seq < 200; seq++ {
			var covering extent.Extent
			for _, e := range all {
				if e.First <= seq {
					covering = e
				}
			}
			got, last, ok, err := r.Find(log, seq)
			if err != nil || !ok || got != covering || last != all[len(all)-1] {
				t.Fatalf("%s at %d: %+v and %+v, %v, %v, want %+v", log, seq, got, last, ok, err, covering)
			}
		}
	}
	for _, log := range []string{"a", "a.a", "a.bb", "b"} {
		if _, _, ok, err := r.Find(log, 5); ok || err != nil {
			t.Errorf("%s is found: %v", log, err)
		}
	}
	change(t, db, r.Forget)
	if _, _, ok, err := r.Find("a.b", 5); ok || err != nil {
		t.Errorf("it is not forgotten: %v", err)
	}
	if _, _, ok, err := other.Find("a.b", 5); !ok || err != nil {
		t.Errorf("another shard is forgotten: %v", err)
	}
}

// TestDamagedRow is told by name.
func TestDamagedRow(t *testing.T) {
	db := open(t)
	r := New(db, 0)
	for _, row := range [][]byte{{}, {2, 1, 1, 1}, {1}, {1, 1}, {1, 1, 1}} {
		change(t, db, func(b *cache.Batch) error {
			if err := r.Put(b, extent.Extent{Log: "a.b", First: 3, Last: 4}); err != nil {
				return err
			}
			return b.Set(append(append([]byte(nil), r.prefix...), "a.b\x00\x00\x00\x00\x00\x00\x00\x00\x03"...), row, nil)
		})
		if _, _, _, err := r.Find("a.b", 3); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%v: %v", row, err)
		}
	}
}
