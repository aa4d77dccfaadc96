package streamreader

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/jsapi"
	"dormouse/internal/natstest"
)

// losing is a JetStream that loses requests for messages, as many as it is told to, and every other one with a word.
func losing(t *testing.T, js jetstream.JetStream, n *atomic.Int32) jetstream.JetStream {
	return natstest.Gate(t, js.Conn(), func(request string, msg *nats.Msg) bool {
		if !strings.HasPrefix(request, "CONSUMER.MSG.NEXT.") || n.Add(-1) < 0 {
			return false
		}
		if n.Load()%2 == 0 {
			word := control("503", "")
			word.Subject = msg.Reply
			if err := js.Conn().PublishMsg(word); err != nil {
				t.Error(err)
			}
		}
		return true
	})
}

// TestFirstRequestLost: it is missed at once, since owners take over in less than two seconds.
func TestFirstRequestLost(t *testing.T) {
	js := newStream(t, 200)
	var lose atomic.Int32
	lose.Store(2)
	c := open(t, losing(t, js, &lose), "", 1)
	began := time.Now()
	for want := uint64(1); want <= 200; want++ {
		if seq, err := next(t, c); err != nil || seq != want {
			t.Fatalf("got %d, %v, want %d", seq, err, want)
		}
	}
	if took := time.Since(began); took < 3*probeWait || took > 2*time.Second {
		t.Errorf("took %s", took)
	}
}

// TestSilence: neither a server that never answers nor one that falls silent is waited for.
func TestSilence(t *testing.T) {
	for name, answered := range map[string]bool{"from the first": false, "later": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			js := newStream(t, 1)
			var lose atomic.Int32
			if !answered {
				lose.Store(1000)
			}
			limits := Limits{Messages: 10, Heartbeat: 50 * time.Millisecond}
			c, err := Open(t.Context(), losing(t, js, &lose), "S", "", 1, limits)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Stop()
			if answered {
				if _, err := next(t, c); err != nil {
					t.Fatal(err)
				}
				lose.Store(1000)
			}
			if _, err := next(t, c); !errors.Is(err, errSilent) && !(answered && errors.Is(err, nats.ErrNoResponders)) {
				t.Errorf("ended with %v", err)
			}
		})
	}
}

// TestSilenceOverShortWaits: a reader that ends each of its waits early, to look after other things, hears of a silent
// server all the same.
func TestSilenceOverShortWaits(t *testing.T) {
	js := newStream(t, 1)
	var lose atomic.Int32
	c, err := Open(t.Context(), losing(t, js, &lose), "S", "", 1, Limits{Messages: 10, Heartbeat: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Stop()
	if _, err := next(t, c); err != nil {
		t.Fatal(err)
	}
	lose.Store(1000) // the next one without a word
	for began := time.Now(); ; {
		wait, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		_, err := c.Next(wait)
		cancel()
		switch {
		case errors.Is(err, errSilent):
			return
		case !errors.Is(err, context.DeadlineExceeded):
			t.Fatalf("ended with %v", err)
		case time.Since(began) > patience:
			t.Fatalf("not noticed in %s", patience)
		}
	}
}

// heartbeat of tests in which none may be missed: a machine under load is late.
const heartbeat = 250 * time.Millisecond

// TestHeartbeats keep a consumer alive that nothing comes for, also while nobody takes them.
func TestHeartbeats(t *testing.T) {
	js := newStream(t, 0)
	c, err := Open(t.Context(), js, "S", "", 1, Limits{Messages: 1, Heartbeat: heartbeat})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Stop()
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), 3*heartbeat)
		if _, err := c.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("waiting ended with %v", err)
		}
		cancel()
		waitUntil(t, "heartbeats that nobody takes", func() bool { return len(c.received) > 2 })
	}
	publish(t, js, 1)
	if seq, err := next(t, c); err != nil || seq != 1 {
		t.Errorf("got %d, %v", seq, err)
	}
}

func waitUntil(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s for %s", patience, what)
		}
	}
}

// TestMessageAboveTheLimit comes alone.
func TestMessageAboveTheLimit(t *testing.T) {
	js := newStream(t, 2)
	if _, err := js.Publish(t.Context(), "S.large", make([]byte, 10_000)); err != nil {
		t.Fatal(err)
	}
	publish(t, js, 4)
	c, err := Open(t.Context(), js, "S", "", 1, Limits{Messages: 10, Bytes: 1000})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Stop()
	for want := uint64(1); want <= 4; want++ {
		if seq, err := next(t, c); err != nil || seq != want {
			t.Fatalf("got %d, %v, want %d", seq, err, want)
		}
	}
}

