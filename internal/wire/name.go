package wire

import (
	"strings"
	"unicode"
)

const (
	shortID  = 8  // bytes of an ID that tell processes apart
	mostHost = 64 // bytes of a host's name that are shown
)

// ProcessName is what a process is called wherever people read of it, in logs, leases and `dormouse status`: its host,
// if that is known, and the beginning of its ID, as in web-1/3fa9c2d1. Both may come from outside; what cannot be
// printed is shown as ?.
func ProcessName(host, id string) string {
	id = id[:min(len(id), shortID)]
	if host = host[:min(len(host), mostHost)]; host == "" {
		return Printable(id)
	}
	return Printable(host + "/" + id)
}

// Printable is a text from outside as it may be shown on a terminal.
func Printable(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
}
