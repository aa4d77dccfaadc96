package integration

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/shardid"
	"dormouse/internal/wire"
)

// TestOddWorkItems does to the queue of a running system what redeliveries and foreign hands do: every real item comes
// two more times, some are taken and given back, and some are none. It costs tries, and nothing else.
func TestOddWorkItems(t *testing.T) {
	t.Parallel()
	const rounds = 12
	in := newInstance(t, fast...)
	// no item leaves the queue by its age
	in.args = append(in.args, "--shards", "2", "--workers", "4", "--requeue-after", "1m")
	in.start()
	nc, js := dial(t, in.nats)
	const made = "Made" // header of the items that are not the owners'
	var copies atomic.Int64
	sub, err := nc.Subscribe(wire.SyncQueueSubjects, func(msg *nats.Msg) {
		if msg.Header.Get(made) != "" {
			return
		}
		for range 2 {
			if err := nc.PublishMsg(&nats.Msg{Subject: msg.Subject, Data: msg.Data,
				Header: nats.Header{made: {"copy"}}}); err == nil {
				copies.Add(1)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	put := func(shard shardid.Shard, data []byte) {
		t.Helper()
		if _, err := js.PublishMsg(t.Context(), &nats.Msg{Subject: wire.SyncSubject(shard), Data: data,
			Header: nats.Header{made: {"odd"}}}); err != nil {
			t.Fatal(err)
		}
	}
	o := newOracle()
	load := startPublishers(t, in.nats, o, 11)
	thief, err := js.Consumer(t.Context(), wire.SyncQueueStream, wire.SyncQueuePool)
	if err != nil {
		t.Fatal(err)
	}
	item := func(shard shardid.Shard, epoch uint64, logs ...string) []byte {
		data, err := wire.Encode(wire.WorkItem{Shard: shard, Epoch: epoch, Logs: logs})
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	poison, stale := 0, 0
	for i := range rounds {
		for _, odd := range [][]byte{[]byte("garbage"), nil, item(0, 1), item(0, 1, "no-log"), item(1, 1, "t1.b", "t1.a")} {
			put(shardid.Shard(i%2), odd)
			poison++
		}
		for _, odd := range []wire.WorkItem{{Shard: 0, Epoch: 0}, {Shard: 1, Epoch: 99}, {Shard: 77, Epoch: 1}} {
			put(odd.Shard, item(odd.Shard, odd.Epoch, "t0.log0", "t1.log1"))
			stale++
		}
		// Logs of which some have nothing buffered and some are in the other shard.
		put(0, item(0, 1, "nobody.log", "t0.log0", "t1.log1", "t2.log2"))
		stolen, err := thief.Fetch(1, jetstream.FetchMaxWait(200*time.Millisecond))
		if err != nil {
			t.Fatal(err)
		}
		for msg := range stolen.Messages() {
			if err := msg.Nak(); err != nil {
				t.Fatal(err)
			}
		}
	}
	load.Stop()
	entries, _ := o.Counts()
	in.awaitArchived()
	if err := sub.Unsubscribe(); err != nil {
		t.Fatal(err)
	}
	in.until("the queue to be empty", func() bool { return in.status().Queue.Items == 0 })
	o.check(in)
	if got, want := in.must("", "verify"), fmt.Sprintf(" %d entries: 0 bad", entries); !strings.Contains(got, want) {
		t.Errorf("verify printed %q, want %q", got, want)
	}
	m := in.metrics()
	outcome := func(what string) int { return int(m[`dormouse_work_items_total{outcome="`+what+`"}`]) }
	if outcome("poison") != poison || outcome("stale") != stale {
		t.Errorf("%d items were poison and %d stale, want %d and %d", outcome("poison"), outcome("stale"), poison, stale)
	}
	t.Logf("%d entries, %d copies of items, %d items done, %d given back, %v extents refused", entries, copies.Load(),
		outcome("done"), outcome("abandoned"), m["dormouse_extents_refused_total"])
	if n := int(copies.Load()); n == 0 || outcome("done") <= n {
		t.Errorf("%d items were done, of which %d are copies: they did not get there", outcome("done"), n)
	}
}
