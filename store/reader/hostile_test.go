package reader

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/entry"
	"dormouse/internal/natstest"
	"dormouse/internal/streamreader"
	"dormouse/store/client"
)

// TestReadOfPublishersWords: entries that look like the server's words are read and followed like any others.
func TestReadOfPublishersWords(t *testing.T) {
	s := newSystem(t)
	s.Claim(1)
	s.Own(1)
	conn, err := s.Server.InProcessConn()
	if err != nil {
		t.Fatal(err)
	}
	raw := natstest.NewRaw(t, conn)
	s.Mu.Behind = true // so that all comes from the stream
	var want []string
	for i, block := range natstest.ControlLike {
		want = append(want, fmt.Sprintf("%d=", raw.Publish("logs.a.b", block, nil)))
		want = append(want, fmt.Sprintf("%d=%d", s.Publish("a.b", fmt.Sprint(i)), i))
	}
	for _, follow := range []bool{false, true} {
		got := s.read(Query{Log: "a.b", Follow: follow, To: uint64(len(want))})
		if got != strings.Join(want, " ") {
			t.Errorf("following %v: got %s, want %s", follow, got, want)
		}
	}
}

// TestStatusBelievesTheServer, not the publisher of the oldest entry.
func TestStatusBelievesTheServer(t *testing.T) {
	s := newSystem(t)
	s.Claim(1)
	for _, header := range []nats.Header{
		{"Nats-Time-Stamp": {"yesterday"}}, {"Nats-Time-Stamp": {"1998-01-01T00:00:00Z"}}, {"Nats-Sequence": {"-1"}},
		{"Status": {"404"}},
	} {
		ack, err := s.JS.PublishMsg(t.Context(), &nats.Msg{Subject: "logs.a.b", Header: header})
		if err != nil {
			t.Fatal(err)
		}
		s.Trim(ack.Sequence - 1)
		status, err := client.New(s.NC, s.JS).Status(t.Context())
		if err != nil {
			t.Fatalf("%v: %v", header, err)
		}
		if age := time.Since(status.Shards[0].Oldest); age < 0 || age > time.Minute {
			t.Errorf("%v: the oldest entry is %s old", header, age)
		}
	}
}

// TestLogsLikeWildcards: a LogID may have * and > inside of its tokens, and means itself.
func TestLogsLikeWildcards(t *testing.T) {
	s := newSystem(t)
	s.Claim(1)
	s.Own(1)
	logs := []string{"a.b>c", "a.b*c", "a.b>", "a.b*", "a.>b", "a.*b", "a.b>.c", "a.**", "a>.b"}
	for _, log := range logs {
		s.Publish(log, log)
	}
	s.Publish("a.bc", "another")
	for i, log := range logs {
		if got, want := s.read(Query{Log: log}), fmt.Sprintf("%d=%s", i+1, log); got != want {
			t.Errorf("%s: got %q, want %q", log, got, want)
		}
	}
	if _, err := Locate(t.Context(), client.New(s.NC, s.JS), s.archive, "a.c*"); !errors.Is(err, client.ErrNoLog) {
		t.Errorf("a log that is not there: %v", err)
	}
}

// TestTailOfLogsLikeWildcards: the server says that it has more of a log than there is, and nothing is waited for.
func TestTailOfLogsLikeWildcards(t *testing.T) {
	s := newSystem(t)
	logs := []string{"a.b>c", "a.b*c", "a.b>", "a.b*", "a.>b", "a.b>.c", "a.**", "a.bc"}
	for _, log := range logs {
		s.Publish(log, log)
	}
	for i, log := range logs {
		tail, began, want := s.tail(), time.Now(), uint64(i+1)
		for after := range want + 1 {
			batch, err := tail.Fetch(t.Context(), log, after, false)
			if err != nil {
				t.Fatalf("%s after %d: %v", log, after, err)
			}
			if got := seqs(batch); after < want && !slices.Equal(got, []uint64{want}) || after == want && len(got) > 0 {
				t.Errorf("%s after %d: got %v", log, after, got)
			}
		}
		if took := time.Since(began); took > fetchWait {
			t.Errorf("%s took %s", log, took)
		}
	}
}

// TestRefusedConsumer ends a read at once: trying again would not help.
func TestRefusedConsumer(t *testing.T) {
	s := newSystem(t)
	cfg := jetstream.StreamConfig{Name: "U", Subjects: []string{"u.>"}, MaxConsumers: 1}
	stream, err := s.JS.CreateStream(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	first, err := streamreader.Open(t.Context(), s.JS, "U", "", 1, streamreader.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	tail := &streamTail{js: s.JS, stream: stream, prefix: "u"}
	began := time.Now()
	_, err = tail.Fetch(t.Context(), "a.b", 0, false)
	if !errors.Is(err, jetstream.ErrMaximumConsumersLimit) || time.Since(began) > client.Patience/3 {
		t.Errorf("ended after %s with %v", time.Since(began), err)
	}
	first.Stop()
	for range 2 { // with a consumer of its own each time
		if _, err := tail.Fetch(t.Context(), "a.b", 0, false); err != nil {
			t.Error(err)
		}
		tail.close()
	}
}

// TestTailHasWhatTheArchiveWillHave: of blocks that are not usual the names and values, and nothing of what is
// rejected.
func TestTailHasWhatTheArchiveWillHave(t *testing.T) {
	s := newSystem(t)
	s.Claim(1)
	s.Own(1)
	conn, err := s.Server.InProcessConn()
	if err != nil {
		t.Fatal(err)
	}
	raw := natstest.NewRaw(t, conn)
	const malformed = "NATS/1.0\r\nno colon\r\n\r\n"
	for _, block := range []string{malformed, "NATS/1.0\nA:   1\nB: J\xf6rg\n\n", malformed,
		"NATS/1.0\r\nA: 1\r\n\r\ntrailing", "", malformed, "NATS/1.0\r\nA: 1\r\n", malformed} {
		raw.Publish("logs.a.b", block, []byte("x"))
	}
	const want = "2=map[A:[1] B:[J\xf6rg]] 5=map[]"
	read := func(q Query) string {
		t.Helper()
		var got []string
		if err := s.open("a.b").Read(t.Context(), q, func(e entry.Entry) error {
			got = append(got, fmt.Sprintf("%d=%s", e.Seq, e.Headers))
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return strings.Join(got, " ")
	}
	if got := read(Query{Log: "a.b"}); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	time.AfterFunc(100*time.Millisecond, func() { _ = s.NC.Publish("logs.a.b", nil) })
	if got := read(Query{Log: "a.b", Follow: true, To: 9}); got != want+" 9=map[]" {
		t.Errorf("following: got %q, want %q and 9", got, want)
	}
	if got := read(Query{Log: "a.b", From: 6}); !strings.HasPrefix(got, "9=") {
		t.Errorf("from 6: got %q", got)
	}
}
