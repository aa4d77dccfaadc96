package cache

import "sync/atomic"

// shed is when the write buffer is flushed for the sake of what was removed. Entries that are archived soon after they
// came lie in it with what removes them, until it is full, and all who read a log step over its dead ones. A flush
// drops them, and writes little.
type shed struct {
	written atomic.Uint64 // bytes of batches since the write buffer was last empty, as far as is known
	removed atomic.Uint64 // bytes that were said to be removed since
}

// shedBytes is how much is written before a flush is worth its files.
const shedBytes = 1 << 20

// due reports whether the write buffer is to be flushed now, after so many bytes more were removed: when at least half
// of it is dead. What is removed beyond what was written lies in tables, where a flush drops nothing.
func (s *shed) due(bytes uint64) bool {
	removed, written := s.removed.Add(bytes), s.written.Load()
	full := written >= memTableBytes // so it was flushed by itself
	if !full && (written < shedBytes || removed < written/2 || removed > 2*written) {
		return false
	}
	if !s.written.CompareAndSwap(written, 0) {
		return false
	}
	s.removed.Store(0)
	return !full
}

// Removed says that about so many bytes of keys and values were removed, by a batch that was committed. The caller uses
// the database at the time.
func (db *DB) Removed(bytes uint64) error {
	if !db.shed.due(bytes) {
		return nil
	}
	defer db.release()
	_, err := db.hold().AsyncFlush()
	return db.corruption.check(err)
}
