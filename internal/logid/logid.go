// Package logid knows what a LogID is: the name of one log, `<tenant>.<log...>`, taken from a NATS subject.
//
// It never talks to NATS; it only decides which subjects name a log and says why the others do not.
// Open wire next to see which subjects carry LogIDs.
package logid

import (
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxBytes is the longest LogID, in bytes. It bounds every key, work item and state that carries one.
const MaxBytes = 256

// ErrInvalid is wrapped by every error of this package.
var ErrInvalid = errors.New("not a LogID")

// Validate reports why s is not a LogID, or nil when it is one. A LogID has at least two tokens (the tenant, then the
// log) separated by dots; it is valid UTF-8 of at most MaxBytes bytes without white space, control characters or the
// wildcard tokens `*` and `>`.
func Validate(s string) error {
	switch {
	case s == "":
		return fault(faultEmpty, "it is empty")
	case len(s) > MaxBytes:
		return fault(faultLong, "%d bytes long, the limit is %d", len(s), MaxBytes)
	}
	if isPlain(s) {
		return nil
	}
	return validate(s)
}

// validate is Validate for whatever characters, and says what is wrong.
func validate(s string) error {
	tokens, start := 0, 0
	for i := 0; i <= len(s); i++ {
		if i < len(s) && s[i] != '.' {
			continue
		}
		switch s[start:i] {
		case "":
			return fault(faultEmpty, "%q has an empty token", s)
		case "*", ">":
			return fault(faultWildcard, "%q has a wildcard token", s)
		}
		tokens++
		start = i + 1
	}
	if tokens < 2 {
		return fault(faultToken, "%q has no log token, want <tenant>.<log>", s)
	}
	return validateRunes(s)
}

// isPlain reports whether s is a LogID of printable ASCII, as most are: with one look at each byte.
func isPlain(s string) bool {
	tokens, start := 1, 0
	for i := range len(s) {
		switch c := s[i]; {
		case c == '.':
			if !isToken(s[start:i]) {
				return false
			}
			tokens++
			start = i + 1
		case c <= ' ' || c >= 0x7f:
			return false
		}
	}
	return tokens >= 2 && isToken(s[start:])
}

func isToken(s string) bool { return s != "" && s != "*" && s != ">" }

func validateRunes(s string) error {
	for i, r := range s {
		if r == utf8.RuneError {
			if _, n := utf8.DecodeRuneInString(s[i:]); n == 1 {
				return fault(faultCharacter, "%q is not valid UTF-8", s)
			}
		}
		if unicode.IsSpace(r) || unicode.IsControl(r) {
			return fault(faultCharacter, "%q has white space or a control character", s)
		}
	}
	return nil
}

// FromSubject returns the LogID that subject names under prefix (for example "logs"). The result shares the memory of
// subject: clone it before keeping it. The error says why the subject is no log.
func FromSubject(prefix, subject string) (string, error) {
	rest, ok := strings.CutPrefix(subject, prefix)
	if !ok || !strings.HasPrefix(rest, ".") {
		return "", fault(faultPrefix, "subject %q is not below %q", subject, prefix+".")
	}
	id := rest[1:]
	return id, Validate(id)
}

// Tenant returns the first token of a valid LogID.
func Tenant(id string) string {
	tenant, _, _ := strings.Cut(id, ".")
	return tenant
}