// TestTry: it returns what has come, in order and without a wait, and is ended by what ends Next.
func TestTry(t *testing.T) {
	js := newStream(t, 3)
	c := open(t, js, "", 1)
	if _, ok, err := c.Try(); ok || err != nil { // nothing was asked for yet
		t.Fatalf("got one: %v, %v", ok, err)
	}
	if seq, err := next(t, c); err != nil || seq != 1 {
		t.Fatalf("got %d, %v", seq, err)
	}
	waitUntil(t, "the rest", func() bool { return len(c.received) >= 2 })
	c.received <- control("100", "Idle Heartbeat") // a word between the messages
	for want := uint64(2); want <= 3; want++ {
		m, ok, err := c.Try()
		if err != nil || !ok || m.Sequence != want {
			t.Fatalf("got %d: %v, %v, want %d", m.Sequence, ok, err, want)
		}
	}
	if m, ok, err := c.Try(); ok || err != nil {
		t.Fatalf("got %d: %v, %v", m.Sequence, ok, err)
	}
	publish(t, js, 7)
	if seq, err := next(t, c); err != nil || seq != 4 {
		t.Fatalf("got %d, %v", seq, err)
	}
	c.last-- // as if one had been lost
	publish(t, js, 8)
	waitUntil(t, "one more", func() bool { return len(c.received) >= 1 })
	if _, ok, err := c.Try(); ok || !errors.Is(err, errMissed) {
		t.Errorf("got one: %v, %v", ok, err)
	}
	if _, ok, err := c.Try(); ok || !errors.Is(err, errMissed) {
		t.Errorf("a consumer that has ended goes on: %v, %v", ok, err)
	}
}

// TestEndedContext ends Next also while there are messages to take.
func TestEndedContext(t *testing.T) {
	c := open(t, newStream(t, 10), "", 1)
	if _, err := next(t, c); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
	if seq, err := next(t, c); err != nil || seq != 2 {
		t.Errorf("got %d, %v after that", seq, err)
	}
}

// TestPassed: the server says how far it has nothing more, over what was deleted, and never over what is still to come.
func TestPassed(t *testing.T) {
	js := newStream(t, 5)
	stream, err := js.Stream(t.Context(), "S")
	if err != nil {
		t.Fatal(err)
	}
	for _, seq := range []uint64{2, 4, 5} {
		if err := stream.DeleteMsg(t.Context(), seq); err != nil {
			t.Fatal(err)
		}
	}
	c, err := Open(t.Context(), js, "S", "", 1, Limits{Messages: 10, Heartbeat: heartbeat})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Stop()
	for _, want := range []uint64{1, 3} {
		if c.Passed() != 0 {
			t.Errorf("passed %d before sequence %d was returned", c.Passed(), want)
		}
		if seq, err := next(t, c); err != nil || seq != want {
			t.Fatalf("got %d, %v, want %d", seq, err, want)
		}
	}
	settles(t, c, 5)
	publish(t, js, 6)
	waitUntil(t, "message 6 to arrive", func() bool { return len(c.received) > 0 })
	if c.Passed() > 5 {
		t.Errorf("passed %d before sequence 6 was returned", c.Passed())
	}
	if seq, err := next(t, c); err != nil || seq != 6 {
		t.Fatalf("got %d, %v", seq, err)
	}
	if err := stream.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	settles(t, c, 6)
}

// settles waits until the consumer has passed a sequence, and no other one.
func settles(t *testing.T, c *Consumer, want uint64) {
	t.Helper()
	waitUntil(t, "the server's word", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if m, err := c.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %d, %v", m.Sequence, err)
		}
		return c.Passed() >= want
	})
	if c.Passed() != want {
		t.Errorf("passed %d, want %d", c.Passed(), want)
	}
}

