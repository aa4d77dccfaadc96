package main

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"dormouse/internal/natstest"
	"dormouse/internal/topology"
)

// TestProvisionWaitsForPeers: right after a cluster was started JetStream refuses replicas for want of servers, as it
// does for good when there are too few. The server here does so with the answers of a test in the way of one request.
func TestProvisionWaitsForPeers(t *testing.T) {
	const refusals = 2
	srv := natstest.Start(t, func(o *natsserver.Options) {
		o.DontListen, o.Host, o.Port = false, "127.0.0.1",
			natsserver.RANDOM_PORT
	})
	if !srv.ReadyForConnections(10 * time.Second) {
		t.Fatal("the NATS server did not start")
	}
	nc, js := natstest.Dial(t, srv)
	create := "$JS.API.STREAM.CREATE." + topology.PartitionStream(1)
	if err := srv.GlobalAccount().AddMapping(create, "peers.offline"); err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int32
	_, err := nc.Subscribe("peers.offline", func(msg *nats.Msg) {
		if asked.Add(1) == refusals {
			srv.GlobalAccount().RemoveMapping(create) // before the answer, so that the next try gets through
		}
		_ = msg.Respond(
			[]byte(`{"type":"io.nats.jetstream.api.v1.stream_create_response",` +
				`"error":{"code":400,"err_code":10005,"description":"no suitable peers"}}`))
	})
	if err == nil {
		err = nc.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	got := command(t.Context(), nil, "provision", "--shards", "3", "--nats-url", srv.ClientURL())
	if got.code != exitOK || asked.Load() != refusals {
		t.Fatalf("asked %d times: %+v", asked.Load(), got)
	}
	if n := strings.Count(got.errors, "no suitable peers"); n != refusals || !strings.Contains(got.errors, "--replicas") {
		t.Errorf("it warned %d times: %s", n, got.errors)
	}
	sources, err := topology.Sources(t.Context(), js)
	if err != nil || len(sources) != 3 {
		t.Errorf("sources %+v, %v", sources, err)
	}
	for _, s := range sources { // also the shard that an earlier try had made
		if row := fmt.Sprintf("%s  ", s.Stream); !strings.Contains(got.out, row) ||
			strings.Count(got.out, "made") != len(sources) {
			t.Errorf("the output does not say that %s was made: %s", s.Stream, got.out)
		}
	}
}

// TestProvisionDoesNotWaitForNothing: replicas on a server of no cluster are refused at once.
func TestProvisionDoesNotWaitForNothing(t *testing.T) {
	_, url := startNATS(t)
	began := time.Now()
	got := command(t.Context(), nil, "provision", "--replicas", "3", "--nats-url", url)
	if got.code != exitFailed || !strings.Contains(got.errors, "replicas > 1") || strings.Contains(got.errors, "again") {
		t.Errorf("after %s: %+v", time.Since(began), got)
	}
}
