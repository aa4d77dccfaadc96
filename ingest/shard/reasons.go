package shard

import (
	"errors"

	"dormouse/internal/header"
	"dormouse/internal/logid"
)

// Reasons of rejected messages, besides the kinds of mistakes in a LogID.
const (
	headersReason = "headers" // are not names and values
	refusedReason = "refused" // an entry that had to be published again cannot be
	skippedReason = "skipped" // by an operator
)

// rejectReasons are all that the metric of rejected messages can have.
var rejectReasons = append(logid.Faults(), headersReason, refusedReason, skippedReason)

// reasonOf is the reason of a message that is no entry.
func reasonOf(err error) string {
	if errors.Is(err, header.ErrMalformed) {
		return headersReason
	}
	return logid.FaultOf(err)
}

// reasons counts the rejected messages of a batch by reason.
type reasons map[string]int

func (r *reasons) add(reason string, n int) {
	if n == 0 {
		return
	}
	if *r == nil {
		*r = make(reasons)
	}
	(*r)[reason] += n
}

// reject counts what was put aside.
func (m *Metrics) reject(all reasons) {
	for reason, n := range all {
		m.rejected.Add(float64(n))
		m.rejections.WithLabelValues(reason).Add(float64(n))
	}
}
