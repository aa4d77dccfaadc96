package buffer

import (
	"fmt"
	"time"

	"dormouse/internal/entry"
)

// Active sums up what is buffered of one log.
type Active struct {
	Log         string
	First, Last uint64    // sequences
	Count       uint64    // entries
	Bytes       uint64    // payload and header bytes
	FirstTime   time.Time // of the first entry
	Newest      time.Time // the latest of all entries
}

// Restore calls fn once for each log that has entries in the buffer, in LogID order: the active set after a restart.
//
// It reads every buffered entry, which the buffer limit bounds. Seeking from log to log would not: it costs two seeks
// for each log, is slower than the scan for logs of a few entries, and leaves counts and bytes unknown, which commits
// are checked against.
func (b *Buffer) Restore(fn func(Active)) (err error) {
	c, err := b.Iter()
	if err != nil {
		return err
	}
	defer func() {
		if cerr := c.Close(); err == nil && cerr != nil {
			err = fmt.Errorf("reading the buffer: %w", cerr)
		}
	}()
	var now Active
	for ok := c.First(); ok; ok = c.Next() {
		log, seq, err := entry.SplitKey(c.Key())
		if err != nil {
			return err
		}
		at, bytes, err := entry.Measure(c.Value())
		if err != nil {
			return err
		}
		if string(log) != now.Log {
			if now.Count > 0 {
				fn(now)
			}
			now = Active{Log: string(log), First: seq, FirstTime: at}
		}
		now.Last = seq
		if at.After(now.Newest) {
			now.Newest = at
		}
		now.Count++
		now.Bytes += uint64(bytes)
	}
	if now.Count > 0 {
		fn(now)
	}
	return nil
}
