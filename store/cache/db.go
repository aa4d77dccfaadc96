package cache

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

// DB is the database. It is safe for concurrent use. Between Rest and the next use it is closed.
type DB struct {
	reopen     func() (*pebble.DB, error)
	corruption *corruption
	logger     *slog.Logger
	exit       func(code int)

	// use is held for reading by every batch and iterator, and for writing while the database is closed or opened. Nobody
	// waits for it to write, so that holding it twice for reading cannot block.
	use    sync.RWMutex
	pebble *pebble.DB // nil while it rests
	uses   atomic.Uint64
	shed   shed
}

// hold returns the database, open until release is called.
func (db *DB) hold() *pebble.DB {
	db.uses.Add(1)
	for {
		db.use.RLock()
		if db.pebble != nil {
			return db.pebble
		}
		db.use.RUnlock()
		if !db.use.TryLock() { // somebody else is waking it
			runtime.Gosched()
			continue
		}
		if db.pebble == nil {
			var err error
			if db.pebble, err = db.reopen(); err != nil {
				db.fail("the local cache could not be opened again", err)
			}
		}
		db.use.Unlock()
	}
}

func (db *DB) release() { db.use.RUnlock() }

// Batch is a set of changes that become visible together. Whoever asked for it must close it.
type Batch struct {
	*pebble.Batch
	db *DB
}

// Close drops what was not committed.
func (b *Batch) Close() error {
	defer b.db.release()
	return b.Batch.Close()
}

// Commit makes the changes visible.
func (b *Batch) Commit(o *pebble.WriteOptions) error {
	b.db.shed.written.Add(uint64(b.Len()))
	return b.db.corruption.check(b.Batch.Commit(o))
}

// NewBatch returns an empty batch.
func (db *DB) NewBatch() *Batch {
	return &Batch{Batch: db.hold().NewBatch(), db: db}
}

// Iterator is a pebble.Iterator over the database as it was when it was made. Whoever asked for it must close it.
type Iterator struct {
	*pebble.Iterator
	db *DB
}

// Close returns the error that ended the iterator, if one did.
func (it *Iterator) Close() error {
	defer it.db.release()
	return it.db.corruption.check(it.Iterator.Close())
}

// Error returns the error that ended the iterator, if one did.
func (it *Iterator) Error() error { return it.db.corruption.check(it.Iterator.Error()) }

// NewIter returns an iterator that stands nowhere yet.
func (db *DB) NewIter(o *pebble.IterOptions) (*Iterator, error) {
	it, err := db.hold().NewIter(o)
	if err != nil {
		db.release()
		return nil, db.corruption.check(err)
	}
	return &Iterator{Iterator: it, db: db}, nil
}

// get returns a copy of the value of key.
func (db *DB) get(key []byte) ([]byte, error) {
	defer db.release()
	value, closer, err := db.hold().Get(key)
	if err != nil {
		return nil, db.corruption.check(err)
	}
	value = append([]byte(nil), value...)
	return value, closer.Close()
}

// Uses counts what the database was ever asked for: while the count stays, nobody needs it.
func (db *DB) Uses() uint64 { return db.uses.Load() }

// Rest closes the database until it is used again, which then waits some 10 ms: a busy database has grown a write
// buffer and a cache, and even an idle one looks for work ten times a second. It reports false, having done nothing,
// when the database is in use or rests already.
func (db *DB) Rest() (rested bool, err error) {
	if !db.use.TryLock() {
		return false, nil
	}
	defer db.use.Unlock()
	if db.pebble == nil {
		return false, nil
	}
	if err := db.pebble.Flush(); err != nil {
		return false, fmt.Errorf("flushing the local cache: %w", err)
	}
	if err := db.pebble.Close(); err != nil {
		db.fail("closing the local cache failed", err)
	}
	db.pebble = nil
	return true, nil
}

// fail ends the process: there is no database any more for those who wait for it, and no acked entry is lost with it.
func (db *DB) fail(what string, err error) {
	db.logger.Error(what+"; ending this process. No acked entry is lost: repair the disk and start again", "error",
		err.Error())
	db.exit(1)
}

// Close closes the database, which nobody may use any more. It fails, leaving it open, when a batch or an iterator
// still is.
func (db *DB) Close() error {
	if !db.use.TryLock() {
		return errors.New("closing the local cache: a batch or an iterator of it is still open")
	}
	defer db.use.Unlock()
	if db.pebble == nil {
		return nil
	}
	return db.pebble.Close()
}
