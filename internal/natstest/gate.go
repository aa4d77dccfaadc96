package natstest

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Gate returns a JetStream whose requests pass through the test, under a prefix of their own. keep is called with
// each of them, named as behind $JS.API, one after the other; what it does not keep goes on to the server. One that
// is kept without an answer, see Refuse, is one that nobody hears, as in a cluster without a leader.
func Gate(t testing.TB, nc *nats.Conn, keep func(request string, msg *nats.Msg) bool) jetstream.JetStream {
	t.Helper()
	prefix := strings.ReplaceAll(nc.NewInbox(), "_INBOX", "GATE")
	js, err := jetstream.NewWithAPIPrefix(nc, prefix)
	if err != nil {
		t.Fatal(err)
	}
	sub, err := nc.Subscribe(prefix+".>", func(msg *nats.Msg) {
		request := strings.TrimPrefix(msg.Subject, prefix+".")
		if keep(request, msg) {
			return
		}
		msg.Subject = jetstream.DefaultAPIPrefix + request
		if err := nc.PublishMsg(msg); err != nil {
			t.Errorf("passing on %s: %v", request, err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sub.Unsubscribe() })
	return js
}

// Refuse answers a request with an error of JetStream's.
func Refuse(t testing.TB, msg *nats.Msg, err jetstream.APIError) {
	t.Helper()
	data, _ := json.Marshal(map[string]any{"error": err}) // of constants
	if err := msg.Respond(data); err != nil {
		t.Error(err)
	}
}
