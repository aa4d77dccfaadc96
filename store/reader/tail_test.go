package reader

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"dormouse/internal/entry"
	"dormouse/internal/wire"
)

func (s *system) tail() *streamTail {
	s.t.Helper()
	stream, err := s.js.Stream(s.t.Context(), wire.DefaultSource)
	if err != nil {
		s.t.Fatal(err)
	}
	tail := &streamTail{js: s.js, stream: stream, prefix: wire.DefaultPrefix}
	s.t.Cleanup(tail.close)
	return tail
}

func fetch(t *testing.T, tail *streamTail, after uint64, wait bool) []uint64 {
	t.Helper()
	batch, err := tail.Fetch(t.Context(), "a.b", after, wait)
	if err != nil {
		t.Fatal(err)
	}
	return seqs(batch)
}

func TestTailFetchesInBatchesWithoutAskingTwice(t *testing.T) {
	s := newSystem(t)
	var want, got []uint64
	for range 2*fetchEntries + 7 {
		want = append(want, s.publish("a.b", "x"))
		s.publish("a.other", "y")
	}
	tail := s.tail()
	for after := uint64(0); ; {
		batch := fetch(t, tail, after, false)
		if len(batch) == 0 {
			break
		}
		if len(batch) > fetchEntries {
			t.Fatalf("a batch has %d entries", len(batch))
		}
		got = append(got, batch...)
		after = batch[len(batch)-1]
	}
	if !slices.Equal(got, want) {
		t.Fatalf("got %d entries, want %d", len(got), len(want))
	}
}

func TestTailKeepsTheWholeEntry(t *testing.T) {
	s := newSystem(t)
	msg := &nats.Msg{Subject: "logs.a.b", Data: []byte{0, 255}, Header: nats.Header{"K": {"v", "w"}}}
	ack, err := s.js.PublishMsg(t.Context(), msg)
	if err != nil {
		t.Fatal(err)
	}
	tail := s.tail()
	batch, err := tail.Fetch(t.Context(), "a.b", 0, false)
	if err != nil || len(batch) != 1 {
		t.Fatalf("%v, %v", batch, err)
	}
	stored, err := tail.stream.GetMsg(t.Context(), ack.Sequence)
	if err != nil {
		t.Fatal(err)
	}
	e := batch[0]
	if e.Log != "a.b" || e.Seq != ack.Sequence || !e.Time.Equal(stored.Time) || !bytes.Equal(e.Data, msg.Data) || fmt.Sprint(e.Headers) != "map[K:[v w]]" {
		t.Fatalf("got %+v", e)
	}
}

// TestTailDoesNotWaitForWhatWasTrimmed: the server announced entries, sent some, and the rest were trimmed before their turn.
func TestTailDoesNotWaitForWhatWasTrimmed(t *testing.T) {
	s := newSystem(t)
	payload := strings.Repeat("x", 64<<10) // more than the tail asks for at once
	var last uint64
	for range 3 * fetchBytes / len(payload) {
		last = s.publish("a.b", payload)
	}
	tail := s.tail()
	after := fetch(t, tail, 0, false)[0]
	s.trim(last)
	for {
		batch := fetch(t, tail, after, false)
		if len(batch) == 0 {
			break
		}
		after = batch[len(batch)-1]
	}
	if after == last {
		t.Fatal("everything was sent before the trim: the test shows nothing")
	}
	next := s.publish("a.b", "later")
	if got := fetch(t, tail, after, true); !slices.Equal(got, []uint64{next}) {
		t.Fatalf("got %v, want %d", got, next)
	}
}

func TestTailWaits(t *testing.T) {
	s := newSystem(t)
	tail := s.tail()
	if got := fetch(t, tail, 0, false); len(got) != 0 {
		t.Fatalf("an empty stream gave %v", got)
	}
	published := make(chan uint64, 1)
	timer := time.AfterFunc(50*time.Millisecond, func() {
		ack, err := s.js.Publish(context.WithoutCancel(t.Context()), "logs.a.b", nil)
		if err != nil {
			t.Error(err)
			published <- 0
			return
		}
		published <- ack.Sequence
	})
	defer timer.Stop()
	if got, want := fetch(t, tail, 0, true), <-published; !slices.Equal(got, []uint64{want}) {
		t.Fatalf("got %v, want %d", got, want)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := tail.Fetch(ctx, "a.b", tail.after, true); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("waiting ended with %v, want the context's error", err)
	}
}

// TestFollowFromAheadOfTheStream: a consumer that is to start above the stream's end starts at the end instead.
func TestFollowFromAheadOfTheStream(t *testing.T) {
	s := newSystem(t)
	s.claim(1)
	s.own(1)
	first := s.publish("a.b", "old")
	done := make(chan error, 1)
	var got []uint64
	r := s.open("a.b")
	go func() {
		done <- r.Read(context.WithoutCancel(t.Context()), Query{Log: "a.b", From: first + 3, To: first + 4, Follow: true}, func(e entry.Entry) error {
			got = append(got, e.Seq)
			return nil
		})
	}()
	s.publish("a.b", "1", "2", "3", "4")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if want := []uint64{first + 3, first + 4}; !slices.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
}
