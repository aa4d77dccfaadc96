package rejected

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"dormouse/internal/golden"
)

// TestGoldenRejections: what is put aside has the same headers whichever version did it, and it is known again where it
// was. A message whose headers can be told has them, and one whose headers cannot has their block; a large one comes in
// parts.
func TestGoldenRejections(t *testing.T) {
	plain := Message{Stream: "LOGS", Subject: "logs.acme", Seq: 1<<40 + 7,
		Time:    time.Date(2026, 11, 26, 12, 0, 0, 123456789, time.UTC),
		Headers: map[string][]string{"Trace": {"1", "2"}, "Nats-Msg-Id": {"a"}, "Dormouse-Part": {"1/1"}},
		Data:    []byte("no log token")}
	block, large := plain, plain
	block.Headers, block.Block = nil, []byte("NATS/1.0 503 no\r\nA: 1\r\n\r\n")
	large.Data = bytes.Repeat([]byte("0123456789abcdef"), 100)
	for name, m := range map[string]Message{"plain": plain, "block": block, "parts": large} {
		var today []byte
		for _, msg := range m.Publications("dormouse.rejected.0", "want tenant.log", 1400) {
			var names []string
			for header := range msg.Header {
				names = append(names, header)
			}
			slices.Sort(names)
			today = fmt.Appendf(today, "%s\n", msg.Subject)
			for _, header := range names {
				today = fmt.Appendf(today, "%s: %q\n", header, msg.Header[header])
			}
			today = append(append(today, '\n'), msg.Data...)
			today = append(today, '\n')

			onTheWire := []byte("NATS/1.0\r\n")
			for _, header := range names {
				onTheWire = fmt.Appendf(onTheWire, "%s: %s\r\n", header, msg.Header[header][0])
			}
			seq, at, err := Origin(append(onTheWire, '\r', '\n'))
			if err != nil || seq != m.Seq || !at.Equal(m.Time) {
				t.Errorf("%s: it was %d of %s, %v", name, seq, at, err)
			}
		}
		golden.Bytes(t, name, today)
	}
}
