package buffer

import (
	"bytes"
	"fmt"

	"dormouse/internal/entry"
	"dormouse/internal/wire"
)

// heldOverhead is what an entry of a held reply takes besides its value.
const heldOverhead = 32

// Page returns entries of log above after and below a sequence, ascending, with up to room bytes in all, and whether
// there are more. One that is larger than that comes alone, in parts: a part from offset on.
func (c *Cursor) Page(log string, after, below uint64, offset, room int) (page []wire.HeldEntry, more bool, err error) {
	for _, _, ok, err := c.Seek(log, after+1); ok || err != nil; ok = c.it.Next() && c.on(log) {
		if err != nil {
			return nil, false, err
		}
		_, seq, err := entry.SplitKey(c.Key())
		if err != nil {
			return nil, false, err
		}
		if seq >= below {
			break
		}
		value := c.Value()
		if len(value)+heldOverhead > room || len(page) == wire.MaxHeld {
			if len(page) > 0 {
				return page, true, nil
			}
			part, err := part(seq, value, offset, max(room-heldOverhead, minPart))
			return []wire.HeldEntry{part}, true, err
		}
		room -= len(value) + heldOverhead
		page = append(page, wire.HeldEntry{Seq: seq, Value: bytes.Clone(value)})
	}
	return page, false, c.it.Error()
}

// minPart is how much of an entry a part has at least, however little the asker takes: reading must come to an end.
const minPart = 1024

func part(seq uint64, value []byte, offset, length int) (wire.HeldEntry, error) {
	if offset >= len(value) {
		return wire.HeldEntry{}, fmt.Errorf("%w: offset %d in entry %d, which has %d bytes", wire.ErrBadRequest, offset, seq,
			len(value))
	}
	end := min(offset+length, len(value))
	return wire.HeldEntry{Seq: seq, Value: bytes.Clone(value[offset:end]), Total: len(value)}, nil
}

// Has reports whether the entries of log above after and not above a sequence are just those.
func (c *Cursor) Has(log string, after, upTo uint64, seqs []uint64) (bool, error) {
	for _, _, ok, err := c.Seek(log, after+1); ok || err != nil; ok = c.it.Next() && c.on(log) {
		if err != nil {
			return false, err
		}
		_, seq, err := entry.SplitKey(c.Key())
		if err != nil {
			return false, err
		}
		if seq > upTo {
			break
		}
		if len(seqs) == 0 || seqs[0] != seq {
			return false, nil
		}
		seqs = seqs[1:]
	}
	return len(seqs) == 0, c.it.Error()
}
