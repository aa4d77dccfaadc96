package rejected

import (
	"bytes"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"dormouse/internal/entry"
)

const maxPayload = 1 << 20

// back returns a message as its publications have it: its header block if that is kept, else its headers, and its
// payload.
func back(t *testing.T, all []*nats.Msg) (block []byte, headers map[string][]string, data []byte) {
	t.Helper()
	for _, msg := range all {
		if size := msg.Size() - len(msg.Subject); size > maxPayload {
			t.Errorf("a part has %d bytes", size)
		}
		data = append(data, msg.Data...)
	}
	first := all[0].Header
	if n, err := strconv.Atoi(first.Get(Block)); err == nil {
		return data[:n], nil, data[n:]
	}
	if first.Get(Part) != "" {
		v, err := entry.DecodeValue(data)
		if err != nil {
			t.Fatal(err)
		}
		return nil, v.Headers, v.Data
	}
	headers = make(map[string][]string)
	for name, values := range first {
		switch plain, renamed := strings.CutPrefix(name, Original); {
		case renamed:
			headers[plain] = values
		case !strings.HasPrefix(name, "Dormouse-") && name != nats.MsgIdHdr && name != "Status":
			headers[name] = values
		}
	}
	return nil, headers, data
}

// TestPublications: whatever a message has, it is kept whole, and says what Dormouse says of it and not its publisher.
func TestPublications(t *testing.T) {
	large := bytes.Repeat([]byte("x"), maxPayload)
	for name, m := range map[string]Message{
		"no headers": {Data: []byte("data")},
		"headers":    {Headers: map[string][]string{"A": {"1", "", "3"}, "a": {"J\xf6rg"}}, Data: []byte("data")},
		"ours": {Headers: map[string][]string{Reason: {"mine"}, "dormouse-reason": {"mine"}, Sequence: {"1"}, Block: {"9"},
			Part: {"1/1"}, Original + "A": {"1"}, "A": {"2"}}},
		"the clients'": {Headers: map[string][]string{"Status": {"404"}, "Description": {"x"}}},
		"the server's": {Headers: map[string][]string{"Nats-Msg-Id": {"id"}, "nats-ttl": {"1s"}, "Nats-Rollup": {"all"},
			"Nats-Expected-Last-Sequence": {"0"}, "Nats-Schedule": {"@every 1s"}}},
		"no token":          {Headers: map[string][]string{"a b": {"1"}, "\xff": {"2"}}},
		"white space":       {Headers: map[string][]string{"A": {"1 "}}},
		"carriage return":   {Headers: map[string][]string{"A": {"1\r2"}}},
		"large":             {Headers: map[string][]string{"A": {"1"}}, Data: large},
		"large header":      {Headers: map[string][]string{"A": {strings.Repeat("h", 65_500)}}},
		"block":             {Block: []byte("NATS/1.0\r\nno colon\r\n\r\n"), Data: []byte("data")},
		"block and nothing": {Block: []byte("NATS/1.0\r\nno colon\r\n\r\n")},
		"large block":       {Block: bytes.Repeat([]byte("b"), 65_535), Data: large[65_535:]},
	} {
		m.Stream, m.Subject, m.Seq, m.Time = "LOGS", "logs."+strings.Repeat("s", 4000), 7, time.Unix(1, 5).UTC()
		all := m.Publications("dormouse.rejected.0", strings.Repeat("r", 9000), maxPayload)
		block, headers, data := back(t, all)
		if !bytes.Equal(block, m.Block) || len(headers)+len(m.Headers) > 0 && !reflect.DeepEqual(headers, m.Headers) ||
			!bytes.Equal(data, m.Data) {
			t.Errorf("%s: came back as %.40q, %.200q and %d bytes", name, block, headers, len(data))
		}
		ids := make(map[string]bool)
		for _, msg := range all {
			ids[msg.Header.Get(nats.MsgIdHdr)] = true
			if got := msg.Header[Sequence]; !reflect.DeepEqual(got, []string{"7"}) || len(msg.Header[Reason]) != 1 ||
				msg.Header.Get(Subject) != m.Subject {
				t.Errorf("%s: it says it was %q, for %q", name, got, msg.Header[Reason])
			}
		}
		if len(ids) != len(all) {
			t.Errorf("%s: %d parts have %d ids", name, len(all), len(ids))
		}
	}
}

// TestID: a sequence that is used again, or another reason to put a message aside, makes another id.
func TestID(t *testing.T) {
	at := func(seq uint64, nanos int64, what string) string {
		return Message{Stream: "LOGS", Seq: seq, Time: time.Unix(0, nanos)}.ID(what)
	}
	seen := make(map[string]bool)
	for _, id := range []string{at(1, 1, ""), at(1, 1, "1"), at(1, 1, "again"), at(1, 2, "again"), at(2, 1, "again"),
		at(12, 1, "1"), at(1, 21, "1")} {
		if seen[id] {
			t.Errorf("two messages have the id %s", id)
		}
		seen[id] = true
	}
	if again := at(1, 1, "again"); !seen[again] {
		t.Error("the same message gets two ids")
	}
}
