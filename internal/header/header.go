// Package header knows the header block in front of a message's payload, as it is on the wire:
//
//	NATS/1.0\r\n  Name: value\r\n  ...  \r\n
//
// The server stores whatever bytes a publisher sends as such a block, and the client library hands over what it could
// make of them: nothing at all when a line has no colon, less than there is when there are bytes behind the block's
// end. This package tells when that is so. It asks nobody; open internal/streamreader next for where messages come
// from.
package header

import (
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
)

// ErrMalformed is wrapped by the errors of blocks that are more, or less, than names and values. The message is to be
// put aside with the whole block.
var ErrMalformed = errors.New("its header block is not one of names and values")

const (
	version     = "NATS/1.0"
	lineEnd     = "\r\n"
	status      = "Status"      // the name under which every client shows the status on the first line
	description = "Description" // and the text behind it
	statusBytes = 3
)

// Fits reports whether a block of so many bytes has room for nothing but these headers, if it is written as usual or,
// as by the Java client, without a space behind the colons. Of other blocks it does not know; those are to be fetched
// and parsed.
//
// Names and values that the library has are always the publisher's, whole and unchanged. So all that a block could hide
// by lines of just the right lengths is what is neither: a line without a name, or bytes behind the end.
func Fits(block int, headers nats.Header) bool {
	if block == 0 || headers == nil { // nil: the library could make nothing of it
		return block == 0
	}
	usual, pairs := len(version+lineEnd+lineEnd), 0
	for name, values := range headers {
		for _, value := range values {
			usual += len(name) + len(": ") + len(value) + len(lineEnd)
			pairs++
		}
	}
	return block == usual || block == usual-pairs
}

// Parse returns the names and values of a block as the client library has them, if that is all there is in it: neither
// white space in front of a value nor the kind of a line's end are part of either. A status on the first line becomes
// the headers Status and Description, as in every client. Errors wrap ErrMalformed.
func Parse(block []byte) (map[string][]string, error) {
	first, rest, ok := nextLine(string(block))
	if !ok || !strings.HasPrefix(first, version) {
		return nil, fmt.Errorf("%w: it begins with %.40q", ErrMalformed, first)
	}
	headers := make(map[string][]string)
	for {
		line, behind, ok := nextLine(rest)
		if !ok {
			return nil, fmt.Errorf("%w: it has no end", ErrMalformed)
		}
		rest = behind
		if line == "" {
			break
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || name == "" {
			return nil, fmt.Errorf("%w: the line %.40q has no name", ErrMalformed, line)
		}
		headers[name] = append(headers[name], strings.TrimLeft(value, " \t"))
	}
	if rest != "" {
		return nil, fmt.Errorf("%w: %d bytes behind its end", ErrMalformed, len(rest))
	}
	return headers, addStatus(headers, first[len(version):])
}

// nextLine cuts a line off, and its end.
func nextLine(s string) (line, rest string, ok bool) {
	line, rest, ok = strings.Cut(s, "\n")
	return strings.TrimSuffix(line, "\r"), rest, ok
}

// addStatus adds what follows the version on the first line, " 404 text".
func addStatus(headers map[string][]string, text string) error {
	if text == "" {
		return nil
	}
	malformed := fmt.Errorf("%w: it begins with %s%.40q", ErrMalformed, version, text)
	if headers[status] != nil || headers[description] != nil { // which of them is the publisher's could not be told
		return malformed
	}
	code, about, _ := strings.Cut(strings.Trim(text, " \t"), " ")
	about = strings.Trim(about, " \t")
	trimmed := code == strings.TrimSpace(code) && about == strings.TrimSpace(about)
	if text[0] != ' ' || len(code) != statusBytes || !trimmed {
		return malformed
	}
	headers[status] = []string{code}
	if about != "" {
		headers[description] = []string{about}
	}
	return nil
}

// Sendable reports whether the client library sends these headers, and sends them as they are: it refuses names that
// are no token (RFC 9110), and trims and mends values.
func Sendable(headers map[string][]string) bool {
	for name, values := range headers {
		if name == "" || strings.ContainsFunc(name, notInToken) {
			return false
		}
		for _, value := range values {
			if strings.ContainsAny(value, "\r\n") || value != strings.Trim(value, " \t") {
				return false
			}
		}
	}
	return true
}

func notInToken(r rune) bool {
	return r <= ' ' || r > '~' || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
}

// ForServer reports whether a name can have a meaning to the server.
func ForServer(name string) bool { return hasPrefix(name, "nats-") }

// ForClients reports whether a name has a meaning to client libraries: they take an empty message with a status for the
// server's own word, and do not show it.
func ForClients(name string) bool { return name == status || name == description }

// ForDormouse reports whether a name can have a meaning to Dormouse.
func ForDormouse(name string) bool { return hasPrefix(name, "dormouse-") }

func hasPrefix(name, prefix string) bool {
	return len(name) >= len(prefix) && strings.EqualFold(name[:len(prefix)], prefix)
}
