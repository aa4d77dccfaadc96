package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/programtest"
	"dormouse/internal/wire"
)

// oracle is what publishers know, held against what an instance reads.
type oracle struct{ *programtest.Oracle }

func newOracle() oracle { return oracle{programtest.NewOracle()} }

// last returns the highest sequence of the one default stream that was acked.
func (o oracle) last() uint64 { return o.Last(wire.DefaultSource) }

// check compares what was acked with what `dormouse read` prints: every acked entry once, in ascending sequence, and
// besides them only entries whose publisher does not know, at most once each. That nothing was acked is a failure.
func (o oracle) check(in *instance) { in.t.Helper(); o.checkLogs(in, o.Logs()...) }

func (o oracle) checkLogs(in *instance, logs ...string) {
	in.t.Helper()
	if err := o.Judgeable(logs); err != nil {
		in.t.Fatal(err)
	}
	for _, log := range logs {
		if err := o.Compare(log, in.must("", "read", log, "--output", "jsonl"), o.Acked(log), true); err != nil {
			in.t.Fatalf("the first log that is wrong is %s: %v\nthe server's log ends:\n%s", log, err, in.Tail())
		}
	}
}

const (
	publisherCount   = 3
	logsPerPublisher = 6
	publishBurst     = 24
)

// startPublishers starts publishers with logs of their own, which tell the oracle.
func startPublishers(t *testing.T, addr string, o oracle, seed uint64) *programtest.Background {
	t.Helper()
	var loops []func(context.Context)
	for i := range publisherCount {
		nc, js := dial(t, addr)
		r := rand.New(rand.NewPCG(seed, uint64(i)))
		p := &programtest.Publisher{Number: i, Burst: publishBurst, Size: 200, Random: r, Tell: o.Tell,
			Send: func(subject string, data []byte) (jetstream.PubAckFuture, error) {
				return js.PublishAsync(subject, data)
			},
			Pause: func(bool) time.Duration { return time.Duration(r.IntN(20)) * time.Millisecond }}
		for n := range logsPerPublisher {
			p.Logs = append(p.Logs, fmt.Sprintf("t%d.log%d", i, n))
		}
		loops = append(loops, func(ctx context.Context) { defer nc.Close(); p.Run(ctx) })
	}
	return programtest.Beside(t, loops...)
}

func dial(t *testing.T, addr string) (*nats.Conn, jetstream.JetStream) {
	t.Helper()
	return programtest.Dial(t, "nats://"+addr)
}

// source returns the state of the source stream.
func (in *instance) source() (jetstream.StreamState, error) {
	nc, err := nats.Connect("nats://"+in.nats, nats.MaxReconnects(0))
	if err != nil {
		return jetstream.StreamState{}, err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return jetstream.StreamState{}, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	stream, err := js.Stream(ctx, wire.DefaultSource)
	if err != nil {
		return jetstream.StreamState{}, err
	}
	return stream.CachedInfo().State, nil
}

func (in *instance) streamLast() uint64 {
	state, err := in.source()
	if err != nil {
		return 0
	}
	return state.LastSeq
}

// sourceEmpty reports whether all was archived and trimmed.
func (in *instance) sourceEmpty() bool {
	state, err := in.source()
	return err == nil && state.Msgs == 0
}
