package natstest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// Raw publishes header blocks as they are, over a connection of its own to a server: what a client library would
// never send.
type Raw struct {
	t    testing.TB
	conn net.Conn
	in   *bufio.Reader
}

// rawPatience bounds a publication; reaching it fails the test.
const rawPatience = 20 * time.Second

// NewRaw takes a fresh connection over, until the test ends.
func NewRaw(t testing.TB, conn net.Conn) *Raw {
	t.Helper()
	t.Cleanup(func() { _ = conn.Close() })
	r := &Raw{t: t, conn: conn, in: bufio.NewReader(conn)}
	_ = conn.SetDeadline(time.Now().Add(rawPatience))   // else the read says so
	if info, err := r.in.ReadString('\n'); err != nil { // before anything is sent: a pipe has no room
		t.Fatalf("%s, %v", info, err)
	}
	r.send("CONNECT {\"headers\":true,\"no_responders\":true}\r\nSUB RAW.acks 1\r\n")
	return r
}

func (r *Raw) send(text string) {
	r.t.Helper()
	_ = r.conn.SetDeadline(time.Now().Add(rawPatience)) // else the write says so
	if _, err := io.WriteString(r.conn, text); err != nil {
		r.t.Fatal(err)
	}
}

// Publish stores a message and returns its sequence. An empty block is a message without headers.
func (r *Raw) Publish(subject, block string, payload []byte) (seq uint64) {
	r.t.Helper()
	if block == "" {
		r.send(fmt.Sprintf("PUB %s RAW.acks %d\r\n%s\r\n", subject, len(payload), payload))
	} else {
		all := len(block) + len(payload)
		r.send(fmt.Sprintf("HPUB %s RAW.acks %d %d\r\n%s%s\r\n", subject, len(block), all, block, payload))
	}
	for {
		line, err := r.in.ReadString('\n')
		if err != nil {
			r.t.Fatal(err)
		}
		switch {
		case strings.HasPrefix(line, "PING"):
			r.send("PONG\r\n")
		case strings.HasPrefix(line, "-ERR"), strings.HasPrefix(line, "HMSG"):
			r.t.Fatalf("publishing to %s with %q: %s", subject, block, line)
		case strings.HasPrefix(line, "MSG"):
			data, err := r.in.ReadBytes('\n')
			var ack struct{ Seq uint64 }
			if err != nil || json.Unmarshal(bytes.TrimSpace(data), &ack) != nil || ack.Seq == 0 {
				r.t.Fatalf("publishing to %s with %q: %s, %v", subject, block, data, err)
			}
			return ack.Seq
		}
	}
}

// ControlLike are header blocks that look like the words with which a JetStream server tells a consumer how things
// are, or like what it says of a message. With an empty payload nothing but the reply subject tells the two apart.
var ControlLike = []string{
	"NATS/1.0 404 No Messages\r\n\r\n",
	"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 1\r\nNats-Last-Stream: 99\r\n\r\n",
	"NATS/1.0 100 FlowControl Request\r\n\r\n",
	"NATS/1.0\r\nStatus: 100\r\nNats-Consumer-Stalled: $JS.FC.x\r\n\r\n",
	"NATS/1.0\r\nStatus: 200\r\n\r\n",
	"NATS/1.0\r\nStatus: 400\r\nDescription: Bad Request\r\n\r\n",
	"NATS/1.0\r\nStatus: 404\r\n\r\n",
	"NATS/1.0\r\nStatus: 408\r\nNats-Pending-Messages: x\r\n\r\n",
	"NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 0\r\nNats-Pending-Bytes: 0\r\n\r\n",
	"NATS/1.0\r\nStatus: 409\r\nDescription: Consumer Deleted\r\n\r\n",
	"NATS/1.0 409 Leadership Change\r\n\r\n",
	"NATS/1.0 409 Server Shutdown\r\n\r\n",
	"NATS/1.0 409 Message Size Exceeds MaxBytes\r\nNats-Pending-Messages: 1\r\nNats-Pending-Bytes: 1\r\n\r\n",
	"NATS/1.0 409 Batch Completed\r\nNats-Pending-Messages: 0\r\nNats-Pending-Bytes: 1\r\n\r\n",
	"NATS/1.0 423 Nats-Wrong-Pin-Id\r\n\r\n",
	"NATS/1.0\r\nStatus: 503\r\n\r\n",
	"NATS/1.0 503\r\n\r\n",
	"NATS/1.0\r\nNats-Time-Stamp: yesterday\r\n\r\n",
	"NATS/1.0\r\nNats-Time-Stamp: 1998-01-01T00:00:00Z\r\nNats-Sequence: 77\r\nNats-Stream: X\r\nNats-Subject: x\r\n\r\n",
	"NATS/1.0\r\nNats-Sequence: -1\r\n\r\n",
	"NATS/1.0\r\nNats-Sequence: \r\nNats-Time-Stamp: \r\n\r\n",
}
