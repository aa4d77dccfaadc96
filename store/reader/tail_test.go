package reader

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/entry"
	"dormouse/internal/natstest"
	"dormouse/internal/wire"
	"dormouse/store/client"
)

func (s *system) tail() *streamTail {
	s.T.Helper()
	stream, err := s.JS.Stream(s.T.Context(), wire.DefaultSource)
	if err != nil {
		s.T.Fatal(err)
	}
	tail := &streamTail{js: s.JS, stream: stream, prefix: wire.DefaultPrefix}
	s.T.Cleanup(tail.close)
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
		want = append(want, s.Publish("a.b", "x"))
		s.Publish("a.other", "y")
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
	ack, err := s.JS.PublishMsg(t.Context(), msg)
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
	if e.Log != "a.b" || e.Seq != ack.Sequence || !e.Time.Equal(stored.Time) || !bytes.Equal(e.Data, msg.Data) ||
		fmt.Sprint(e.Headers) != "map[K:[v w]]" {
		t.Fatalf("got %+v", e)
	}
}

// TestTailDoesNotWaitForWhatWasTrimmed: the server announced entries, sent some, and the rest were trimmed before their
// turn.
func TestTailDoesNotWaitForWhatWasTrimmed(t *testing.T) {
	s := newSystem(t)
	payload := strings.Repeat("x", 64<<10) // more than the tail asks for at once
	var last uint64
	for range 3 * fetchBytes / len(payload) {
		last = s.Publish("a.b", payload)
	}
	tail := s.tail()
	after := fetch(t, tail, 0, false)[0]
	s.Trim(last)
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
	next := s.Publish("a.b", "later")
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
		ack, err := s.JS.Publish(context.WithoutCancel(t.Context()), "logs.a.b", nil)
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
	s.Claim(1)
	s.Own(1)
	first := s.Publish("a.b", "old")
	done := make(chan error, 1)
	var got []uint64
	r := s.open("a.b")
	go func() {
		done <- r.Read(context.WithoutCancel(t.Context()), Query{Log: "a.b", From: first + 3, To: first + 4, Follow: true},
			func(e entry.Entry) error {
				got = append(got, e.Seq)
				return nil
			})
	}()
	s.Publish("a.b", "1", "2", "3", "4")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if want := []uint64{first + 3, first + 4}; !slices.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
}

// TestTailWithoutALeader: requests for consumers are not answered any more, as in a cluster without a leader. Following
// ends with its context at once, and a read fails when its patience is over.
func TestTailWithoutALeader(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	tail := s.tail()
	var deaf atomic.Bool
	tail.js = natstest.Gate(t, s.NC, func(request string, _ *nats.Msg) bool {
		return deaf.Load() && strings.HasPrefix(request, "CONSUMER.CREATE.")
	})
	s.Publish("a.b", "1")
	fetch(t, tail, 0, false)
	waiting := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		var err error
		for err == nil { // as a reader that follows
			_, err = tail.Fetch(ctx, "a.b", 1, true)
		}
		waiting <- err
	}()
	deaf.Store(true)
	s.until("a consumer", func() bool { return len(s.consumers()) > 0 })
	for _, name := range s.consumers() {
		if err := s.JS.DeleteConsumer(t.Context(), wire.DefaultSource, name); err != nil {
			t.Fatal(err)
		}
	}
	time.AfterFunc(100*time.Millisecond, cancel)
	select {
	case err := <-waiting:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("following ended with %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("following does not end with its context")
	}
	began := time.Now()
	_, err := tail.Fetch(t.Context(), "a.b", 0, false)
	if took := time.Since(began); err == nil || took > client.Patience+client.Patience/5+time.Second {
		t.Errorf("a read ended after %s with %v", took, err)
	}
}

func (s *system) consumers() (names []string) {
	s.T.Helper()
	stream, err := s.JS.Stream(s.T.Context(), wire.DefaultSource)
	if err != nil {
		s.T.Fatal(err)
	}
	list := stream.ConsumerNames(s.T.Context())
	for name := range list.Name() {
		names = append(names, name)
	}
	if err := list.Err(); err != nil {
		s.T.Fatal(err)
	}
	return names
}

func (s *system) until(what string, ok func() bool) {
	s.T.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			s.T.Fatalf("waited for %s in vain", what)
		}
	}
}

// TestTailGoesOnWithAnotherConsumer when its own is gone.
func TestTailGoesOnWithAnotherConsumer(t *testing.T) {
	s := newSystem(t)
	tail := s.tail()
	first := s.Publish("a.b", "1")
	if got := fetch(t, tail, 0, false); !slices.Equal(got, []uint64{first}) {
		t.Fatalf("got %v", got)
	}
	for _, name := range s.consumers() {
		if err := s.JS.DeleteConsumer(t.Context(), wire.DefaultSource, name); err != nil {
			t.Fatal(err)
		}
	}
	next := s.Publish("a.b", "2")
	got := fetch(t, tail, first, true) // nothing: the reader looks at the archive first
	got = append(got, fetch(t, tail, first, true)...)
	if !slices.Equal(got, []uint64{next}) {
		t.Errorf("got %v, want %d", got, next)
	}
}

// TestTailWhoseConsumersFail gives up: they announce a message, and end without it.
func TestTailWhoseConsumersFail(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	s.Publish("a.b", "1")
	tail := s.tail()
	tail.js = natstest.Gate(t, s.NC, func(request string, msg *nats.Msg) bool {
		if !strings.HasPrefix(request, "CONSUMER.MSG.NEXT.") {
			return false
		}
		gone := nats.NewMsg(msg.Reply)
		gone.Header.Set("Status", "409")
		gone.Header.Set("Description", "Consumer Deleted")
		if err := s.NC.PublishMsg(gone); err != nil {
			t.Error(err)
		}
		return true
	})
	began := time.Now()
	_, err := tail.Fetch(t.Context(), "a.b", 0, false)
	if took := time.Since(began); !errors.Is(err, jetstream.ErrConsumerDeleted) || took > client.Patience+5*time.Second {
		t.Errorf("ended after %s with %v", took, err)
	}
}
