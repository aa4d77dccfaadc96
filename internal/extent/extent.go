// Package extent names the unit of archiving: one log's run of entries inside one segment.
//
// It is the shared word of the worker that makes extents, the owner that commits them, the manifest and the catalog
// that record them, and the reader that follows them.
package extent

import (
	"errors"
	"fmt"
	"time"
)

// Extent is one log's run of entries inside one segment.
//
// Invariant: 0 < First <= Last, 1 <= Count <= Last-First+1, MinTime <= MaxTime.
type Extent struct {
	Log     string `cbor:"1,keyasint"` // LogID
	First   uint64 `cbor:"2,keyasint"` // sequence of the first entry
	Last    uint64 `cbor:"3,keyasint"` // sequence of the last entry
	Count   uint64 `cbor:"4,keyasint"` // entries
	Bytes   uint64 `cbor:"5,keyasint"` // payload and header bytes, uncompressed
	MinTime int64  `cbor:"6,keyasint"` // earliest entry time, Unix nanoseconds
	MaxTime int64  `cbor:"7,keyasint"` // latest entry time, Unix nanoseconds
}

// Segment identifies one immutable archive object.
type Segment struct {
	Key  string `cbor:"1,keyasint"` // object key in the bucket
	Size uint64 `cbor:"2,keyasint"` // object size, bytes
}

// Located is an extent and the segment that holds it.
type Located struct {
	Extent  Extent  `cbor:"1,keyasint"`
	Segment Segment `cbor:"2,keyasint"`
}

// ErrInvalid is wrapped by what Validate returns.
var ErrInvalid = errors.New("invalid extent")

// Validate reports which part of the invariant does not hold.
func (e Extent) Validate() error {
	switch {
	case e.First == 0 || e.Last < e.First:
		return fmt.Errorf("%w: %s runs from %d to %d", ErrInvalid, e.Log, e.First, e.Last)
	case e.Count == 0 || e.Count-1 > e.Last-e.First:
		return fmt.Errorf("%w: %s has %d entries between %d and %d", ErrInvalid, e.Log, e.Count, e.First, e.Last)
	case e.MaxTime < e.MinTime:
		return fmt.Errorf("%w: %s ends before it begins", ErrInvalid, e.Log)
	}
	return nil
}

// Add extends e by one entry of the same log, whose sequence must be above Last; the zero Extent takes any first entry.
func (e *Extent) Add(seq uint64, at time.Time, bytes int) {
	nanos := at.UnixNano()
	if e.Count == 0 {
		e.First, e.MinTime, e.MaxTime = seq, nanos, nanos
	}
	e.Last = seq
	e.Count++
	e.Bytes += uint64(bytes)
	e.MinTime = min(e.MinTime, nanos)
	e.MaxTime = max(e.MaxTime, nanos)
}
