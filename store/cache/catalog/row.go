package catalog

import (
	"encoding/binary"
	"errors"
	"fmt"

	"dormouse/internal/entry"
	"dormouse/internal/extent"
)

// ErrCorrupt is wrapped by the errors of rows that cannot be read.
var ErrCorrupt = errors.New("corrupt catalog row")

// A row's key is the prefix of the shard, then entry.AppendKey(LogID, first sequence). Its value:
//
//	+---------+-----------+----------+----------+----------+-----------+--------------+-------------+
//	| version | last -    | count,   | bytes,   | min time | max time  | segment size | segment key |
//	| 0x01    | first, uv | uvarint  | uvarint  | varint   | - min, uv | uvarint      | the rest    |
//	+---------+-----------+----------+----------+----------+-----------+--------------+-------------+
const rowVersion = 1

// rowBytes is the most that a row takes besides the key of its segment.
const rowBytes = 128

func appendRow(dst []byte, e extent.Extent, s extent.Segment) []byte {
	dst = append(dst, rowVersion)
	dst = binary.AppendUvarint(dst, e.Last-e.First)
	dst = binary.AppendUvarint(dst, e.Count)
	dst = binary.AppendUvarint(dst, e.Bytes)
	dst = binary.AppendVarint(dst, e.MinTime)
	dst = binary.AppendUvarint(dst, uint64(e.MaxTime-e.MinTime))
	dst = binary.AppendUvarint(dst, s.Size)
	return append(dst, s.Key...)
}

func decodeRow(key, value []byte) (extent.Located, error) {
	log, first, err := entry.SplitKey(key)
	if err != nil {
		return extent.Located{}, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if len(value) == 0 || value[0] != rowVersion {
		return extent.Located{}, fmt.Errorf("%w: of %s at %d: unknown version", ErrCorrupt, log, first)
	}
	rest, bad := value[1:], false
	uvarint := func() uint64 {
		v, n := binary.Uvarint(rest)
		if n <= 0 {
			bad = true
			return 0
		}
		rest = rest[n:]
		return v
	}
	e := extent.Extent{Log: string(log), First: first}
	e.Last, e.Count, e.Bytes = first+uvarint(), uvarint(), uvarint()
	minTime, n := binary.Varint(rest)
	if n <= 0 {
		return extent.Located{}, fmt.Errorf("%w: of %s at %d: bad time", ErrCorrupt, log, first)
	}
	rest = rest[n:]
	e.MinTime, e.MaxTime = minTime, minTime+int64(uvarint())
	s := extent.Segment{Size: uvarint()}
	s.Key = string(rest)
	if bad || e.Validate() != nil {
		return extent.Located{}, fmt.Errorf("%w: of %s at %d", ErrCorrupt, log, first)
	}
	return extent.Located{Extent: e, Segment: s}, nil
}