// TestStoppedConsumerIsGone at the server, also one that failed, and one whose making was not answered.
func TestStoppedConsumerIsGone(t *testing.T) {
	js := newStream(t, 1)
	stream, err := js.Stream(t.Context(), "S")
	if err != nil {
		t.Fatal(err)
	}
	left := func() (names []string) {
		list := stream.ConsumerNames(t.Context())
		for name := range list.Name() {
			names = append(names, name)
		}
		return names
	}
	open(t, js, "", 1).Stop()
	if names := left(); len(names) > 0 {
		t.Errorf("after Stop: %v", names)
	}
	failed := open(t, js, "", 1)
	failed.received <- &nats.Msg{Subject: "S.odd", Reply: "$JS.ACK.S.c.1.9.2.0.0"}
	if _, err := next(t, failed); err == nil {
		t.Fatal("it did not fail")
	}
	failed.Stop()
	if names := left(); len(names) > 0 {
		t.Errorf("after a failure: %v", names)
	}
	var late atomic.Pointer[nats.Msg] // the request goes on when it is waited for no more
	slow := natstest.Gate(t, js.Conn(), func(request string, msg *nats.Msg) bool {
		if strings.HasPrefix(request, "CONSUMER.CREATE.") {
			late.Store(&nats.Msg{Subject: jetstream.DefaultAPIPrefix + request, Reply: msg.Reply, Data: msg.Data})
			return true
		}
		if msg := late.Swap(nil); msg != nil && strings.HasPrefix(request, "CONSUMER.DELETE.") {
			if _, err := js.Conn().Request(msg.Subject, msg.Data, patience); err != nil {
				t.Error(err)
			}
		}
		return false
	})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Open(ctx, slow, "S", "", 1, Limits{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("ended with %v", err)
	}
	waitUntil(t, "the consumer to be gone", func() bool { return late.Load() == nil && len(left()) == 0 })
}

// TestStopDoesNotWait for a server that does not answer.
func TestStopDoesNotWait(t *testing.T) {
	js := newStream(t, 1)
	deaf := func(request string, _ *nats.Msg) bool { return strings.HasPrefix(request, "CONSUMER.DELETE.") }
	c := open(t, natstest.Gate(t, js.Conn(), deaf), "", 1)
	began := time.Now()
	if c.Stop(); time.Since(began) > stopWait+time.Second {
		t.Errorf("took %s", time.Since(began))
	}
}

// TestNoMoreConsumers says which limit it is, and that trying again does not help.
func TestNoMoreConsumers(t *testing.T) {
	_, js := natstest.Dial(t, natstest.Start(t))
	makeStream(t, js, 1)
	first := open(t, js, "", 1)
	_, err := Open(t.Context(), js, "S", "", 1, Limits{})
	if !errors.Is(err, jetstream.ErrMaximumConsumersLimit) || !jsapi.IsPermanent(err) ||
		!strings.Contains(err.Error(), "max_consumers") {
		t.Errorf("the second consumer: %v", err)
	}
	first.Stop()
	open(t, js, "", 1)
}

// TestClosedConnection ends Next.
func TestClosedConnection(t *testing.T) {
	c := open(t, newStream(t, 0), "", 1)
	time.AfterFunc(20*time.Millisecond, c.js.Conn().Close)
	if _, err := next(t, c); !errors.Is(err, nats.ErrConnectionClosed) || !jsapi.IsPermanent(err) {
		t.Errorf("ended with %v", err)
	}
}

// TestSubjectsLikeWildcards: the server takes them for what they are, a subject of their own.
func TestSubjectsLikeWildcards(t *testing.T) {
	_, js := natstest.Dial(t, natstest.Start(t))
	makeStream(t, js, 0)
	subjects := []string{
		"S.a>b", "S.a*b", "S.>a", "S.a>", "S.*a", "S.a*", "S.**", "S.>>", "S.a>.x", "S.>x.y", "S.*x.y", "S.axb", "S.a",
		"S.a.x",
	}
	for _, subject := range subjects {
		if _, err := js.Publish(t.Context(), subject, nil); err != nil {
			t.Fatal(err)
		}
	}
	for i, subject := range subjects {
		c := open(t, js, subject, 1)
		m, err := nextMessage(t, c)
		if err != nil || m.Subject != subject || m.Sequence != uint64(i+1) || m.Pending != 0 || c.Pending() != 1 {
			t.Errorf("%s: %+v, %v", subject, m, err)
		}
		last, err := jsapi.GetLast(t.Context(), js, "S", subject)
		if err != nil || last.Subject != subject || last.Sequence != uint64(i+1) {
			t.Errorf("last of %s: %+v, %v", subject, last, err)
		}
	}
}
