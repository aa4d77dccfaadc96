package ingest

import (
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/natstest"
	"dormouse/internal/topology"
	"dormouse/internal/wire"
)

// addShards makes source streams beside the default one, so that there are n in all. Tenants of shard k publish below
// k.
func (s *system) addShards(n int) {
	s.T.Helper()
	for k := 1; k < n; k++ {
		prefix := "shard" + strconv.Itoa(k)
		_, err := s.JS.CreateStream(s.T.Context(), jetstream.StreamConfig{Name: prefix, Subjects: []string{prefix + ".>"},
			Metadata: map[string]string{wire.MetadataShard: strconv.Itoa(k), wire.MetadataPrefix: prefix,
				wire.MetadataManaged: "true"}})
		if err != nil {
			s.T.Fatal(err)
		}
	}
}

// awaitShares waits until each node owns as many shards as is said, and returns how long that took.
func (s *system) awaitShares(shares map[*node]float64) time.Duration {
	s.T.Helper()
	began := time.Now()
	s.Until(fmt.Sprintf("shares of %v", shares), func() bool {
		for n, want := range shares {
			if n.metric("dormouse_shards_owned") != want {
				return false
			}
		}
		return true
	})
	return time.Since(began)
}

// TestShardsSpread holds that shards are spread evenly over the nodes that live, and that a node which leaves in order
// hands its share over at once, without anybody waiting for its leases.
func TestShardsSpread(t *testing.T) {
	s := newSystem(t)
	s.addShards(6)
	own := func(c *Config) { c.NC, c.JS = natstest.Dial(t, s.Server) }
	a := s.start("a", t.TempDir())
	s.awaitShares(map[*node]float64{a: 6})
	b := s.start("b", t.TempDir())
	s.awaitShares(map[*node]float64{a: 3, b: 3})
	c := s.start("c", t.TempDir(), own)
	s.awaitShares(map[*node]float64{a: 2, b: 2, c: 2})
	for _, n := range []*node{a, b, c} {
		if err := n.node.Ready(); err != nil {
			t.Errorf("node %s is not ready though every shard is owned: %v", n.name, err)
		}
	}
	go b.stop()
	if took := s.awaitShares(map[*node]float64{a: 3, c: 3}); took >= a.node.cfg.Lease {
		t.Errorf("the handover took %s, as long as if the node had died", took)
	}
	c.node.cfg.NC.Close() // as a process that dies: nothing is handed over
	if took := s.awaitShares(map[*node]float64{a: 6}); took < a.node.cfg.Lease/3 {
		t.Errorf("took the shards after %s from a node that held their leases", took)
	}
	s.Publish("shard3.acme.web", "one")
	s.TakeReady("acme.web")
}

// TestNodeThatIsGoneIsForgotten holds that a member that does not renew its key gets no shard for longer than a lease.
func TestNodeThatIsGoneIsForgotten(t *testing.T) {
	s := newSystem(t)
	kv, err := s.JS.KeyValue(t.Context(), wire.LeaseBucket)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.PutString(t.Context(), wire.NodeKeys+"ghost", "{}"); err != nil {
		t.Fatal(err)
	}
	n := s.start("a", t.TempDir())
	s.Until("the ghost to be forgotten and the shard to be owned", func() bool {
		_, err := kv.Get(t.Context(), wire.NodeKeys+"ghost")
		return err != nil && n.metric("dormouse_shards_owned") == 1
	})
}

// TestDeadOwnerIsReplacedWithinATerm holds that nobody waits for the server to drop the lease of a node that died.
func TestDeadOwnerIsReplacedWithinATerm(t *testing.T) {
	s := newSystem(t)
	const keptByTheServer = time.Hour
	if _, err := topology.Ensure(t.Context(), s.JS,
		topology.Config{RequeueAfter: time.Minute, Lease: keptByTheServer, Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	a := s.start("a", t.TempDir(), func(c *Config) { c.NC, c.JS = natstest.Dial(t, s.Server) })
	s.awaitShares(map[*node]float64{a: 1})
	b := s.start("b", t.TempDir())
	s.Until("b to stand by", func() bool { return b.node.HasPeers() && b.node.Ready() == nil })
	a.node.cfg.NC.Close()
	s.awaitShares(map[*node]float64{b: 1})
	s.Publish("logs.acme.web", "one")
	s.TakeReady("acme.web")
}

// TestNodeThatEndsGivesUpWhatItHolds at once, so that nobody waits for it; and no shard is taken for served any more.
func TestNodeThatEndsGivesUpWhatItHolds(t *testing.T) {
	s := newSystem(t)
	n := s.start("a", t.TempDir())
	n.awaitOwned()
	keys := []string{wire.LeaseKey(0), wire.NodeKeys + "a"}
	for _, key := range keys {
		if !s.hasKey(key) {
			t.Errorf("an owner does not hold %s", key)
		}
	}
	s.start("b", t.TempDir())
	s.Until("a to know b", n.node.HasPeers)
	n.stop()
	for _, key := range keys {
		if s.hasKey(key) {
			t.Errorf("%s is held after the end", key)
		}
	}
	members := n.node.members.Load()
	members.Withdraw(errors.New("which leaves to b what a does not serve"))
	if mine, _ := members.Share(0); mine > 0 {
		t.Errorf("%d shards are served after the end", mine)
	}
}
