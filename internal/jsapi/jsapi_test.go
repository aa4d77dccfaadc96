package jsapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/natstest"
)

// newStream returns a stream S that allows direct gets, whose answers the client library believes a publisher in.
func newStream(t *testing.T, change ...func(*server.Options)) (*nats.Conn, jetstream.JetStream) {
	t.Helper()
	nc, js := natstest.Dial(t, natstest.Start(t, change...))
	cfg := jetstream.StreamConfig{Name: "S", Subjects: []string{"S.>"}, AllowDirect: true}
	if _, err := js.CreateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	return nc, js
}

func publish(t *testing.T, js jetstream.JetStream, subject string, header nats.Header, data []byte) {
	t.Helper()
	if _, err := js.PublishMsg(t.Context(), &nats.Msg{Subject: subject, Header: header, Data: data}); err != nil {
		t.Fatal(err)
	}
}

// TestPublisherIsNotBelieved: headers of the names that the server uses in its answers are the publisher's, and no
// more.
func TestPublisherIsNotBelieved(t *testing.T) {
	_, js := newStream(t)
	lies := []nats.Header{
		{"Nats-Time-Stamp": {"yesterday"}},
		{"Nats-Time-Stamp": {"1998-01-01T00:00:00Z"}, "Nats-Sequence": {"77"}},
		{"Nats-Sequence": {"-1"}},
		{"Nats-Stream": {"OTHER"}, "Nats-Subject": {"S.other"}, "Nats-Sequence": {""}, "Nats-Time-Stamp": {""}},
		{"Status": {"404"}, "Description": {"Message Not Found"}},
	}
	for i, lie := range lies {
		publish(t, js, "S.a", lie, nil)
		seq := uint64(i + 1)
		for name, get := range map[string]func() (Message, error){
			"by sequence":      func() (Message, error) { return Get(t.Context(), js, "S", seq) },
			"last of subject":  func() (Message, error) { return GetLast(t.Context(), js, "S", "S.a") },
			"next of a filter": func() (Message, error) { return GetNext(t.Context(), js, "S", ">", seq) },
		} {
			m, err := get()
			if err != nil {
				t.Fatalf("%v, %s: %v", lie, name, err)
			}
			headers, err := m.Headers()
			if err != nil || fmt.Sprint(headers) != fmt.Sprint(lie) {
				t.Errorf("%v, %s: headers %v, %v", lie, name, headers, err)
			}
			age := time.Since(m.Time)
			if m.Sequence != seq || m.Subject != "S.a" || len(m.Data) > 0 || age < 0 || age > time.Minute {
				t.Errorf("%v, %s: message %d of %s at %s", lie, name, m.Sequence, m.Subject, m.Time)
			}
		}
	}
}

func TestNoMessage(t *testing.T) {
	_, js := newStream(t)
	publish(t, js, "S.a", nil, []byte("x"))
	for name, get := range map[string]func() (Message, error){
		"sequence 0":       func() (Message, error) { return Get(t.Context(), js, "S", 0) },
		"above the end":    func() (Message, error) { return Get(t.Context(), js, "S", 2) },
		"other subject":    func() (Message, error) { return GetLast(t.Context(), js, "S", "S.b") },
		"nothing after it": func() (Message, error) { return GetNext(t.Context(), js, "S", ">", 2) },
	} {
		if m, err := get(); !errors.Is(err, jetstream.ErrMsgNotFound) {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
	if _, err := Get(t.Context(), js, "T", 1); !errors.Is(err, jetstream.ErrStreamNotFound) || !IsPermanent(err) {
		t.Errorf("of no stream: %v", err)
	}
}

// TestLargestMessage: as JSON it is larger than a message may be, and comes all the same. Its header block has every
// byte.
func TestLargestMessage(t *testing.T) {
	nc, js := newStream(t)
	header := nats.Header{"K": {"v"}}
	const block = "NATS/1.0\r\nK: v\r\n\r\n"
	data := bytes.Repeat([]byte{0xff}, int(nc.MaxPayload())-len(block))
	publish(t, js, "S.a", header, data)
	m, err := Get(t.Context(), js, "S", 1)
	if err != nil || !bytes.Equal(m.Data, data) || string(m.Header) != block {
		t.Errorf("%d bytes, header %q, %v", len(m.Data), m.Header, err)
	}
}

// TestPrefixAndDomain: what the JetStream context speaks to is asked.
func TestPrefixAndDomain(t *testing.T) {
	nc, js := newStream(t, func(o *server.Options) { o.JetStreamDomain = "hub" })
	publish(t, js, "S.a", nil, []byte("x"))
	domain, err := jetstream.NewWithDomain(nc, "hub")
	if err != nil {
		t.Fatal(err)
	}
	elsewhere, err := jetstream.NewWithDomain(nc, "leaf")
	if err != nil {
		t.Fatal(err)
	}
	var asked []string
	gate := natstest.Gate(t, nc, func(request string, _ *nats.Msg) bool {
		asked = append(asked, request)
		return false
	})
	for name, js := range map[string]jetstream.JetStream{"default": js, "domain": domain, "prefix": gate} {
		if m, err := Get(t.Context(), js, "S", 1); err != nil || string(m.Data) != "x" {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
	if fmt.Sprint(asked) != "[STREAM.MSG.GET.S]" {
		t.Errorf("through the prefix: %v", asked)
	}
	if _, err := Get(t.Context(), elsewhere, "S", 1); !errors.Is(err, nats.ErrNoResponders) {
		t.Errorf("of another domain: %v", err)
	}
}

func TestIsPermanent(t *testing.T) {
	for err, want := range map[error]bool{
		nil:                      false,
		context.DeadlineExceeded: false,
		nats.ErrNoResponders:     false,
		nats.ErrTimeout:          false,
		fmt.Errorf("reading: %w", nats.ErrConnectionClosed):    true,
		fmt.Errorf("reading: %w", jetstream.ErrInvalidSubject): true,
		nats.ErrBadSubject:                 true,
		jetstream.ErrStreamNotFound:        true,
		jetstream.ErrMaximumConsumersLimit: true,
		&jetstream.APIError{Code: 503}:     false,
		&jetstream.APIError{Code: 500}:     false,
		&jetstream.APIError{Code: 429}:     false,
		&jetstream.APIError{Code: 408}:     false,
		&jetstream.APIError{Code: 403}:     true,
	} {
		if got := IsPermanent(err); got != want {
			t.Errorf("%v: %v", err, got)
		}
	}
}
