package programtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// ackPatience is how long a publisher waits for an ack, after which the outcome is unknown for good.
const ackPatience = 3 * time.Second

// Dial connects a client until the test ends. It outlives the servers: it tries for ever to reach one again, and sends
// nothing late that was published meanwhile. further options come last.
func Dial(t testing.TB, urls string, further ...nats.Option) (*nats.Conn, jetstream.JetStream) {
	t.Helper()
	nc, err := nats.Connect(urls, append([]nats.Option{nats.MaxReconnects(-1), nats.ReconnectWait(50 * time.Millisecond),
		nats.ReconnectBufSize(-1), nats.RetryOnFailedConnect(true),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})}, further...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncTimeout(ackPatience))
	if err != nil {
		t.Fatal(err)
	}
	return nc, js
}

// Publisher publishes bursts of entries to logs that are its own, and tells of each whether it was acked. There is no
// message id: a retry under one would hide duplicates.
type Publisher struct {
	Number int      // every entry begins with it; no other publisher may have it
	Logs   []string // it chooses among
	Burst  int      // entries at most whose acks it waits for together
	Size   int      // an entry has fewer bytes than this, besides its number
	Random *rand.Rand
	Send   func(subject string, data []byte) (jetstream.PubAckFuture, error) // error: nothing was sent
	Tell   func(log, data string, ack *jetstream.PubAck)                     // ack may be nil: see Oracle.Tell
	// until the next burst; whether one of the last was acked
	Pause func(acked bool) time.Duration
}

// Run publishes until ctx is done.
func (p *Publisher) Run(ctx context.Context) {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for n := 0; ctx.Err() == nil; {
		pause.Reset(p.Pause(p.burst(&n)))
		select {
		case <-ctx.Done():
		case <-pause.C:
		}
	}
}

// burst publishes entries after the nth and waits for their acks. It reports whether there was one.
func (p *Publisher) burst(n *int) (acked bool) {
	type sent struct {
		log, data string
		ack       jetstream.PubAckFuture
	}
	var waiting []sent
	for range 1 + p.Random.IntN(p.Burst) {
		*n++
		s := sent{log: p.Logs[p.Random.IntN(len(p.Logs))],
			data: fmt.Sprintf("%d/%d/%s", p.Number, *n, strings.Repeat("x", p.Random.IntN(p.Size)))}
		var err error
		if s.ack, err = p.Send("logs."+s.log, []byte(s.data)); err != nil {
			break
		}
		waiting = append(waiting, s)
	}
	timeout := time.After(ackPatience)
	for _, s := range waiting {
		var ack *jetstream.PubAck
		select {
		case ack = <-s.ack.Ok():
			acked = true
		case <-s.ack.Err():
		case <-timeout:
			timeout = time.After(0) // nor do the others get more time
		}
		p.Tell(s.log, s.data, ack)
	}
	return acked
}
