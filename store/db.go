package store

import (
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

// DB is the open database. It is safe for concurrent use.
type DB struct {
	reopen func() (*pebble.DB, error)
	logger *slog.Logger

	// use is held for reading by every batch and iterator, and for writing while the database rests. Nobody waits for it to
	// write, so that holding it twice for reading cannot block.
	use     sync.RWMutex
	pebble  *pebble.DB
	batches atomic.Uint64
}

// Batch is a set of changes that become visible together. Whoever asked for it must close it.
type Batch struct {
	*pebble.Batch
	db *DB
}

// Close drops what was not committed.
func (b *Batch) Close() error {
	defer b.db.use.RUnlock()
	return b.Batch.Close()
}

// NewBatch returns an empty batch.
func (db *DB) NewBatch() *Batch {
	db.use.RLock()
	db.batches.Add(1)
	return &Batch{Batch: db.pebble.NewBatch(), db: db}
}

// Iterator is a pebble.Iterator over the database as it was when it was made. Whoever asked for it must close it.
type Iterator struct {
	*pebble.Iterator
	db *DB
}

// Close returns the error that ended the iterator, if one did.
func (it *Iterator) Close() error {
	defer it.db.use.RUnlock()
	return it.Iterator.Close()
}

// NewIter returns an iterator that stands nowhere yet.
func (db *DB) NewIter(o *pebble.IterOptions) (*Iterator, error) {
	db.use.RLock()
	it, err := db.pebble.NewIter(o)
	if err != nil {
		db.use.RUnlock()
		return nil, err
	}
	return &Iterator{Iterator: it, db: db}, nil
}

// get returns a copy of the value of key.
func (db *DB) get(key []byte) ([]byte, error) {
	db.use.RLock()
	defer db.use.RUnlock()
	value, closer, err := db.pebble.Get(key)
	if err != nil {
		return nil, err
	}
	value = append([]byte(nil), value...)
	return value, closer.Close()
}

// Batches counts the batches that were ever asked for: as long as the count stays, nothing is written.
func (db *DB) Batches() uint64 { return db.batches.Load() }

// Rest gives back the memory that a busy database has grown to, its write buffer and its cache, by closing and opening it.
// It reports false, having done nothing, when the database is in use. Use waits while it rests, some 10 ms.
func (db *DB) Rest() (rested bool, err error) {
	if !db.use.TryLock() {
		return false, nil
	}
	defer db.use.Unlock()
	if err := db.pebble.Flush(); err != nil {
		return false, fmt.Errorf("flushing the local cache: %w", err)
	}
	if err := db.pebble.Close(); err != nil {
		db.fail("closing the local cache failed", err)
	}
	if db.pebble, err = db.reopen(); err != nil {
		db.fail("the local cache could not be opened again", err)
	}
	return true, nil
}

// fail ends the process: there is no database any more for those who wait for it, and no acked entry is lost with it.
func (db *DB) fail(what string, err error) {
	db.logger.Error(what+"; ending this process. No acked entry is lost: repair the disk and start again", "error", err.Error())
	os.Exit(1)
}

// Close closes the database, which nobody may use any more.
func (db *DB) Close() error { return db.pebble.Close() }
