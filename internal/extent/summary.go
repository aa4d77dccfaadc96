package extent

import (
	"fmt"
	"slices"
)

// Summary is one live segment: where it is, and what its table of contents adds up to.
//
// Invariant: First <= Last, Logs and Entries are above 0, 0 < MinSeq <= MaxSeq, MinTime <= MaxTime.
type Summary struct {
	Object  Segment `cbor:"1,keyasint"`
	First   string  `cbor:"2,keyasint"` // lowest LogID
	Last    string  `cbor:"3,keyasint"` // highest LogID
	Logs    uint64  `cbor:"4,keyasint"`
	Entries uint64  `cbor:"5,keyasint"`
	Bytes   uint64  `cbor:"6,keyasint"` // payload and header bytes, uncompressed
	MinSeq  uint64  `cbor:"7,keyasint"`
	MaxSeq  uint64  `cbor:"8,keyasint"`
	MinTime int64   `cbor:"9,keyasint"`  // Unix nanoseconds
	MaxTime int64   `cbor:"10,keyasint"` // Unix nanoseconds
	// Refused are LogIDs of which the object has entries that are not part of the archive, ascending. What is said above
	// leaves them out. Only a fresh segment has any.
	Refused []string `cbor:"11,keyasint,omitempty"`
	// Cut is the manifest record of the newest cut that the segment was written under: it has nothing of that and of those
	// before. 0 for one that was never merged, or under no cut.
	Cut uint64 `cbor:"12,keyasint,omitempty"`
}

// Summarize sums up extents of an object, which are ascending by log and not empty.
func Summarize(object Segment, extents []Extent) Summary {
	s := Summary{Object: object, First: extents[0].Log, MinSeq: extents[0].First, MinTime: extents[0].MinTime,
		MaxTime: extents[0].MaxTime}
	for _, e := range extents {
		s.Add(e)
	}
	return s
}

// Add adds the extent of the next log.
func (s *Summary) Add(e Extent) {
	s.Last = e.Log
	s.Logs++
	s.Entries += e.Count
	s.Bytes += e.Bytes
	s.MinSeq, s.MaxSeq = min(s.MinSeq, e.First), max(s.MaxSeq, e.Last)
	s.MinTime, s.MaxTime = min(s.MinTime, e.MinTime), max(s.MaxTime, e.MaxTime)
}

// Validate reports which part of the invariant does not hold.
func (s Summary) Validate() error {
	switch {
	case s.Object.Key == "" || s.Object.Size == 0:
		return fmt.Errorf("%w: segment %q of %d bytes", ErrInvalid, s.Object.Key, s.Object.Size)
	case s.First == "" || s.First > s.Last || s.Logs == 0 || s.Logs > s.Entries:
		return fmt.Errorf("%w: segment %s has %d logs from %q to %q with %d entries", ErrInvalid, s.Object.Key, s.Logs,
			s.First, s.Last, s.Entries)
	case s.MinSeq == 0 || s.MinSeq > s.MaxSeq || s.MinTime > s.MaxTime:
		return fmt.Errorf("%w: segment %s runs from %d to %d, times %d to %d", ErrInvalid, s.Object.Key, s.MinSeq, s.MaxSeq,
			s.MinTime, s.MaxTime)
	case !slices.IsSorted(s.Refused):
		return fmt.Errorf("%w: segment %s: refused logs out of order", ErrInvalid, s.Object.Key)
	}
	return nil
}

// MayHold reports whether the segment can have entries of a log.
func (s Summary) MayHold(log string) bool {
	_, refused := slices.BinarySearch(s.Refused, log)
	return s.First <= log && log <= s.Last && !refused
}

// Overlaps reports whether the segment can have entries of a log that is not below from and, unless to is empty, below
// to.
func (s Summary) Overlaps(from, to string) bool { return s.Last >= from && (to == "" || s.First < to) }

// Total is what segments add up to, which a merge does not change.
type Total struct {
	Entries, Bytes, MinSeq, MaxSeq uint64
	MinTime, MaxTime               int64 // Unix nanoseconds
}

// TotalOf adds segments up.
func TotalOf(segments []Summary) (t Total) {
	for i, s := range segments {
		if i == 0 {
			t = Total{MinSeq: s.MinSeq, MinTime: s.MinTime, MaxTime: s.MaxTime}
		}
		t.Entries += s.Entries
		t.Bytes += s.Bytes
		t.MinSeq, t.MaxSeq = min(t.MinSeq, s.MinSeq), max(t.MaxSeq, s.MaxSeq)
		t.MinTime, t.MaxTime = min(t.MinTime, s.MinTime), max(t.MaxTime, s.MaxTime)
	}
	return t
}

// Size is how much some entries are.
type Size struct {
	Entries uint64 `cbor:"1,keyasint"`
	Bytes   uint64 `cbor:"2,keyasint"` // payload and header bytes
}

// Without reports whether t may be another Total of which something was left out.
func (t Total) Without(left Size, of Total) bool {
	return t.Entries+left.Entries == of.Entries && t.Bytes+left.Bytes == of.Bytes &&
		(t.Entries == 0 ||
			t.MinSeq >= of.MinSeq && t.MaxSeq <= of.MaxSeq && t.MinTime >= of.MinTime && t.MaxTime <= of.MaxTime)
}

// Piece is a live segment that can have entries of a log, as a read is told of it.
type Piece struct {
	Segment Summary `cbor:"1,keyasint"`
	Newest  uint64  `cbor:"2,keyasint"`           // manifest record that committed the newest of the segment's run
	Level   uint8   `cbor:"3,keyasint,omitempty"` // of its run: 0 is fresh
}
