package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/programtest"
)

// burst is how many entries a publisher waits for together, at most.
const burst = 12

// unhurried is how long a run may be before its publishers pause longer, so that what a log holds in the end stays
// small enough to be read while the faults go on.
const unhurried = 6 * time.Minute

// startPublishers starts publishers with logs of their own, which tell the oracle of each entry what they know.
func startPublishers(c *cluster, o *oracle, seed uint64, length time.Duration) *programtest.Background {
	c.t.Helper()
	slower := max(int(length/unhurried), 1)
	var loops []func(context.Context)
	for i, name := range c.parts.publishers {
		nc, js := programtest.Dial(c.t, c.urlsFor(name), nats.Name(name), nats.Timeout(time.Second),
			nats.PingInterval(time.Second), nats.MaxPingsOutstanding(2))
		r := rand.New(rand.NewPCG(seed, uint64(i)+1))
		p := &programtest.Publisher{Number: i, Burst: burst, Size: 300, Random: r, Tell: o.tell,
			Send: func(subject string, data []byte) (jetstream.PubAckFuture, error) {
				ack, err := js.PublishAsync(subject, data, jetstream.WithRetryAttempts(0))
				if err != nil {
					o.neverSent()
				}
				return ack, err
			},
			Pause: func(acked bool) time.Duration {
				pause := (5 + r.IntN(40)) * slower
				if !acked {
					pause += 200 // there is no leader, or no connection
				}
				return time.Duration(pause) * time.Millisecond
			}}
		for n := range logsEach {
			p.Logs = append(p.Logs, logOf(i, n))
		}
		loops = append(loops, func(ctx context.Context) { defer nc.Close(); p.Run(ctx) })
	}
	return programtest.Beside(c.t, loops...)
}

// logOf is the name of a publisher's log. Tenants differ, so that the logs are spread over the shards.
func logOf(publisher, n int) string { return fmt.Sprintf("tenant%d-%d.web.log%d", publisher, n, n) }
