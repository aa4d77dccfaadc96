package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// acked is one entry that JetStream acknowledged.
type acked struct {
	seq  uint64
	data string
}

// oracle knows, for each log, what publishers were acked and what they cannot know about, because the connection went
// while they waited.
type oracle struct {
	mu      sync.Mutex
	acked   map[string][]acked
	unknown map[string]map[string]bool
}

func newOracle() *oracle {
	return &oracle{acked: make(map[string][]acked), unknown: make(map[string]map[string]bool)}
}

func (o *oracle) add(log, data string, ack *jetstream.PubAck) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if ack != nil {
		o.acked[log] = append(o.acked[log], acked{ack.Sequence, data})
		return
	}
	if o.unknown[log] == nil {
		o.unknown[log] = make(map[string]bool)
	}
	o.unknown[log][data] = true
}

func (o *oracle) count() (entries int, last uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, all := range o.acked {
		entries += len(all)
		for _, a := range all {
			last = max(last, a.seq)
		}
	}
	return entries, last
}

func (o *oracle) logs() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var logs []string
	for log := range o.acked {
		logs = append(logs, log)
	}
	slices.Sort(logs)
	return logs
}

// check compares what was acked with what `dormouse read` prints: every acked entry once, in ascending sequence, and
// besides them only entries whose publisher does not know, at most once each.
func (o *oracle) check(in *instance) { in.t.Helper(); o.checkLogs(in, o.logs()...) }

func (o *oracle) checkLogs(in *instance, logs ...string) {
	in.t.Helper()
	for _, log := range logs {
		var last uint64
		got := make(map[string]uint64)
		for text := range strings.Lines(in.must("", "read", log, "--output", "jsonl")) {
			var e struct {
				Log, Data string
				Seq       uint64
			}
			if err := json.Unmarshal([]byte(text), &e); err != nil {
				in.t.Fatalf("%s: %q: %v", log, text, err)
			}
			if e.Log != log || e.Seq <= last {
				in.t.Errorf("%s: entry %d of %s after %d", log, e.Seq, e.Log, last)
			}
			last = e.Seq
			if before, twice := got[e.Data]; twice {
				in.t.Errorf("%s: %q was read twice, as %d and %d", log, e.Data, before, e.Seq)
			}
			got[e.Data] = e.Seq
		}
		for _, a := range o.acked[log] {
			if got[a.data] != a.seq {
				in.t.Errorf("%s: %q was acked as %d and read as %d (0 is not at all)", log, a.data, a.seq, got[a.data])
			}
			delete(got, a.data)
		}
		for data, seq := range got {
			if !o.unknown[log][data] {
				in.t.Errorf("%s: entry %d, %q, was never published", log, seq, data)
			}
		}
		if in.t.Failed() {
			in.t.Fatalf("the first log that is wrong is %s; the server's log ends:\n%s", log, in.tailOfLog())
		}
	}
}

// publishers publish to logs of their own until their context is done, and tell the oracle.
type publishers struct {
	cancel context.CancelFunc
	joined sync.WaitGroup
}

const (
	publisherCount   = 3
	logsPerPublisher = 6
	publishBurst     = 24
)

func startPublishers(t *testing.T, addr string, o *oracle, seed uint64) *publishers {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	p := &publishers{cancel: cancel}
	for i := range publisherCount {
		nc, js := dial(t, addr)
		p.joined.Go(func() {
			defer nc.Close()
			publishLoop(ctx, js, o, i, rand.New(rand.NewPCG(seed, uint64(i))))
		})
	}
	t.Cleanup(p.stop)
	return p
}

func (p *publishers) stop() { p.cancel(); p.joined.Wait() }

func publishLoop(ctx context.Context, js jetstream.JetStream, o *oracle, publisher int, r *rand.Rand) {
	type sent struct {
		log, data string
		ack       jetstream.PubAckFuture
	}
	pause := time.NewTimer(0)
	defer pause.Stop()
	for n := 0; ctx.Err() == nil; {
		var burst []sent
		for range 1 + r.IntN(publishBurst) {
			n++
			s := sent{log: fmt.Sprintf("t%d.log%d", publisher, r.IntN(logsPerPublisher)), data: fmt.Sprintf("%d/%d/%s", publisher, n, strings.Repeat("x", r.IntN(200)))}
			var err error
			if s.ack, err = js.PublishAsync("logs."+s.log, []byte(s.data)); err != nil {
				break // nothing was sent
			}
			burst = append(burst, s)
		}
		timeout := time.After(3 * time.Second)
		for _, s := range burst {
			var ack *jetstream.PubAck
			select {
			case ack = <-s.ack.Ok():
			case <-s.ack.Err():
			case <-timeout:
			}
			o.add(s.log, s.data, ack)
		}
		pause.Reset(time.Duration(r.IntN(20)) * time.Millisecond)
		select {
		case <-ctx.Done():
		case <-pause.C:
		}
	}
}

// dial connects a client that outlives the server.
func dial(t *testing.T, addr string) (*nats.Conn, jetstream.JetStream) {
	t.Helper()
	nc, err := nats.Connect("nats://"+addr, nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond), nats.ReconnectBufSize(-1),
		nats.RetryOnFailedConnect(true), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncTimeout(2*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	return nc, js
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
	stream, err := js.Stream(ctx, "LOGS")
	if err != nil {
		return jetstream.StreamState{}, errors.Join(err)
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
