package streamreader

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"dormouse/internal/natstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait of these tests; reaching it is a failure.
const patience = 20 * time.Second

// newStream returns a stream S with messages 1 to n on S.odd and S.even.
func newStream(t *testing.T, n int) jetstream.JetStream {
	t.Helper()
	_, js := natstest.Dial(t, natstest.Start(t))
	makeStream(t, js, 0)
	for i := range n {
		publish(t, js, i+1)
	}
	return js
}

// makeStream makes the stream S; maxConsumers 0 is no limit.
func makeStream(t testing.TB, js jetstream.JetStream, maxConsumers int) {
	t.Helper()
	cfg := jetstream.StreamConfig{Name: "S", Subjects: []string{"S.>"}, MaxConsumers: maxConsumers}
	if _, err := js.CreateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
}

func publish(t *testing.T, js jetstream.JetStream, i int) {
	t.Helper()
	if _, err := js.Publish(t.Context(), "S."+[]string{"even", "odd"}[i%2], fmt.Append(nil, i)); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, js jetstream.JetStream, subject string, from uint64) *Consumer {
	t.Helper()
	c, err := Open(t.Context(), js, "S", subject, from, Limits{Messages: 100, Bytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Stop)
	return c
}

// next returns the sequence of what Next returns, which must be soon.
func next(t *testing.T, c *Consumer) (uint64, error) {
	t.Helper()
	m, err := nextMessage(t, c)
	return m.Sequence, err
}

func nextMessage(t *testing.T, c *Consumer) (Message, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	m, err := c.Next(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("waited %s for a message", patience)
	}
	return m, err
}

func TestReadsInOrder(t *testing.T) {
	js := newStream(t, 1000)
	for _, tc := range []struct {
		subject string
		from    uint64
		step    uint64
		pending uint64
	}{{"", 1, 1, 1000}, {"", 400, 1, 601}, {"S.even", 400, 2, 301}} {
		c := open(t, js, tc.subject, tc.from)
		if c.Pending() != tc.pending {
			t.Errorf("%+v: %d are pending", tc, c.Pending())
		}
		for want := tc.from; want <= 1000; want += tc.step {
			if seq, err := next(t, c); err != nil || seq != want {
				t.Fatalf("%+v: got %d, %v, want %d", tc, seq, err, want)
			}
		}
	}
}

// TestWaitCanEnd: the end of a wait is not the consumer's.
func TestWaitCanEnd(t *testing.T) {
	js := newStream(t, 0)
	c := open(t, js, "", 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := c.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("the end of a wait: %v", err)
	}
	publish(t, js, 1)
	if seq, err := next(t, c); err != nil || seq != 1 {
		t.Fatalf("got %d, %v", seq, err)
	}
}

// TestConsumerThatIsGone went with its stream: nothing is tried again behind the reader's back.
func TestConsumerThatIsGone(t *testing.T) {
	js := newStream(t, 1)
	c := open(t, js, "", 1)
	if _, err := next(t, c); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(20*time.Millisecond, func() { _ = js.DeleteStream(context.WithoutCancel(t.Context()), "S") })
	if _, err := next(t, c); !errors.Is(err, jetstream.ErrConsumerDeleted) {
		t.Errorf("of a stream that is gone: %v", err)
	}
}

// TestReconnect: what was on its way is lost, and may have been the last.
func TestReconnect(t *testing.T) {
	js := newStream(t, 1)
	c := open(t, js, "", 1)
	if _, err := next(t, c); err != nil {
		t.Fatal(err)
	}
	if err := js.Conn().ForceReconnect(); err != nil {
		t.Fatal(err)
	}
	if _, err := next(t, c); !errors.Is(err, errReconnected) {
		t.Errorf("after a reconnect: %v", err)
	}
}

// TestMissedMessage: a message that is not the one after the last is the consumer's end.
func TestMissedMessage(t *testing.T) {
	c := open(t, newStream(t, 0), "", 1)
	c.received <- &nats.Msg{Subject: "S.odd", Reply: "$JS.ACK.S.c.1.9.2.0.0"}
	for range 2 {
		if _, err := next(t, c); !errors.Is(err, errMissed) {
			t.Fatalf("the second message without the first: %v", err)
		}
	}
}

// TestStop ends a Next that waits, from another goroutine, and may be called again and from several at once.
func TestStop(t *testing.T) {
	c := open(t, newStream(t, 0), "", 1)
	ended := make(chan error, 1)
	go func() {
		_, err := c.Next(context.WithoutCancel(t.Context()))
		ended <- err
	}()
	var stops sync.WaitGroup
	for range 4 {
		stops.Go(c.Stop)
	}
	stops.Wait()
	select {
	case err := <-ended:
		if !errors.Is(err, ErrStopped) {
			t.Errorf("Next ended with %v", err)
		}
	case <-time.After(patience):
		t.Fatalf("Next still waits %s after Stop", patience)
	}
}

func TestOpenFails(t *testing.T) {
	js := newStream(t, 0)
	if _, err := Open(t.Context(), js, "T", "", 1, Limits{}); err == nil {
		t.Error("a consumer of a stream that is not there")
	}
}
