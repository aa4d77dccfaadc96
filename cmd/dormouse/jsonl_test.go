package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"dormouse/internal/entry"
	"dormouse/internal/header"
)

// unmarshalled is what a line of jsonl says of an entry.
func unmarshalled(t *testing.T, text []byte) (headers map[string][]string, data string) {
	t.Helper()
	var l line
	if err := json.Unmarshal(text, &l); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	plain := func(s string) string {
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		return string(b)
	}
	headers = l.Headers
	for name, values := range l.HeadersBase64 {
		if headers[plain(name)] != nil {
			t.Errorf("%q: %q is there twice", text, plain(name))
		}
		for _, value := range values {
			headers[plain(name)] = append(headers[plain(name)], plain(value))
		}
	}
	if l.Encoding != "" {
		l.Data = plain(l.Data)
	}
	return headers, l.Data
}

// TestHeadersThatAreNotUTF8 are told apart, and marked.
func TestHeadersThatAreNotUTF8(t *testing.T) {
	for _, headers := range []map[string][]string{
		{"Name": {"J\xf6rg"}}, {"Name": {"J\xe4rg"}}, {"Name": {"Jörg", "\xff"}},
		{"\xff": {"x"}, "\xfe": {"x"}, "A": {"text", ""}}, {"A": {"\ufffd"}},
	} {
		text := printed(t, "jsonl", entry.Entry{Log: "a.b", Seq: 7, Time: time.Unix(0, 5), Headers: headers})
		if got, _ := unmarshalled(t, []byte(text)); !reflect.DeepEqual(got, headers) {
			t.Errorf("%q is printed as %s", headers, text)
		}
	}
	got := printed(t, "jsonl", entry.Entry{Log: "a.b", Seq: 7, Time: time.Unix(0, 0).UTC(),
		Headers: map[string][]string{"A": {"1"}, "B": {"\xff"}}})
	if want := `{"log":"a.b","seq":7,"time":"1970-01-01T00:00:00Z","headers":{"A":["1"]},"headers_base64":{"Qg==":["/w=="]},"data":""}` + "\n"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// FuzzHeadersFromWireToJSONL: names and values go from a header block through the archive into jsonl and back
// unchanged.
func FuzzHeadersFromWireToJSONL(f *testing.F) {
	for _, block := range []string{
		"", "NATS/1.0\r\n\r\n", "NATS/1.0\r\nA: 1\r\na:2\r\nA: \xff\r\n\r\n", "NATS/1.0\r\n\xff: x\r\nB: \u2028<&>\r\n\r\n",
		"NATS/1.0\nA:   1\n\n", "NATS/1.0 404 x\r\nno colon\r\n\r\n",
		"NATS/1.0\r\nA:b\r\n\r\nx", "NATS/1.0\r\nA: \r\nA: \x00\r\r\n\r\n",
	} {
		f.Add([]byte(block), []byte("data\xff"))
	}
	f.Fuzz(func(t *testing.T, block, data []byte) {
		read, err := nats.DecodeHeadersMsg(block)
		if err != nil {
			read = nil
		}
		headers := map[string][]string(read)
		if !header.Fits(len(block), read) {
			if headers, err = header.Parse(block); err != nil {
				return // rejected, with the block
			}
		}
		value, err := entry.DecodeValue(entry.AppendValue(nil, time.Unix(1, 2), headers, data))
		if err != nil {
			t.Fatalf("%q: %v", block, err)
		}
		var out bytes.Buffer
		p := newPrinter(&out, "jsonl")
		e := entry.Entry{Log: "a.b", Seq: 7, Time: value.Time, Headers: value.Headers, Data: value.Data}
		if err := p.during(t.Context(), func(context.Context) error { return p.print(e) }); err != nil {
			t.Fatal(err)
		}
		got, payload := unmarshalled(t, out.Bytes())
		if len(got)+len(headers) > 0 && !reflect.DeepEqual(got, headers) || payload != string(data) {
			t.Fatalf("%q, %q became %s", block, data, out.Bytes())
		}
	})
}
