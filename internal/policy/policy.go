// Package policy knows what users may settle for many logs at once, by a pattern of their LogIDs: how long entries are
// kept, how long they may wait for the archive, and how much may wait.
//
// It is pure: it keeps and watches nothing. Pattern (pattern.go) says which logs a policy is for, Set (set.go) finds
// the policy of a log, encode.go has the form in which policies are kept. Open store/policies next for where they are.
package policy

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// Policy is what is settled for some logs. A setting that is 0 is not settled.
type Policy struct {
	Keep      time.Duration // entries that are older expire; Forever: they do not, whatever a wider pattern says
	KeepBytes uint64        // of a log; older entries beyond expire. Kept for later, nothing goes by it yet
	MaxDelay  time.Duration // arrival of a log's first entry to the log being due
	MaxBytes  uint64        // a log with this much buffered is ready at once
	Rate      uint64        // entries a second. Kept for later, nothing goes by it yet
}

// Forever is a Keep after which nothing expires. It is the longest duration, so that who compares ages with it needs no
// case of its own.
const Forever time.Duration = math.MaxInt64

const day = 24 * time.Hour

// Bounds of the settings, both ends included.
const (
	MinKeep     = time.Second
	MaxKeep     = 100 * 366 * day // but for Forever
	MinMaxDelay = 10 * time.Millisecond
	MaxMaxDelay = 31 * day // as --max-delay of serve: entries wait so long in the buffer, and in JetStream
	MaxSize     = 1 << 50  // bytes
	MaxRate     = 1 << 40
)

// ErrInvalid is wrapped by the errors of patterns and policies that are none.
var ErrInvalid = errors.New("invalid")

// Validate reports what is wrong with a policy, or nil.
func (p Policy) Validate() error {
	switch {
	case p == Policy{}:
		return fmt.Errorf("%w: the policy settles nothing", ErrInvalid)
	case p.Keep != 0 && p.Keep != Forever && (p.Keep < MinKeep || p.Keep > MaxKeep):
		return fmt.Errorf("%w: keep is %s, want %s to %s, or forever", ErrInvalid, FormatDuration(p.Keep),
			FormatDuration(MinKeep), FormatDuration(MaxKeep))
	case p.MaxDelay != 0 && (p.MaxDelay < MinMaxDelay || p.MaxDelay > MaxMaxDelay):
		return fmt.Errorf("%w: max-delay is %s, want %s to %s: entries wait so long in the buffer, and in JetStream",
			ErrInvalid, FormatDuration(p.MaxDelay), FormatDuration(MinMaxDelay), FormatDuration(MaxMaxDelay))
	case p.KeepBytes > MaxSize, p.MaxBytes > MaxSize:
		return fmt.Errorf("%w: keep-bytes is %d and max-bytes %d, want at most %d", ErrInvalid, p.KeepBytes, p.MaxBytes,
			uint64(MaxSize))
	case p.Rate > MaxRate:
		return fmt.Errorf("%w: rate is %d entries a second, want at most %d", ErrInvalid, p.Rate, uint64(MaxRate))
	}
	return nil
}

// settings are some of the settings of a Policy, a bit each.
type settings uint8

const (
	keep settings = 1 << iota
	keepBytes
	maxDelay
	maxBytes
	rate
)

// settles returns which settings a policy has.
func (p *Policy) settles() (s settings) {
	if p.Keep != 0 {
		s |= keep
	}
	if p.KeepBytes != 0 {
		s |= keepBytes
	}
	if p.MaxDelay != 0 {
		s |= maxDelay
	}
	if p.MaxBytes != 0 {
		s |= maxBytes
	}
	if p.Rate != 0 {
		s |= rate
	}
	return s
}

// take fills in the settings which are missing and which q has. It returns what is still missing.
func (p *Policy) take(q *Policy, missing settings) settings {
	if missing&keep != 0 {
		p.Keep = q.Keep
	}
	if missing&keepBytes != 0 {
		p.KeepBytes = q.KeepBytes
	}
	if missing&maxDelay != 0 {
		p.MaxDelay = q.MaxDelay
	}
	if missing&maxBytes != 0 {
		p.MaxBytes = q.MaxBytes
	}
	if missing&rate != 0 {
		p.Rate = q.Rate
	}
	return missing &^ q.settles()
}
