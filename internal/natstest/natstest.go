// Package natstest gives tests a real NATS server with JetStream, in their process and without a listener.
//
// Only tests import it. It makes no stream; open topology for those of Dormouse.
package natstest

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Start runs a server until the test ends. change may adapt its options.
func Start(t testing.TB, change ...func(*server.Options)) *server.Server {
	t.Helper()
	options := &server.Options{JetStream: true, StoreDir: t.TempDir(), DontListen: true, NoLog: true, NoSigs: true}
	for _, c := range change {
		c(options)
	}
	srv, err := server.NewServer(options)
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	return srv
}

// Dial connects a client to srv until the test ends.
func Dial(t testing.TB, srv *server.Server) (*nats.Conn, jetstream.JetStream) {
	t.Helper()
	nc, err := nats.Connect("", nats.InProcessServer(srv))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return nc, js
}

// MakeAnew deletes a stream and makes it again, empty and with the configuration that it had. The server may still be
// removing the files of the first when it is asked for the second.
func MakeAnew(t testing.TB, js jetstream.JetStream, name string) {
	t.Helper()
	stream, err := js.Stream(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	if err := js.DeleteStream(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, err = backoff.Retry(ctx, func() (jetstream.Stream, error) {
		return js.CreateStream(ctx, stream.CachedInfo().Config)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// LoseEnd makes a stream anew with its messages up to keep only, as servers do that lost power before they had synced
// the rest. None of those may have been deleted; they get new times.
func LoseEnd(t testing.TB, js jetstream.JetStream, name string, keep uint64) {
	t.Helper()
	stream := Stream(t, js, name)
	var kept []*nats.Msg
	for seq := uint64(1); seq <= keep; seq++ {
		msg, err := stream.GetMsg(t.Context(), seq)
		if err != nil {
			t.Fatal(err)
		}
		kept = append(kept, &nats.Msg{Subject: msg.Subject, Data: msg.Data, Header: msg.Header})
	}
	MakeAnew(t, js, name)
	for _, msg := range kept {
		for header := range msg.Header { // what was expected of the stream then, and the message id, are not for this one
			if strings.HasPrefix(header, "Nats-") {
				msg.Header.Del(header)
			}
		}
		if _, err := js.PublishMsg(t.Context(), msg); err != nil {
			t.Fatal(err)
		}
	}
}

// Stream returns a stream that must be there.
func Stream(t testing.TB, js jetstream.JetStream, name string) jetstream.Stream {
	t.Helper()
	stream, err := js.Stream(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

// Message returns a message of a stream, which must be there.
func Message(t testing.TB, js jetstream.JetStream, stream string, seq uint64) *jetstream.RawStreamMsg {
	t.Helper()
	msg, err := Stream(t, js, stream).GetMsg(t.Context(), seq)
	if err != nil {
		t.Fatal(err)
	}
	return msg
}
