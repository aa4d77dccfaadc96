package client

import (
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/natstest"
	"dormouse/internal/shardid"
	"dormouse/internal/topology"
	"dormouse/internal/wire"
)

// crowd is a system whose processes are the test's.
type crowd struct {
	t  *testing.T
	nc *nats.Conn
	kv jetstream.KeyValue
	c  *Client
}

func newCrowd(t *testing.T) *crowd {
	t.Helper()
	srv := natstest.Start(t)
	nc, js := natstest.Dial(t, srv)
	if _, err := topology.Ensure(t.Context(), js, topology.Config{RequeueAfter: time.Minute,
		Lease: time.Minute}); err != nil {
		t.Fatal(err)
	}
	kv, err := js.KeyValue(t.Context(), wire.LeaseBucket)
	if err != nil {
		t.Fatal(err)
	}
	return &crowd{t, nc, kv, New(nc, js)}
}

func (c *crowd) put(key, value string) {
	c.t.Helper()
	if _, err := c.kv.Put(c.t.Context(), key, []byte(value)); err != nil {
		c.t.Fatal(err)
	}
}

// answer lets a process answer, each time after a while.
func (c *crowd) answer(after time.Duration, says func() wire.Process) {
	c.t.Helper()
	_, err := c.nc.Subscribe(wire.StatusSubject, func(msg *nats.Msg) {
		data, err := wire.Encode(says())
		if err != nil {
			c.t.Error(err)
		}
		time.AfterFunc(after, func() { _ = msg.Respond(data) })
	})
	if err == nil {
		err = c.nc.Flush()
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *crowd) status() Status {
	c.t.Helper()
	s, err := c.c.Status(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	return s
}

// TestSilentProcesses: who renewed a key or holds a lease and does not answer is silent, but not who gave them up or is
// only slow.
func TestSilentProcesses(t *testing.T) {
	c := newCrowd(t)
	c.answer(0, func() wire.Process { return wire.Process{ID: "quick", Host: "web-1"} })
	c.put(wire.NodeKeys+"quick", `{"node":"quick","host":"web-1"}`)
	c.put(wire.NodeKeys+"left", `{"node":"left"}`)
	if err := c.kv.Delete(t.Context(), wire.NodeKeys+"left"); err != nil {
		t.Fatal(err)
	}
	c.put("nonsense", `{"node":"nonsense"}`)
	c.put(wire.NodeKeys+"garbage", `{`)
	if s := c.status(); len(s.Silent) != 0 || len(s.Processes) != 1 {
		t.Errorf("%+v, silent are %+v", s.Processes, s.Silent)
	}
	c.put(wire.NodeKeys+"slow", `{"node":"slow"}`)
	c.answer(2*statusSilence, func() wire.Process { return wire.Process{ID: "slow"} })
	if s := c.status(); len(s.Silent) != 0 || len(s.Processes) != 2 {
		t.Errorf("with one that is slow: %+v, silent are %+v", s.Processes, s.Silent)
	}
	c.put(wire.LeaseKey(0), `{"node":"frozen","host":"web-2"}`)
	c.put(wire.LeaseKey(3), `{"node":"frozen","host":"web-2"}`)
	c.put(wire.WaitingKeys+"waits", `{"node":"waits","host":"web-3"}`)
	s := c.status()
	if len(s.Silent) != 2 || s.Silent[0].Name != "web-2/frozen" ||
		!slices.Equal(s.Silent[0].Shards, []shardid.Shard{0, 3}) ||
		s.Silent[1].Name != "web-3/waits" {
		t.Errorf("silent are %+v", s.Silent)
	}
	if shard := s.Shards[0]; shard.Owner != nil || shard.Holder != "frozen" || shard.Name != "web-2/frozen" {
		t.Errorf("the shard is %+v", shard)
	}
}

// TestStatusAsksAgain: a process that does not know yet whether its bucket fails is asked once more.
func TestStatusAsksAgain(t *testing.T) {
	c := newCrowd(t)
	var asked atomic.Int32
	c.answer(0, func() wire.Process {
		if asked.Add(1) == 1 {
			return wire.Process{ID: "a", Looking: true}
		}
		return wire.Process{ID: "a", Bucket: "gone"}
	})
	if s := c.status(); len(s.Processes) != 1 || s.Processes[0].Bucket != "gone" || asked.Load() != 2 {
		t.Errorf("asked %d times: %+v", asked.Load(), s.Processes)
	}
}
