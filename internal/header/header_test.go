package header

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
)

// blocks are header blocks as publishers may send them, and what is in them; nil is a malformed one.
var blocks = []struct {
	block string
	want  map[string][]string
}{
	{"NATS/1.0\r\n\r\n", map[string][]string{}},
	{"NATS/1.0\r\nA: 1\r\nB: 2\r\nA: 3\r\na: 4\r\n\r\n", map[string][]string{"A": {"1", "3"}, "B": {"2"}, "a": {"4"}}},
	{"NATS/1.0\r\nA:1\r\nB:2\r\n\r\n", map[string][]string{"A": {"1"}, "B": {"2"}}},
	{"NATS/1.0\nA: 1\n\n", map[string][]string{"A": {"1"}}},
	{"NATS/1.0\r\nA: \t 1 \t\r\nB:\r\nC: \r\n\r\n", map[string][]string{"A": {"1 \t"}, "B": {""}, "C": {""}}},
	{"NATS/1.0\r\nA: J\xf6rg\r\n\xff: \x00\r\r\n b c: :\r\n\r\n",
		map[string][]string{"A": {"J\xf6rg"}, "\xff": {"\x00\r"}, " b c": {":"}}},
	{"NATS/1.0 404 Not  Found \r\nA: 1\r\n\r\n", map[string][]string{"A": {"1"}, "Status": {"404"},
		"Description": {"Not  Found"}}},
	{"NATS/1.0  503\r\n\r\n", map[string][]string{"Status": {"503"}}},
	{"NATS/1.0\r\nStatus: 404\r\nDescription: x\r\n\r\n", map[string][]string{"Status": {"404"}, "Description": {"x"}}},

	{"", nil},
	{"\r\n\r\n", nil},
	{"NATS/1.0", nil},
	{"NATS/1.0\r\n", nil},
	{"HTTP/1.1\r\nA: 1\r\n\r\n", nil},
	{"nats/1.0\r\nA: 1\r\n\r\n", nil},
	{"NATS/1.0\r\nA: 1\r\n", nil},
	{"NATS/1.0\r\nA: 1\r\n\r", nil},
	{"NATS/1.0\r\nno colon\r\nA: 1\r\n\r\n", nil},
	{"NATS/1.0\r\nA: 1\r\n continued\r\n\r\n", nil},
	{"NATS/1.0\r\n: 1\r\n\r\n", nil},
	{"NATS/1.0\r\nA: 1\r\n\r\nNATS/1.0\r\nB: 2\r\n\r\n", nil},
	{"NATS/1.0\r\n\r\n ", nil},
	{"NATS/1.0 \r\n\r\n", nil},
	{"NATS/1.0 4\r\n\r\n", nil},
	{"NATS/1.0404\r\n\r\n", nil},
	{"NATS/1.0 4045\r\n\r\n", nil},
	{"NATS/1.0 404 x\u00a0\r\n\r\n", nil},
	{"NATS/1.0 404\r\nStatus: 200\r\n\r\n", nil},
	{"NATS/1.0 404\r\nDescription: mine\r\n\r\n", nil},
}

func TestParse(t *testing.T) {
	for _, tc := range blocks {
		got, err := Parse([]byte(tc.block))
		if tc.want == nil && !errors.Is(err, ErrMalformed) || tc.want != nil &&
			(err != nil || !reflect.DeepEqual(got, tc.want)) {
			t.Errorf("%q: %q, %v, want %q", tc.block, got, err, tc.want)
		}
		read, err := nats.DecodeHeadersMsg([]byte(tc.block))
		if err != nil {
			read = nil
		}
		if tc.want == nil && Fits(len(tc.block), read) && tc.block != "" {
			t.Errorf("%q: %q is taken for all of it", tc.block, read)
		}
	}
}

// TestFits: blocks as clients write them need no second look.
func TestFits(t *testing.T) {
	for _, block := range []string{
		"", "NATS/1.0\r\n\r\n", "NATS/1.0\r\nA: 1\r\nA: \r\nb: J\xf6rg\r\n\r\n", "NATS/1.0\r\nA:1\r\nA:\r\n\r\n",
		"NATS/1.0\r\nStatus: 404\r\n\r\n",
	} {
		read, err := nats.DecodeHeadersMsg([]byte(block))
		if !Fits(len(block), read) {
			t.Errorf("%q, read as %q (%v), is to be fetched", block, read, err)
		}
	}
}

// FuzzParse: what is accepted is what the client library reads, and what it reads of a block that fits is the
// publisher's.
func FuzzParse(f *testing.F) {
	for _, tc := range blocks {
		f.Add([]byte(tc.block))
	}
	f.Fuzz(func(t *testing.T, block []byte) {
		got, err := Parse(block)
		read, rerr := nats.DecodeHeadersMsg(block)
		if err == nil && (rerr != nil || len(got)+len(read) > 0 && !reflect.DeepEqual(got, map[string][]string(read))) {
			t.Fatalf("%q: parsed %q, the library reads %q, %v", block, got, read, rerr)
		}
		if err != nil && !errors.Is(err, ErrMalformed) {
			t.Fatalf("%q: %v", block, err)
		}
		if rerr != nil && len(block) > 0 && Fits(len(block), nil) {
			t.Fatalf("%q: the library reads nothing of it, and it is taken for all", block)
		}
		if !Sendable(got) || err != nil {
			return
		}
		var again strings.Builder
		again.WriteString(version + lineEnd)
		for name, values := range got {
			for _, value := range values {
				again.WriteString(name + ": " + value + lineEnd)
			}
		}
		again.WriteString(lineEnd)
		back, err := Parse([]byte(again.String()))
		if err != nil || !reflect.DeepEqual(back, got) || !Fits(again.Len(), back) {
			t.Fatalf("%q: %q is written as %q, which is %q, %v", block, got, again.String(), back, err)
		}
	})
}
