package hostile

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// publication is one message as a hostile publisher sends it.
type publication struct {
	subject string
	block   []byte // the header block, nil for none
	payload []byte
}

// generator makes publications; a seed determines them.
type generator struct {
	r      *rand.Rand
	tenant string
	limit  int // max_payload
	ids    int
}

// next makes a publication. About half of them have something wrong with them only in one place, so that one fault does
// not hide another.
func (g *generator) next() publication {
	p := publication{subject: g.subject(), payload: g.payload()}
	if g.r.IntN(2) == 0 {
		p.subject = g.log()
	}
	switch g.r.IntN(8) {
	case 0:
	case 1:
		p.block, p.payload = []byte(pick(g, controls)), nil
	case 2:
		p.block = []byte(g.mutated())
	case 3:
		p.block = g.bytes(1 + g.r.IntN(60))
	case 4:
		p.block = []byte(g.crowded())
	default:
		p.block = []byte(g.block())
	}
	if g.r.IntN(largeEvery) == 0 {
		p.payload = g.bytes(g.limit - len(p.block) - g.r.IntN(2)*g.r.IntN(5000))
	}
	return p
}

func pick[T any](g *generator, from []T) T { return from[g.r.IntN(len(from))] }

func (g *generator) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(g.r.Uint32())
	}
	return b
}

// log is the subject of a log.
func (g *generator) log() string {
	return "logs." + g.tenant + "." + pick(g, []string{"web", "db.primary", "a.b.c.d.e", "naïve.ключ", "x-y_z"})
}

// subject is one that the protocol allows; the server may refuse it.
func (g *generator) subject() string {
	return "logs." + g.tenant + pick(g, []string{
		".*", ".>", ".a*b", ".a>b", ".*x", ".x>", ".a.*.b", ".a.>.b", ".>.>", "..x", ".x..y", ".x.", ".", "", ".$JS.API",
		".$KV.x", "._INBOX.x",
		".\x01", ".a\x00b", ".a\x7f", ".\xff\xfe", ".\u00a0", ".\u2028x", ".\ufeffbom", ".\u202ertl", ".\U0001f9ed", ".{{x}}",
		".%s%n", ".a/b", `.a\b`, `.a"b`, ".'", ".;rm", ".<b>",
		"." + strings.Repeat("l", 240), "." + strings.Repeat("l", 250), "." + strings.Repeat("t.", 120) + "t",
		"." + strings.Repeat("m", 3000), ".dormouse.rejected.0",
	})
}

func (g *generator) payload() []byte {
	switch g.r.IntN(4) {
	case 0:
		return nil
	case 1:
		return g.bytes(g.r.IntN(300))
	case 2:
		return []byte("NATS/1.0 404 Not Found\r\n\r\n")
	default:
		return fmt.Appendf(nil, `{"level":"info","n":%d}`, g.r.Uint32())
	}
}

// controls are what the server says in its own words to consumers, and what it refuses to do.
var controls = []string{
	"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 1\r\nNats-Last-Stream: 99999\r\n\r\n",
	"NATS/1.0 100 FlowControl Request\r\n\r\n",
	"NATS/1.0 100\r\nNats-Consumer-Stalled: dormouse.sync.0\r\n\r\n",
	"NATS/1.0 200\r\n\r\n",
	"NATS/1.0 400 Bad Request\r\n\r\n",
	"NATS/1.0 404 No Messages\r\nNats-Pending-Messages: 1\r\nNats-Pending-Bytes: 1\r\n\r\n",
	"NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 0\r\nNats-Pending-Bytes: 0\r\n\r\n",
	"NATS/1.0 409 Consumer Deleted\r\n\r\n",
	"NATS/1.0 409 Message Size Exceeds MaxBytes\r\n\r\n",
	"NATS/1.0 409 Leadership Change\r\n\r\n",
	"NATS/1.0 409 Batch Completed\r\n\r\n",
	"NATS/1.0 423 Nats-Pin-Id mismatch\r\n\r\n",
	"NATS/1.0 503\r\n\r\n",
	"NATS/1.0\r\nStatus: 404\r\n\r\n",
	"NATS/1.0\r\nStatus: 408\r\nDescription: Request Timeout\r\n\r\n",
	"NATS/1.0\r\nStatus: 409\r\nDescription: Consumer Deleted\r\n\r\n",
	"NATS/1.0\r\nStatus: 409\r\nDescription: Message Size Exceeds MaxBytes\r\n\r\n",
	"NATS/1.0\r\nStatus: 503\r\n\r\n",
	"NATS/1.0\r\nStatus:\r\n\r\n",
	"NATS/1.0 404\r\nStatus: 200\r\n\r\n",
}

