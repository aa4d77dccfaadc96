package buffer

import (
	"bytes"

	"dormouse/internal/entry"
	"dormouse/internal/extent"
)

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
