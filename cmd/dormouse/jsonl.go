package main

import (
	"encoding/base64"
	"encoding/json"
	"time"
	"unicode/utf8"

	"dormouse/internal/entry"
)

// line is the jsonl form of an entry. JSON is UTF-8; what is not is encoded, and marked, so that nothing of it is lost.
type line struct {
	Log     string              `json:"log"`
	Seq     uint64              `json:"seq"`
	Time    time.Time           `json:"time"`
	Headers map[string][]string `json:"headers"`
	// HeadersBase64 are those headers of which the name or a value is not UTF-8: names and values in base64.
	HeadersBase64 map[string][]string `json:"headers_base64,omitempty"`
	Data          string              `json:"data"`
	Encoding      string              `json:"encoding,omitempty"` // of Data, "base64" or none
}

func lineOf(e entry.Entry) line {
	l := line{Log: e.Log, Seq: e.Seq, Time: e.Time, Headers: make(map[string][]string), Data: string(e.Data)}
	for name, values := range e.Headers {
		if isText(name, values) {
			l.Headers[name] = values
			continue
		}
		if l.HeadersBase64 == nil {
			l.HeadersBase64 = make(map[string][]string)
		}
		encoded := make([]string, 0, len(values))
		for _, value := range values {
			encoded = append(encoded, base64.StdEncoding.EncodeToString([]byte(value)))
		}
		l.HeadersBase64[base64.StdEncoding.EncodeToString([]byte(name))] = encoded
	}
	if !utf8.Valid(e.Data) {
		l.Data, l.Encoding = base64.StdEncoding.EncodeToString(e.Data), "base64"
	}
	return l
}

func isText(name string, values []string) bool {
	for _, value := range values {
		if !utf8.ValidString(value) {
			return false
		}
	}
	return utf8.ValidString(name)
}

func (p *printer) jsonl(e entry.Entry) error {
	enc := json.NewEncoder(p.out)
	enc.SetEscapeHTML(false)
	return enc.Encode(lineOf(e))
}
