package integration

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// TestManyLogsInOneTick lets 100,000 logs of one entry each (in the short form 20,000) fall due together: they are
// taken in before the first of them is due, and a slot is so wide that all of them are in one or two. It holds
// invariant 6, that goroutines do not follow the number of logs, and invariant 7, that sleeping logs leave nothing
// behind.
func TestManyLogsInOneTick(t *testing.T) {
	const limit = 200
	logs, delay := 100_000, "30s"
	if testing.Short() {
		logs, delay = 20_000, "8s"
	}
	in := newInstance(t, "--max-delay", delay, "--tick", "4s", "--trim-delay", "1100ms")
	var err error
	if in.program, err = plainBinary(); err != nil {
		t.Fatal(err)
	}
	in.start()
	in.args = append(in.args, "--roles", "worker") // nobody takes entries in while they are published
	if code := in.stop(); code != 0 {
		t.Fatalf("exit %d", code)
	}
	in.start()
	nc, js := dial(t, in.nats)
	defer nc.Close()
	var acks []jetstream.PubAckFuture
	settle := func() {
		t.Helper()
		for _, ack := range acks {
			select {
			case <-ack.Ok():
			case err := <-ack.Err():
				t.Fatal(err)
			}
		}
		acks = acks[:0]
	}
	for i := range logs {
		ack, err := js.PublishAsync(fmt.Sprintf("logs.t%d.log%d", i%1000, i), []byte("the only entry"))
		if err != nil {
			t.Fatal(err)
		}
		if acks = append(acks, ack); len(acks) == 2000 {
			settle()
		}
	}
	settle()
	nc.Close()
	in.stop()
	in.args = in.args[:len(in.args)-2]
	in.launch()
	peak, active := 0.0, 0.0
	deadline := time.Now().Add(2 * patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	began := time.Now()
	for m := in.metrics(); m["dormouse_entries_synced_total"] < float64(logs); m = in.metrics() {
		peak, active = max(peak, m["go_goroutines"]), max(active, m["dormouse_logs_active"])
		if time.Now().After(deadline) {
			t.Fatalf("%v of %d entries archived\n%s", m["dormouse_entries_synced_total"], logs, in.Tail())
		}
		<-tick.C
	}
	m := in.metrics()
	perPut := m["dormouse_entries_synced_total"] / m["dormouse_segments_committed_total"]
	t.Logf("%d logs archived in %s: peak %v goroutines, at most %v logs active at once, %.0f logs a segment", logs,
		time.Since(began).Round(time.Millisecond), peak, active, perPut)
	if peak == 0 || peak >= limit {
		t.Errorf("%v goroutines at the peak, the limit is %d", peak, limit)
	}
	if active != float64(logs) {
		t.Errorf("at most %v logs were active at once, want all %d", active, logs)
	}
	in.awaitMetric("dormouse_logs_active", 0)
	if m := in.metrics(); m["dormouse_entries_synced_total"] != float64(logs) || m["dormouse_buffer_bytes"] != 0 {
		t.Errorf("%v entries synced, %v bytes buffered, want %d and 0", m["dormouse_entries_synced_total"],
			m["dormouse_buffer_bytes"], logs)
	}
	in.until("the source stream to be trimmed", in.sourceEmpty)
}
