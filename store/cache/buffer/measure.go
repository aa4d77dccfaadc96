package buffer

import (
	"bytes"

	"dormouse/internal/entry"
	"dormouse/internal/extent"
)

// Prefix returns the extent of the first entries of log that are wanted, up to the first that is not; the zero Extent
// when there are none. Times are Unix nanoseconds.
func (c *Cursor) Prefix(log string, wanted func(seq uint64, at int64) bool) (e extent.Extent, err error) {
	for c.seek(log, 0); c.on(log); c.it.Next() {
		_, seq, err := entry.SplitKey(c.Key())
		if err != nil {
			return e, err
		}
		at, size, err := entry.Measure(c.Value())
		if err != nil {
			return e, err
		}
		if !wanted(seq, at.UnixNano()) {
			break
		}
		e.Log = log
		e.Add(seq, at, size)
	}
	return e, c.it.Error()
}

// Measure returns the extent that holds all buffered entries of log from one sequence to another; the zero Extent when
// there are none. It is cheapest when the logs of one cursor ascend.
func (c *Cursor) Measure(log string, first, last uint64) (e extent.Extent, err error) {
	if c.it.Valid() && bytes.Compare(c.it.Key(), c.buffer.key(c.scratch[:0], log, first)) <= 0 {
		c.forward(log, first)
	} else {
		c.seek(log, first)
	}
	for ; c.on(log); c.it.Next() {
		_, seq, err := entry.SplitKey(c.Key())
		if err != nil {
			return e, err
		}
		if seq > last {
			break
		}
		at, size, err := entry.Measure(c.Value())
		if err != nil {
			return e, err
		}
		e.Log = log
		e.Add(seq, at, size)
	}
	return e, c.it.Error()
}