// names of headers: such as the server and Dormouse use, and such as nobody should.
var names = []string{
	"A", "a", "Trace-Id", "Status", "Description", "X", "Content-Type",
	"Nats-Msg-Id", "Nats-Expected-Stream", "Nats-Expected-Last-Sequence", "Nats-Expected-Last-Subject-Sequence",
	"Nats-Expected-Last-Msg-Id", "Nats-Rollup",
	"Nats-TTL", "Nats-Schedule", "Nats-Schedule-Target", "Nats-Schedule-TTL", "Nats-Incr", "Nats-Marker-Reason",
	"Nats-Batch-Sequence", "Nats-Required-Api-Level",
	"Nats-Stream", "Nats-Subject", "Nats-Sequence", "Nats-Time-Stamp", "Nats-Last-Sequence", "Nats-Num-Pending",
	"Nats-Stream-Source", "Nats-Pin-Id",
	"Nats-Request-Info", "Nats-Service-Error", "nats-msg-id", "NATS-TTL",
	"Dormouse-Reason", "Dormouse-Subject", "Dormouse-Sequence", "Dormouse-Time", "Dormouse-Part", "Dormouse-Block",
	"Dormouse-Original-A", "Dormouse-Epoch",
	"Dormouse-Source-Seq", "dormouse-part",
	"", " ", " A", "A ", "A\tB", "\xff", "Ключ", "a(b)", "\x00", "\r", strings.Repeat("N", 2000),
}

func (g *generator) value() string {
	if g.r.IntN(3) == 0 {
		g.ids++
		return fmt.Sprintf("%s/%d", g.tenant, g.ids)
	}
	return pick(g, []string{
		"", " ", "v", "v ", "\tv", "  v  ", "1", "0", "18446744073709551615", "-1", "LOGS", "logs.globex.web", "sub", "all",
		"1s", "never", "@every 1s", "1/1", "9/9",
		"2026-01-01T00:00:00Z", "J\xf6rg", "J\xe4rg", "\xff\xfe", "\u2028", "\x00", "a\rb", "\r", "a:b", ":", `{"a":1}`,
		"Dormouse-Reason: x", strings.Repeat("v", 3000),
	})
}

func (g *generator) line() string {
	end := "\r\n"
	if g.r.IntN(12) == 0 {
		end = pick(g, []string{"\n", "\r\r\n", "\n\r\n", "\r\n "})
	}
	separator := ": "
	if g.r.IntN(5) == 0 {
		separator = pick(g, []string{":", ":\t", ":    ", " : ", "::", "", "="})
	}
	return pick(g, names) + separator + g.value() + end
}

func (g *generator) block() string {
	var b strings.Builder
	first := "NATS/1.0\r\n"
	if g.r.IntN(8) == 0 {
		first = pick(g, []string{"NATS/1.0\n", "NATS/1.0 \r\n", "NATS/1.0 404\r\n", "NATS/1.0 404 x y \r\n",
			"NATS/1.0404\r\n", "NATS/1.1\r\n", "nats/1.0\r\n", "", "HTTP/1.1 200 OK\r\n", "NATS/1.0 \xff\xff\xff\r\n"})
	}
	b.WriteString(first)
	for range g.r.IntN(6) {
		b.WriteString(g.line())
	}
	if g.r.IntN(10) > 0 {
		b.WriteString("\r\n")
	}
	if g.r.IntN(10) == 0 {
		b.WriteString(pick(g, []string{"x", "\r\n", "NATS/1.0\r\nB: 2\r\n\r\n", ":", "\x00"}))
	}
	return b.String()
}

// crowded is a block with as many headers as there is room for.
func (g *generator) crowded() string {
	var b strings.Builder
	b.WriteString("NATS/1.0\r\n")
	for room := 1 + g.r.IntN(65_000); b.Len() < room; {
		b.WriteString(pick(g, []string{"A", "B", ""}) + ": 1\r\n")
	}
	b.WriteString("\r\n")
	return b.String()
}

// mutated is a block with a byte that was changed, taken out or put in.
func (g *generator) mutated() string {
	b := []byte(g.block())
	if len(b) == 0 {
		return "\n"
	}
	at := g.r.IntN(len(b))
	switch g.r.IntN(3) {
	case 0:
		b[at] = byte(g.r.Uint32())
	case 1:
		b = append(b[:at], b[at+1:]...)
	default:
		b = append(b[:at], append([]byte{byte(g.r.Uint32())}, b[at:]...)...)
	}
	return string(b)
}
