package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// publishers publish to logs of their own until they are stopped, and tell the oracle of each entry what they know: it was
// acked, or it is unknown whether it was stored. There is no message id: a retry under one would hide duplicates.
type publishers struct {
	cancel context.CancelFunc
	joined sync.WaitGroup
	conns  []*nats.Conn
}

const (
	burst = 12 // entries at most that a publisher waits for together
	// ackPatience is how long a publisher waits for an ack, after which the outcome is unknown for good.
	ackPatience = 3 * time.Second
)

// unhurried is how long a run may be before its publishers pause longer, so that what a log holds in the end stays small
// enough to be read while the faults go on.
const unhurried = 6 * time.Minute

func startPublishers(c *cluster, o *oracle, seed uint64, length time.Duration) *publishers {
	c.t.Helper()
	slower := max(int(length/unhurried), 1)
	ctx, cancel := context.WithCancel(context.Background())
	p := &publishers{cancel: cancel}
	c.t.Cleanup(p.stop)
	for i, name := range c.parts.publishers {
		nc, err := nats.Connect(c.urlsFor(name), nats.Name(name), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond),
			nats.ReconnectBufSize(-1), nats.RetryOnFailedConnect(true), nats.Timeout(time.Second), nats.PingInterval(time.Second),
			nats.MaxPingsOutstanding(2), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
		if err != nil {
			c.t.Fatal(err)
		}
		p.conns = append(p.conns, nc)
		js, err := jetstream.New(nc, jetstream.WithPublishAsyncTimeout(ackPatience))
		if err != nil {
			c.t.Fatal(err)
		}
		p.joined.Go(func() { publishLoop(ctx, js, o, i, slower, rand.New(rand.NewPCG(seed, uint64(i)+1))) })
	}
	return p
}

// stop ends publishing; it may be called twice.
func (p *publishers) stop() {
	p.cancel()
	p.joined.Wait()
	for _, nc := range p.conns {
		nc.Close()
	}
}

// logOf is the name of a publisher's log. Tenants differ, so that the logs are spread over the shards.
func logOf(publisher, n int) string { return fmt.Sprintf("tenant%d-%d.web.log%d", publisher, n, n) }

func publishLoop(ctx context.Context, js jetstream.JetStream, o *oracle, publisher, slower int, r *rand.Rand) {
	type sent struct {
		log, data string
		ack       jetstream.PubAckFuture
	}
	pause := time.NewTimer(0)
	defer pause.Stop()
	for n := 0; ctx.Err() == nil; {
		var waiting []sent
		for range 1 + r.IntN(burst) {
			n++
			s := sent{log: logOf(publisher, r.IntN(o.logsEach)), data: fmt.Sprintf("%d/%d/%s", publisher, n, strings.Repeat("x", r.IntN(300)))}
			var err error
			s.ack, err = js.PublishAsync("logs."+s.log, []byte(s.data), jetstream.WithRetryAttempts(0))
			if err != nil {
				o.neverSent()
				break
			}
			waiting = append(waiting, s)
		}
		timeout, heard := time.After(ackPatience), false
		for _, s := range waiting {
			select {
			case ack := <-s.ack.Ok():
				heard = true
				o.acknowledged(s.log, s.data, ack)
			case <-s.ack.Err():
				o.unknownOutcome(s.log, s.data)
			case <-timeout:
				o.unknownOutcome(s.log, s.data)
				timeout = time.After(0) // nor do the others get more time
			}
		}
		next := (5 + r.IntN(40)) * slower
		if !heard {
			next += 200 // there is no leader, or no connection
		}
		pause.Reset(time.Duration(next) * time.Millisecond)
		select {
		case <-ctx.Done():
		case <-pause.C:
		}
	}
}
