package segment

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2/sstable"

	"dormouse/internal/extent"
)

// A segment is one sorted table:
//
//	+--------------------------------------------------+ 0
//	| data blocks (compressed, each with a checksum)   |
//	|   entries        key             value           |
//	|     LogID 0x00 sequence    ->    entry value     |  internal/entry, ascending
//	|     ...                                          |
//	|   table of contents, one row per log             |
//	|     0xFF LogID             ->    extent row      |  ascending
//	|     ...                                          |
//	|   seal, the last row                             |
//	|     0xFF 0xFF              ->    totals          |
//	+--------------------------------------------------+
//	| index: last key and place of each data block     |
//	| properties, metaindex                            |
//	| footer (61 bytes, with its own checksum)         |
//	+--------------------------------------------------+ size
//
// 0xFF begins no LogID, because it occurs in no valid UTF-8: the table of contents sorts after every entry. Being at
// the end, it usually lies in the bytes that a reader fetches anyway to find the index.
//
//	extent row   +---------+--------+-------------+--------+--------+--------------+-------------------+
//	             | version | first  | last-first  | count  | bytes  | min time     | max time-min time |
//	             |  0x01   | uvarint| uvarint     | uvarint| uvarint| varint, Unix | uvarint, ns       |
//	             +---------+--------+-------------+--------+--------+--------------+-------------------+
//	seal         +---------+--------+---------+-------+
//	             | version | logs   | entries | bytes |  each uvarint
//	             +---------+--------+---------+-------+
const (
	contentsPrefix  = 0xFF
	contentsVersion = 1
)

// tableFormat is fixed, so that what is read does not depend on the release that wrote it. From version 6 the footer
// has a checksum; 7 is the newest of the library. Version 4, which more releases of the library can read, was rejected:
// its footer is not protected, so one flipped bit there can pass unnoticed or make the reader ask for absurd amounts.
const tableFormat = sstable.TableFormatPebblev7

// footerEnd is how every table of tableFormat ends: the format version and the magic number.
const footerEnd = "\x07\x00\x00\x00\xf0\x9f\xaa\xb3\xf0\x9f\xaa\xb3"

// sealKey is the key of the last row.
var sealKey = []byte{contentsPrefix, contentsPrefix}

// errRow is the reason of every refused row; callers put the object's name and ErrCorrupt around it.
var errRow = errors.New("bad row in the table of contents")

func appendExtent(dst []byte, e extent.Extent) []byte {
	dst = append(dst, contentsVersion)
	dst = binary.AppendUvarint(dst, e.First)
	dst = binary.AppendUvarint(dst, e.Last-e.First)
	dst = binary.AppendUvarint(dst, e.Count)
	dst = binary.AppendUvarint(dst, e.Bytes)
	dst = binary.AppendVarint(dst, e.MinTime)
	return binary.AppendUvarint(dst, uint64(e.MaxTime-e.MinTime))
}

// decodeExtent decodes the row of one log; the extent it returns is valid.
func decodeExtent(log string, row []byte) (extent.Extent, error) {
	d := rowDecoder{rest: row}
	d.version()
	e := extent.Extent{Log: log, First: d.uvarint()}
	e.Last = e.First + d.uvarint()
	e.Count, e.Bytes = d.uvarint(), d.uvarint()
	e.MinTime = d.varint()
	e.MaxTime = e.MinTime + int64(d.uvarint())
	if err := d.end(); err != nil {
		return extent.Extent{}, err
	}
	if err := e.Validate(); err != nil {
		return extent.Extent{}, fmt.Errorf("%w: %w", errRow, err)
	}
	return e, nil
}

// totals is what the seal says of the whole segment.
type totals struct {
	logs, entries, bytes uint64
}

func (t *totals) add(e extent.Extent) {
	t.logs++
	t.entries += e.Count
	t.bytes += e.Bytes
}

func appendTotals(dst []byte, t totals) []byte {
	dst = append(dst, contentsVersion)
	dst = binary.AppendUvarint(dst, t.logs)
	dst = binary.AppendUvarint(dst, t.entries)
	return binary.AppendUvarint(dst, t.bytes)
}

func decodeTotals(row []byte) (totals, error) {
	d := rowDecoder{rest: row}
	d.version()
	t := totals{logs: d.uvarint(), entries: d.uvarint(), bytes: d.uvarint()}
	return t, d.end()
}

// rowDecoder reads fields off rest; after the first error it returns zeros.
type rowDecoder struct {
	rest []byte
	err  error
}

func (d *rowDecoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: "+format, append([]any{errRow}, args...)...)
	}
	d.rest = nil
}

func (d *rowDecoder) version() {
	switch {
	case len(d.rest) == 0:
		d.fail("empty")
	case d.rest[0] != contentsVersion:
		d.fail("version %d, this release knows %d", d.rest[0], contentsVersion)
	default:
		d.rest = d.rest[1:]
	}
}

func (d *rowDecoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.rest)
	d.take(n)
	return v
}

func (d *rowDecoder) varint() int64 {
	v, n := binary.Varint(d.rest)
	d.take(n)
	return v
}

func (d *rowDecoder) take(n int) {
	if n <= 0 {
		d.fail("bad number")
		return
	}
	d.rest = d.rest[n:]
}

func (d *rowDecoder) end() error {
	if d.err == nil && len(d.rest) > 0 {
		d.fail("%d bytes too many", len(d.rest))
	}
	return d.err
}
