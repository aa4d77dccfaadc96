package streamreader

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/jsapi"
	"dormouse/internal/natstest"
)

// control is a word of the server's.
func control(status, text string, headers ...string) *nats.Msg {
	msg := nats.NewMsg("")
	msg.Header.Set("Status", status)
	msg.Header.Set("Description", text)
	for i := 0; i < len(headers); i += 2 {
		msg.Header.Set(headers[i], headers[i+1])
	}
	return msg
}

func heartbeatOf(delivered string) []string {
	return []string{"Nats-Last-Consumer", delivered, "Nats-Last-Stream", delivered}
}

// TestPublishersWords are a publisher's, however much they look like the server's: each of them comes with its
// headers, and what follows comes too, whether a request ends there or not.
func TestPublishersWords(t *testing.T) {
	srv := natstest.Start(t)
	_, js := natstest.Dial(t, srv)
	makeStream(t, js, 0)
	conn, err := srv.InProcessConn()
	if err != nil {
		t.Fatal(err)
	}
	raw := natstest.NewRaw(t, conn)
	var want []string
	for i, block := range natstest.ControlLike {
		seq := raw.Publish("S.a", block, nil)
		stored, err := jsapi.Get(t.Context(), js, "S", seq) // without the status of the first line
		if err != nil {
			t.Fatal(err)
		}
		headers, err := stored.Headers()
		if err != nil {
			t.Fatal(err)
		}
		raw.Publish("S.a", "", fmt.Append(nil, i))
		want = append(want, fmt.Sprintf("S.a %v %d %q", headers, len(stored.Header), ""),
			fmt.Sprintf("S.a map[] 0 %q", fmt.Sprint(i)))
	}
	for _, limits := range []Limits{{Messages: 1}, {Messages: 7, Bytes: 500}, {Messages: 1000}} {
		c, err := Open(t.Context(), js, "S", "", 1, limits)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Stop()
		for i := range want {
			m, err := nextMessage(t, c)
			if err != nil {
				t.Fatalf("%+v: after %d of %d: %v", limits, i, len(want), err)
			}
			if got := fmt.Sprintf("%s %v %d %q", m.Subject, m.Header, m.HeaderBytes, m.Data); got != want[i] {
				t.Errorf("%+v: got %s, want %s", limits, got, want[i])
			}
			if m.Sequence != uint64(i+1) || m.Pending != uint64(len(want)-i-1) || time.Since(m.Time) > patience {
				t.Errorf("%+v: message %d has %d behind it, of %s", limits, m.Sequence, m.Pending, m.Time)
			}
		}
	}
}

// TestServersWords end a request, and the next one is sent, or they end the consumer.
func TestServersWords(t *testing.T) {
	for text, tc := range map[string]struct {
		headers []string
		want    error // nil: the consumer goes on
		any     bool  // any error
	}{
		"408 Request Timeout":                   {headers: []string{"Nats-Pending-Messages", "100"}},
		"404 No Messages":                       {},
		"409 Batch Completed":                   {},
		"409 Message Size Exceeds MaxBytes":     {headers: []string{"Nats-Pending-Messages", "100"}},
		"409 Consumer Deleted":                  {want: jetstream.ErrConsumerDeleted},
		"409 Leadership Change":                 {want: jetstream.ErrConsumerLeadershipChanged},
		"409 Server Shutdown":                   {want: jetstream.ErrServerShutdown},
		"503 ":                                  {want: nats.ErrNoResponders},
		"409 Exceeded MaxRequestBatch of 1":     {any: true},
		"400 Bad Request":                       {any: true},
		"408 Request Timeout, and one too many": {headers: []string{"Nats-Pending-Messages", "99"}, want: errMissed},
		"100 Idle Heartbeat, and one too many":  {headers: heartbeatOf("2"), want: errMissed},
		"100 Idle Heartbeat":                    {headers: heartbeatOf("1")},
	} {
		t.Run(text, func(t *testing.T) {
			js := newStream(t, 1)
			c := open(t, js, "", 1)
			if _, err := next(t, c); err != nil {
				t.Fatal(err)
			}
			c.untilAsked(t)
			c.pull.asked = time.Now().Add(-requestLife)
			status, description, _ := strings.Cut(text, " ")
			word := control(status, description, tc.headers...)
			word.Subject = c.pull.inbox + fmt.Sprint(c.pull.number)
			c.received <- word
			publish(t, js, 2)
			seq, err := next(t, c)
			switch {
			case tc.any && err == nil, !tc.any && !errors.Is(err, tc.want), err == nil && seq != 2:
				t.Errorf("got %d, %v", seq, err)
			}
		})
	}
}

