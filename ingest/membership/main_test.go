package membership

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"dormouse/internal/natstest"
	"dormouse/internal/topology"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newBucket starts a NATS server with a lease bucket.
func newBucket(t *testing.T) jetstream.JetStream {
	t.Helper()
	_, js := natstest.Dial(t, natstest.Start(t))
	cfg := topology.Config{RequeueAfter: time.Minute, Lease: 2 * time.Second, Replicas: 1}
	if _, err := topology.Ensure(t.Context(), js, cfg); err != nil {
		t.Fatal(err)
	}
	return js
}
