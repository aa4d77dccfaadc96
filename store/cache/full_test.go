package cache

import (
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// badDisk is a disk on which files with a suffix cannot be written while bad is set. The end of the process mends it.
type badDisk struct {
	opts  Options
	cause error
	log   strings.Builder
	bad   atomic.Bool
	ended atomic.Int64
}

func newBadDisk(suffix string, cause error) *badDisk {
	d := &badDisk{cause: cause}
	refuse := errorfs.InjectorFunc(func(op errorfs.Op) error {
		if d.bad.Load() && op.Kind == errorfs.OpFileWrite && strings.HasSuffix(op.Path, suffix) {
			return cause
		}
		return nil
	})
	d.opts = Options{
		FS:     errorfs.Wrap(vfs.NewMem(), refuse),
		Logger: slog.New(slog.NewTextHandler(&d.log, &slog.HandlerOptions{Level: slog.LevelError})),
		exit: func(int) {
			d.ended.Add(1)
			d.bad.Store(false)
		},
	}
	return d
}

// mustHaveEnded holds that one line says why, and what to do.
func (d *badDisk) mustHaveEnded(t *testing.T) {
	t.Helper()
	if log := d.log.String(); d.ended.Load() != 1 || strings.Count(log, "\n") != 1 ||
		!strings.Contains(log, "cannot be written") || !strings.Contains(log, d.cause.Error()) {
		t.Errorf("the process ended %d times and said %q", d.ended.Load(), log)
	}
}

// TestBadDiskEndsTheProcess: Pebble writes tables behind everybody's back and tries without a pause, and panics where
// it writes its log.
func TestBadDiskEndsTheProcess(t *testing.T) {
	for _, cause := range []error{syscall.ENOSPC, syscall.EIO} {
		t.Run("at start: "+cause.Error(), func(t *testing.T) {
			d := newBadDisk(".sst", cause)
			db := mustOpen(t, d)
			put(t, db)
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			d.bad.Store(true)
			db = mustOpen(t, d) // writes a table of what it finds in its log
			d.mustHaveEnded(t)
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
		})
		t.Run("in use: "+cause.Error(), func(t *testing.T) {
			d := newBadDisk(".sst", cause)
			db := mustOpen(t, d)
			put(t, db)
			d.bad.Store(true)
			if rested, err := db.Rest(); err != nil || !rested {
				t.Errorf("rested: %v, %v", rested, err)
			}
			d.mustHaveEnded(t)
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
	t.Run("the log", func(t *testing.T) {
		d := newBadDisk(".log", syscall.ENOSPC)
		db := mustOpen(t, d)
		d.bad.Store(true)
		put(t, db) // is written when the database is closed, at the latest
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		d.mustHaveEnded(t)
	})
}

func mustOpen(t *testing.T, d *badDisk) *DB {
	t.Helper()
	db, err := Open("cache", d.opts)
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func put(t *testing.T, db *DB) {
	t.Helper()
	batch := db.NewBatch()
	if err := errors.Join(batch.Set([]byte("key"), []byte("value"), nil), batch.Commit(pebble.NoSync),
		batch.Close()); err != nil {
		t.Fatal(err)
	}
}
