package logid

import (
	"errors"
	"fmt"
)

// Kinds of mistakes, as labels of metrics.
const (
	faultEmpty     = "empty"          // nothing, or an empty token
	faultLong      = "too_long"       // above MaxBytes
	faultWildcard  = "wildcard"       // a token * or >
	faultToken     = "no_log_token"   // a tenant only
	faultCharacter = "bad_character"  // white space, a control character, not UTF-8
	faultPrefix    = "outside_prefix" // a subject of somebody else
	faultOther     = "other"          // no error of this package
)

// Faults are the kinds of mistakes that FaultOf tells apart.
func Faults() []string {
	return []string{faultEmpty, faultLong, faultWildcard, faultToken, faultCharacter, faultPrefix, faultOther}
}

// FaultOf returns the kind of mistake that an error of this package is about, "other" for other errors.
func FaultOf(err error) string {
	var bad invalid
	if errors.As(err, &bad) {
		return bad.fault
	}
	return faultOther
}

type invalid struct {
	fault string
	error
}

func (e invalid) Unwrap() error { return e.error }

func fault(kind, format string, args ...any) error {
	return invalid{kind, fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))}
}
