package hostile

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// rawConn is a connection to a NATS server that sends whatever it is told to: no library checks it.
type rawConn struct {
	net.Conn
	in    *bufio.Reader
	inbox string
	pings int // that are not answered yet: an answer must not come between the parts of a publication
}

// ack is JetStream's answer to a publication.
type ack struct {
	Stream    string
	Seq       uint64
	Duplicate bool
	Error     *struct{ Description string }
}

const rawTimeout = 5 * time.Second

func dialRaw(addr, user, password, inbox string) (*rawConn, error) {
	conn, err := net.DialTimeout("tcp", addr, rawTimeout)
	if err != nil {
		return nil, err
	}
	c := &rawConn{Conn: conn, in: bufio.NewReaderSize(conn, 64<<10), inbox: inbox}
	if _, err = c.in.ReadString('\n'); err == nil { // INFO
		_, err = fmt.Fprintf(c,
			"CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true,\"user\":%q,\"pass\":%q}\r\nSUB %s.* 1\r\n",
			user, password, inbox)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return c, nil
}

// publish sends publications and returns their answers, by index; there may be none. The last must be one that the
// stream takes: its answer says that all others have come, since a stream answers in order. The error is the
// connection's end.
func (c *rawConn) publish(all []publication) (acks map[int]ack, err error) {
	if err := c.SetDeadline(time.Now().Add(rawTimeout)); err != nil {
		return nil, err
	}
	sent := make(chan error, 1)
	go func() { sent <- c.send(all) }()
	acks = make(map[int]ack)
	for done := false; err == nil && !done; {
		if err = c.receive(acks); err == nil {
			_, done = acks[len(all)-1]
		}
	}
	if serr := <-sent; err == nil {
		err = serr
	}
	for ; err == nil && c.pings > 0; c.pings-- {
		_, err = io.WriteString(c, "PONG\r\n")
	}
	return acks, err
}

func (c *rawConn) send(all []publication) error {
	out := bufio.NewWriterSize(c, 64<<10)
	for i, p := range all {
		if p.block != nil {
			fmt.Fprintf(out, "HPUB %s %s.%d %d %d\r\n", p.subject, c.inbox, i, len(p.block), len(p.block)+len(p.payload))
		} else {
			fmt.Fprintf(out, "PUB %s %s.%d %d\r\n", p.subject, c.inbox, i, len(p.payload))
		}
		_, _ = out.Write(p.block) // bufio keeps the error for Flush
		_, _ = out.Write(p.payload)
		_, _ = out.WriteString("\r\n")
	}
	return out.Flush()
}

// receive reads one thing that the server sends.
func (c *rawConn) receive(acks map[int]ack) error {
	text, err := c.in.ReadString('\n')
	if err != nil {
		return err
	}
	fields := strings.Fields(text)
	switch {
	case len(fields) == 0:
		return nil
	case fields[0] == "PING":
		c.pings++
		return nil
	case fields[0] == "-ERR":
		// the connection lives on
		if strings.Contains(text, "Permissions Violation") || strings.Contains(text, "Invalid Publish Subject") {
			return nil
		}
		return errors.New(strings.TrimSpace(text))
	case fields[0] != "MSG" && fields[0] != "HMSG":
		return nil
	}
	size, err := strconv.Atoi(fields[len(fields)-1])
	if err != nil {
		return err
	}
	body := make([]byte, size+len("\r\n"))
	if _, err := io.ReadFull(c.in, body); err != nil {
		return err
	}
	number := fields[1][strings.LastIndexByte(fields[1], '.')+1:]
	i, err := strconv.Atoi(number)
	var a ack
	if err == nil && fields[0] == "MSG" && json.Unmarshal(body[:size], &a) == nil { // else nobody took it
		acks[i] = a
	}
	return err
}
