package workers

import (
	"encoding/binary"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/batchrepr"
)

// eachSet calls fn with every key and value of a Pebble batch representation, which must hold nothing but Sets:
//
//	+----------+--------------+   then for each of them
//	| sequence | count        |   +------+-------------------+-----+---------------------+-------+
//	| 8 bytes  | 4 bytes      |   | kind | length of key,    | key | length of value,    | value |
//	| (unused) | little end   |   | 0x01 | uvarint           |     | uvarint             |       |
//	+----------+--------------+   +------+-------------------+-----+---------------------+-------+
//
// Pebble's own batchrepr.Reader is made for batches of the process itself: it reads beyond the end of a truncated one.
func eachSet(data []byte, fn func(key, value []byte) error) error {
	header, ok := batchrepr.ReadHeader(data)
	if !ok {
		return malformed("batch of %d bytes", len(data))
	}
	rest := data[batchrepr.HeaderLen:]
	n := uint32(0)
	for ; len(rest) > 0; n++ {
		if kind := pebble.InternalKeyKind(rest[0]); kind != pebble.InternalKeyKindSet {
			return malformed("a record of kind %d", kind)
		}
		key, afterKey, ok := cutString(rest[1:])
		if !ok {
			return malformed("batch ends in the key of record %d", n)
		}
		value, afterValue, ok := cutString(afterKey)
		if !ok {
			return malformed("batch ends in the value of record %d", n)
		}
		if err := fn(key, value); err != nil {
			return err
		}
		rest = afterValue
	}
	if n != header.Count {
		return malformed("batch of %d entries holds %d", header.Count, n)
	}
	return nil
}

// cutString splits data after the string, led by its length, that it begins with.
func cutString(data []byte) (s, rest []byte, ok bool) {
	length, n := binary.Uvarint(data)
	if n <= 0 || length > uint64(len(data)-n) {
		return nil, nil, false
	}
	data = data[n:]
	return data[:length], data[length:], true
}
