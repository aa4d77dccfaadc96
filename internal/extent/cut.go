package extent

import (
	"fmt"
	"slices"
	"strings"
)

// Cut says that entries are deleted, wherever they show up: reads leave them out at once, and merges for good. What is
// published later is not cut, so that a log can begin again.
//
// Invariant: Logs is not empty, UpTo is above 0.
type Cut struct {
	Logs   string `cbor:"1,keyasint"`           // a LogID, in which a token * stands for any one, and > for the rest
	UpTo   uint64 `cbor:"2,keyasint"`           // source sequence: entries above it are not cut
	Before int64  `cbor:"3,keyasint,omitempty"` // unless 0, only earlier entries are cut, Unix nanoseconds
	ID     string `cbor:"4,keyasint,omitempty"` // of the request: one that is asked for again is the same
	Made   int64  `cbor:"5,keyasint,omitempty"` // when, by the owner's clock, Unix nanoseconds
	By     string `cbor:"6,keyasint,omitempty"` // who asked for it, as they say
	Record uint64 `cbor:"7,keyasint,omitempty"` // manifest record that made it; 0 in that itself
	// Kept: what a policy does not keep any longer. A newer one for the same logs takes its place.
	Kept bool `cbor:"8,keyasint,omitempty"`
	// Lazy: no segment is written anew for it alone.
	Lazy bool `cbor:"9,keyasint,omitempty"`
	// Last is, of a lazy one, the Before of the last that was not.
	Last   int64    `cbor:"11,keyasint,omitempty"`
	Except []string `cbor:"10,keyasint,omitempty"` // not these logs, likewise
}

// Validate reports which part of the invariant does not hold.
func (c Cut) Validate() error {
	if c.Logs == "" || c.UpTo == 0 {
		return fmt.Errorf("%w: a cut of %q up to %d", ErrInvalid, c.Logs, c.UpTo)
	}
	if n := c.Size(); n > MaxCutBytes {
		return fmt.Errorf("%w: a cut of %q of %d bytes, with %d exceptions", ErrInvalid, c.Logs, n, len(c.Except))
	}
	return nil
}

// MaxCutBytes bounds a cut, so that it fits into any message that names some.
const MaxCutBytes = 16 << 10

// Size returns about how many bytes the cut takes at most, in memory and in messages.
func (c Cut) Size() int {
	n := 64 + len(c.Logs) + len(c.ID) + len(c.By)
	for _, pattern := range c.Except {
		n += len(pattern) + 3
	}
	return n
}

// Range returns the LogIDs that the cut covers: from the first one on and, unless to is empty, below to.
func (c Cut) Range() (from, to string) {
	literal, isLiteral := literalOf(c.Logs)
	switch {
	case literal == "":
		return "", ""
	case isLiteral:
		return literal, literal + "\x00"
	}
	return literal, strings.TrimSuffix(literal, ".") + "/" // the character after the dot
}

// literalOf returns what a pattern begins with before its first wildcard, and whether it has none.
func literalOf(pattern string) (literal string, all bool) {
	for rest := pattern; ; {
		token, after, more := strings.Cut(rest, ".")
		if token == "*" || token == ">" && !more {
			return pattern[:len(pattern)-len(rest)], false
		}
		if !more {
			return pattern, true
		}
		rest = after
	}
}

// Covers reports whether entries of a log may be cut.
func (c Cut) Covers(log string) bool {
	from, to := c.Range()
	return log >= from && (to == "" || log < to) && Matches(c.Logs, log) &&
		!slices.ContainsFunc(c.Except, func(pattern string) bool { return Matches(pattern, log) })
}

// Matches reports whether a pattern stands for a log: token by token, * for any one of them, and > at the end for one
// or more.
func Matches(pattern, log string) bool {
	for {
		want, wantMore, more := strings.Cut(pattern, ".")
		if want == ">" && !more {
			return log != ""
		}
		have, haveMore, moreLog := strings.Cut(log, ".")
		if want != have && want != "*" || more != moreLog {
			return false
		}
		if !more {
			return true
		}
		pattern, log = wantMore, haveMore
	}
}

// isRange reports whether the cut covers all logs of its range.
func (c Cut) isRange() bool {
	literal, all := literalOf(c.Logs)
	return len(c.Except) == 0 && (all || c.Logs == literal+">")
}

// Has reports whether an entry of a log that is covered is cut, by its sequence and its time in Unix nanoseconds.
func (c Cut) Has(seq uint64, at int64) bool { return seq <= c.UpTo && (c.Before == 0 || at < c.Before) }

// MayTouch reports whether the cut may leave something out of what a segment is said to have.
func (c Cut) MayTouch(s Summary) bool {
	from, to := c.Range()
	return s.Overlaps(from, to) && c.Has(s.MinSeq, s.MinTime)
}

// Whole reports whether all that a segment has is cut.
func (c Cut) Whole(s Summary) bool {
	return (c.isRange() || s.First == s.Last) && c.Covers(s.First) && c.Covers(s.Last) && c.Has(s.MaxSeq, s.MaxTime)
}

// Cuts are those of a shard, in the order of their records.
type Cuts []Cut

// Of returns as few cuts as say what is cut of a log, with nothing in them but that.
func (c Cuts) Of(log string) (few Cuts) {
	for _, one := range c {
		if !one.Covers(log) || slices.ContainsFunc(few, one.within) {
			continue
		}
		few = slices.DeleteFunc(few, func(before Cut) bool { return before.within(one) })
		few = append(few, Cut{Logs: log, UpTo: one.UpTo, Before: one.Before})
	}
	return few
}

// Between returns what is cut of logs that are not below from and, unless to is empty, below to, with nothing in it but
// that.
func (c Cuts) Between(from, to string) (some Cuts) {
	for _, one := range c {
		if least, above := one.Range(); (above == "" || from < above) && (to == "" || least < to) {
			some = append(some, Cut{Logs: one.Logs, UpTo: one.UpTo, Before: one.Before, Except: one.Except})
		}
	}
	return some
}

// within reports whether all that the cut has of a log is cut by another one of the same log.
func (c Cut) within(other Cut) bool {
	return c.UpTo <= other.UpTo && (other.Before == 0 || c.Before != 0 && c.Before <= other.Before)
}

// Have reports whether an entry is cut.
func (c Cuts) Have(log string, seq uint64, at int64) bool {
	for _, one := range c {
		if one.Has(seq, at) && one.Covers(log) {
			return true
		}
	}
	return false
}

// Split says what the cuts leave of an extent: all of it, nothing, or a part that only its entries tell.
func (c Cuts) Split(e Extent) (whole, none bool) {
	whole = true
	for _, one := range c {
		switch {
		case !one.Covers(e.Log) || !one.Has(e.First, e.MinTime):
		case one.Has(e.Last, e.MaxTime):
			return false, true
		default:
			whole = false
		}
	}
	return whole, false
}
