package cache

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"dormouse/internal/shardid"
)

// damagedCache returns a directory with two tables, of which one has a value that is not what was written.
func damagedCache(t *testing.T) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "cache")
	db, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	putTable(t, db, "what one table says", 6, 7, 9)
	putTable(t, db, "what another table says", 8) // between the keys of the first, so that a compaction has to read both
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil || len(tables) != 2 {
		t.Fatalf("%d tables, %v", len(tables), err)
	}
	for _, table := range tables {
		data, err := os.ReadFile(table)
		if err != nil {
			t.Fatal(err)
		}
		if at := bytes.Index(data, []byte("what one")); at >= 0 {
			data[at] ^= 1
			if err := os.WriteFile(table, data, 0o600); err != nil {
				t.Fatal(err)
			}
			return dir
		}
	}
	t.Fatal("the value is in no table as it was written")
	return ""
}

// putTable writes a value for each of the shards into a table of their own.
func putTable(t *testing.T, db *DB, value string, shards ...shardid.Shard) {
	t.Helper()
	batch := db.NewBatch()
	for _, shard := range shards {
		if err := batch.Set(Prefix(spaceMeta, shard), []byte(value), nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(batch.Commit(pebble.NoSync), batch.Close()); err != nil {
		t.Fatal(err)
	}
	if rested, err := db.Rest(); err != nil || !rested { // it flushes
		t.Fatal(rested, err)
	}
}

// TestDamageFoundInUse holds that a database in which a bad block is met, by whatever way, ends the process, and is
// moved aside by the next one, which can go on.
func TestDamageFoundInUse(t *testing.T) {
	ways := map[string]func(*DB) error{
		"get": func(db *DB) error { _, err := db.Position(7); return err },
		"iterator": func(db *DB) error {
			it, err := db.NewIter(nil)
			if err != nil {
				return err
			}
			for ok := it.First(); ok; ok = it.Next() {
				t.Errorf("read %q beyond what is damaged", it.Value())
			}
			return it.Close()
		},
		"compaction": func(db *DB) error {
			defer db.release()
			return db.hold().Compact(t.Context(), Prefix(spaceMeta, 0), PrefixEnd(spaceMeta, 10), false)
		},
	}
	for name, use := range ways {
		t.Run(name, func(t *testing.T) {
			dir := damagedCache(t)
			var ended atomic.Int64
			db, err := Open(dir, Options{exit: func(int) { ended.Add(1) }})
			if err != nil {
				t.Fatalf("opening reads no data, and found %v", err)
			}
			if err := use(db); err == nil || ended.Load() == 0 {
				t.Errorf("%v; the process ended %d times", err, ended.Load())
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			mustBeginAnew(t, dir)
		})
	}
}

// TestDamageIsSeenInErrors holds that a corruption error which Pebble did not report by itself counts as well.
func TestDamageIsSeenInErrors(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	var ended atomic.Int64
	db, err := Open(dir, Options{exit: func(int) { ended.Add(1) }})
	if err != nil {
		t.Fatal(err)
	}
	for _, harmless := range []error{nil, pebble.ErrNotFound, errors.New("another")} {
		if err := db.corruption.check(harmless); !errors.Is(err, harmless) || ended.Load() > 0 {
			t.Fatalf("%v: %v, the process ended %d times", harmless, err, ended.Load())
		}
	}
	if err := db.corruption.check(pebble.ErrCorruption); !errors.Is(err, pebble.ErrCorruption) || ended.Load() != 1 {
		t.Errorf("%v, the process ended %d times", err, ended.Load())
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	mustBeginAnew(t, dir)
}

// mustBeginAnew opens a directory that must be moved aside for that.
func mustBeginAnew(t *testing.T, dir string) {
	t.Helper()
	db, err := Open(dir, Options{exit: func(int) { t.Error("the damaged cache was used again") }})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if p, err := db.Position(shardid.Shard(7)); err != nil || p != (Position{}) {
		t.Errorf("the database is not empty: %+v, %v", p, err)
	}
	if _, err := os.Stat(filepath.Join(dir+".corrupt", markName)); err != nil {
		t.Errorf("the damaged cache was not kept aside: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, markName)); err == nil {
		t.Error("the new cache bears the mark of the old one")
	}
}
