package cache

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// TestShed: what was removed soon after it was written leaves the write buffer long before that is full; a backlog that
// lies in tables, or that is mostly there still, is not flushed for it.
func TestShed(t *testing.T) {
	const size, count = 1000, 500 // a batch of half of shedBytes
	for name, tc := range map[string]struct {
		batches, removed int
		flushed          bool
	}{
		"little was written":     {1, 1, false},
		"all of it is removed":   {3, 3, true},
		"most of it is":          {5, 3, true},
		"less than half is":      {4, 1, false},
		"far more was removed":   {3, 30, false},
		"it was flushed already": {20, 10, false},
	} {
		t.Run(name, func(t *testing.T) {
			db, err := Open(t.TempDir(), Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			flushes := func() int64 {
				defer db.release()
				return db.hold().Metrics().Flush.Count
			}
			value := bytes.Repeat([]byte("x"), size)
			for n := range tc.batches {
				batch := db.NewBatch()
				for i := range count {
					key := binary.BigEndian.AppendUint64(Prefix(SpaceBuffer, 1), uint64(n*count+i))
					if err := batch.Set(key, value, nil); err != nil {
						t.Fatal(err)
					}
				}
				if err := errors.Join(batch.Commit(pebble.NoSync), batch.Close()); err != nil {
					t.Fatal(err)
				}
			}
			before := flushes()
			if err := db.Removed(uint64(tc.removed * count * size)); err != nil {
				t.Fatal(err)
			}
			anew := db.shed.written.Load() == 0
			if full := tc.batches*count*size >= memTableBytes; anew != (tc.flushed || full) {
				t.Errorf("the count begins anew: %v", anew)
			}
			for deadline := time.Now().Add(10 * time.Second); tc.flushed && flushes() == before; {
				if time.Now().After(deadline) {
					t.Fatal("nothing is flushed")
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
}
