// Package entry is the one encoding of an entry: its key and its value, the same bytes in the Pebble buffer, in a drain
// reply and in a segment, so that an entry is encoded once on its way.
//
// It reads and writes memory only. Open store/cache/buffer next for where the bytes are kept.
package entry

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Entry is one message of a log.
type Entry struct {
	Log     string              // LogID
	Seq     uint64              // JetStream stream sequence; ascending within a log, with gaps
	Time    time.Time           // when JetStream stored it
	Headers map[string][]string // NATS headers; nil when there are none
	Data    []byte              // payload
}

// ErrCorrupt is wrapped by every decoding error of this package.
var ErrCorrupt = errors.New("corrupt entry")

// A value holds all of an entry that its key does not:
//
//	+---------+-------------------+------------------+---------------------+-----------+
//	| version | time, varint of   | number of header | per pair: name and  | payload   |
//	| 1 byte  | Unix nanoseconds  | pairs, uvarint   | value, each uvarint | the rest  |
//	|  0x01   |                   |                  | length and bytes    |           |
//	+---------+-------------------+------------------+---------------------+-----------+
//
// Names are sorted, so equal entries have equal bytes; several values of one name keep their order.
const valueVersion = 1

// AppendValue appends the value of an entry to dst.
func AppendValue(dst []byte, at time.Time, headers map[string][]string, data []byte) []byte {
	dst = append(dst, valueVersion)
	dst = binary.AppendVarint(dst, at.UnixNano())
	dst = appendHeaders(dst, headers)
	return append(dst, data...)
}

func appendHeaders(dst []byte, headers map[string][]string) []byte {
	if len(headers) == 0 {
		return append(dst, 0)
	}
	names := make([]string, 0, len(headers))
	pairs := 0
	for name, values := range headers {
		names = append(names, name)
		pairs += len(values)
	}
	slices.Sort(names)
	dst = binary.AppendUvarint(dst, uint64(pairs))
	for _, name := range names {
		for _, value := range headers[name] {
			dst = appendString(dst, name)
			dst = appendString(dst, value)
		}
	}
	return dst
}

func appendString(dst []byte, s string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

// Value is a decoded value. Data shares the memory of what was decoded.
type Value struct {
	Time    time.Time
	Headers map[string][]string
	Data    []byte
	Bytes   int // payload and header bytes, the measure of Bytes in extents and limits
}

// DecodeValue decodes a whole value. Its error wraps ErrCorrupt.
func DecodeValue(value []byte) (Value, error) {
	d := decoder{rest: value}
	v := Value{Time: d.time()}
	if pairs := d.uvarint(); pairs > 0 && d.err == nil {
		if pairs > uint64(len(d.rest)) { // a pair takes two bytes at least: refuse before allocating
			return Value{}, fmt.Errorf("%w: %d header pairs in %d bytes", ErrCorrupt, pairs, len(d.rest))
		}
		v.Headers = make(map[string][]string)
		for range pairs {
			name, text := d.string(), d.string()
			if d.err != nil {
				break
			}
			v.Headers[name] = append(v.Headers[name], text)
			v.Bytes += len(name) + len(text)
		}
	}
	v.Data = d.rest
	v.Bytes += len(v.Data)
	return v, d.err
}

// Measure returns what accounting needs of a value, without building its headers: its time and its Bytes.
func Measure(value []byte) (at time.Time, bytes int, err error) {
	d := decoder{rest: value}
	at = d.time()
	for pairs := d.uvarint(); pairs > 0 && d.err == nil; pairs-- {
		bytes += len(d.bytes()) + len(d.bytes())
	}
	return at, bytes + len(d.rest), d.err
}

// Size returns the Bytes of an entry that is not encoded yet.
func Size(headers map[string][]string, data []byte) int {
	n := len(data)
	for name, values := range headers {
		for _, value := range values {
			n += len(name) + len(value)
		}
	}
	return n
}

// decoder reads fields off rest; after the first error it returns zero values.
type decoder struct {
	rest []byte
	err  error
}

func (d *decoder) fail(what string) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: bad %s", ErrCorrupt, what)
	}
	d.rest = nil
}

func (d *decoder) time() time.Time {
	if len(d.rest) == 0 || d.rest[0] != valueVersion {
		d.fail("version")
		return time.Time{}
	}
	nanos, n := binary.Varint(d.rest[1:])
	if n <= 0 {
		d.fail("time")
		return time.Time{}
	}
	d.rest = d.rest[1+n:]
	return time.Unix(0, nanos).UTC()
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 {
		d.fail("length")
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) bytes() []byte {
	n := d.uvarint()
	if n > uint64(len(d.rest)) {
		d.fail("header")
		return nil
	}
	b := d.rest[:n]
	d.rest = d.rest[n:]
	return b
}

func (d *decoder) string() string { return string(d.bytes()) }
