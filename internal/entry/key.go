package entry

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"dormouse/internal/logid"
)

// A key orders entries by LogID, then by sequence. A LogID holds no NUL, so the separator sorts before every longer
// LogID with the same beginning:
//
//	+-----------------+------+------------------------+
//	| LogID (1..256B) | 0x00 | sequence (8B, big end) |
//	+-----------------+------+------------------------+
const keyTrailer = 1 + 8

// AppendKey appends the key of the entry (log, seq) to dst.
func AppendKey(dst []byte, log string, seq uint64) []byte {
	dst = append(dst, log...)
	dst = append(dst, 0)
	return binary.BigEndian.AppendUint64(dst, seq)
}

// AppendLogEnd appends to dst the smallest key that sorts after every entry of log.
func AppendLogEnd(dst []byte, log string) []byte {
	dst = append(dst, log...)
	return append(dst, 1)
}

// SplitKey returns the LogID (sharing key's memory) and the sequence of a key.
func SplitKey(key []byte) (log []byte, seq uint64, err error) {
	n := len(key) - keyTrailer
	if n < 1 || n > logid.MaxBytes || key[n] != 0 || bytes.IndexByte(key[:n], 0) >= 0 {
		return nil, 0, fmt.Errorf("%w: key %q", ErrCorrupt, key)
	}
	return key[:n], binary.BigEndian.Uint64(key[n+1:]), nil
}
