package wire

import (
	"fmt"
	"math"

	"dormouse/internal/extent"
	"dormouse/internal/logid"
)

// MaxHeld bounds the entries in one held reply, and those that an asker can have compared.
const MaxHeld = 4096

// HeldRequest asks what the owner has of a log above After: segments that can have such entries, and entries that are
// only buffered. An asker that has read all segments of the log up to a manifest record says so by Since.
type HeldRequest struct {
	Log    string `cbor:"1,keyasint"`
	After  uint64 `cbor:"2,keyasint,omitempty"`
	Since  uint64 `cbor:"7,keyasint,omitempty"`
	Offset int    `cbor:"3,keyasint,omitempty"` // of the next entry, go on at this byte of its value
	// how much of HeldReply.Entries the asker takes; 0: it only wants to know
	MaxBytes int `cbor:"4,keyasint,omitempty"`

	// With UpTo the asker has the entries Seqs above After up to UpTo from the stream, and asks whether that is all.
	UpTo uint64   `cbor:"5,keyasint,omitempty"`
	Seqs []uint64 `cbor:"6,keyasint,omitempty"` // ascending
}

// Validate reports what the owner must refuse.
func (r HeldRequest) Validate() error {
	switch {
	case r.Offset < 0 || r.MaxBytes < 0:
		return fmt.Errorf("offset %d and byte limit %d must not be negative", r.Offset, r.MaxBytes)
	case r.After == math.MaxUint64:
		return fmt.Errorf("there is no sequence above %d", r.After)
	case len(r.Seqs) > MaxHeld || r.UpTo > 0 && r.UpTo <= r.After:
		return fmt.Errorf("%d entries above %d up to %d, want at most %d and sequences that ascend", len(r.Seqs), r.After,
			r.UpTo, MaxHeld)
	}
	return logid.Validate(r.Log)
}

// HeldReply is a page of what the owner has of a log, all as of one moment: the segments Pieces, in the order in which
// they are to be read, and behind them the buffered Entries. A segment need not have anything of the log. Another
// request brings what follows: Since the newest of Pieces, and After the last of Entries.
//
// Without More, the log has nothing else up to Applied: what was taken in up to there is in the archive or in the
// buffer. Entries only come with the last of the Pieces.
type HeldReply struct {
	Status
	Pieces  []extent.Piece `cbor:"3,keyasint,omitempty"`
	Entries []HeldEntry    `cbor:"4,keyasint,omitempty"`
	More    bool           `cbor:"5,keyasint,omitempty"`
	Applied uint64         `cbor:"6,keyasint,omitempty"` // last sequence of the source stream that was taken in
	// Complete is the answer to UpTo and Seqs, when Applied is not below UpTo; the reply has neither pieces nor entries
	// then. A segment that can have such entries, and was not there at Since, makes it false.
	Complete bool   `cbor:"7,keyasint,omitempty"`
	Buffered bool   `cbor:"8,keyasint,omitempty"` // an entry above After is in the buffer
	Archive  string `cbor:"9,keyasint,omitempty"` // URL of the bucket as the owner opened it, without secrets
	// Cuts are those of the log: what they cut is left out of the pieces, and of the source stream.
	Cuts extent.Cuts `cbor:"10,keyasint,omitempty"`
}

// HeldEntry is one buffered entry, or a part of one that is too large for one reply.
type HeldEntry struct {
	Seq   uint64 `cbor:"1,keyasint"`
	Value []byte `cbor:"2,keyasint"` // as package entry encodes it, from the request's Offset on
	// length of the whole value, if Value is a part of it; then it is the only entry
	Total int `cbor:"3,keyasint,omitempty"`
}