// untilAsked lets the first request end, and the next one begin.
func (c *Consumer) untilAsked(t *testing.T) {
	t.Helper()
	for c.pull.number < 2 {
		msg := <-c.received
		if err := c.heed(msg); err != nil {
			t.Fatal(err)
		}
		if c.pull.left == 0 {
			if err := c.pull.ask(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestRequestThatEndsAtOnce: a server that ended each request as soon as it had it would be asked without a pause.
func TestRequestThatEndsAtOnce(t *testing.T) {
	js := newStream(t, 1)
	c := open(t, js, "", 1)
	if _, err := next(t, c); err != nil {
		t.Fatal(err)
	}
	c.untilAsked(t)
	word := control("408", "Interest Expired")
	word.Subject = c.pull.inbox + fmt.Sprint(c.pull.number)
	c.received <- word
	if seq, err := next(t, c); err == nil || !strings.Contains(err.Error(), "Interest Expired") {
		t.Errorf("got %d, %v", seq, err)
	}
}

// TestNobodysWords are no server's: they have another subject, a payload or a reply subject. They are ignored.
func TestNobodysWords(t *testing.T) {
	js := newStream(t, 0)
	c := open(t, js, "", 1)
	for range 3 {
		c.received <- control("409", "Consumer Deleted")
	}
	for _, change := range []func(*nats.Msg){
		func(m *nats.Msg) { m.Subject = "S.a" },
		func(m *nats.Msg) { m.Subject, m.Data = c.pull.inbox+"1", []byte("x") },
		func(m *nats.Msg) { m.Subject, m.Reply = c.pull.inbox+"1", "somebody" },
	} {
		word := control("409", "Consumer Deleted")
		change(word)
		c.received <- word
	}
	publish(t, js, 1)
	if seq, err := next(t, c); err != nil || seq != 1 {
		t.Errorf("got %d, %v", seq, err)
	}
}

func TestReplySubjects(t *testing.T) {
	for reply, want := range map[string]string{
		"$JS.ACK.S.c.1.9.2.5.3":                    "9 2 5 3",
		"$JS.ACK._.hash.S.c.1.9.2.5.3":             "9 2 5 3",
		"$JS.ACK.hub.hash.S.c.1.9.2.5.3.token":     "9 2 5 3",
		"$JS.ACK.S.c.1.9.2.5.18446744073709551615": "9 2 5 18446744073709551615",
		"$JS.ACK.":                                  "",
		"$JS.ACK.S.c.1.9.2.5":                       "",
		"$JS.ACK.S.c.1.9.2.5.3.token":               "",
		"$JS.ACK.S.c.1.9.2.-5.3":                    "",
		"$JS.ACK.S.c.1..2.5.3":                      "",
		"$JS.ACK.S.c.1.9.2.5.184467440737095516155": "",
	} {
		m, err := newMessage(&nats.Msg{Subject: "S.a", Reply: reply})
		got := fmt.Sprintf("%d %d %d %d", m.Sequence, m.Delivered, m.Time.UnixNano(), m.Pending)
		if (err == nil) != (want != "") || err == nil && got != want || err != nil && !errors.Is(err, errReply) {
			t.Errorf("%s: %s, %v", reply, got, err)
		}
	}
}
