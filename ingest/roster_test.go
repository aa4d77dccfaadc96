package ingest

import (
	"fmt"
	"log/slog"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/natstest"
	"dormouse/internal/topology"
	"dormouse/internal/wire"
)

// addShards makes source streams beside the default one, so that there are n in all. Tenants of shard k publish below k.
func (s *system) addShards(n int) {
	s.t.Helper()
	for k := 1; k < n; k++ {
		prefix := "shard" + strconv.Itoa(k)
		_, err := s.js.CreateStream(s.t.Context(), jetstream.StreamConfig{Name: prefix, Subjects: []string{prefix + ".>"},
			Metadata: map[string]string{wire.MetadataShard: strconv.Itoa(k), wire.MetadataPrefix: prefix, wire.MetadataManaged: "true"}})
		if err != nil {
			s.t.Fatal(err)
		}
	}
}

// awaitShares waits until each node owns as many shards as is said, and returns how long that took.
func (s *system) awaitShares(shares map[*node]float64) time.Duration {
	s.t.Helper()
	began := time.Now()
	s.until(fmt.Sprintf("shares of %v", shares), func() bool {
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
	own := func(c *Config) { c.NC, c.JS = natstest.Dial(t, s.srv) }
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
	s.publish("shard3.acme.web", "one")
	s.takeReady("acme.web")
}

// TestNodeThatIsGoneIsForgotten holds that a member that does not renew its key gets no shard for longer than a lease.
func TestNodeThatIsGoneIsForgotten(t *testing.T) {
	s := newSystem(t)
	kv, err := s.js.KeyValue(t.Context(), wire.LeaseBucket)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.PutString(t.Context(), wire.NodeKeys+"ghost", "{}"); err != nil {
		t.Fatal(err)
	}
	n := s.start("a", t.TempDir())
	s.until("the ghost to be forgotten and the shard to be owned", func() bool {
		_, err := kv.Get(t.Context(), wire.NodeKeys+"ghost")
		return err != nil && n.metric("dormouse_shards_owned") == 1
	})
}

// TestDeadOwnerIsReplacedWithinATerm holds that nobody waits for the server to drop the lease of a node that died.
func TestDeadOwnerIsReplacedWithinATerm(t *testing.T) {
	s := newSystem(t)
	const keptByTheServer = time.Hour
	if _, err := topology.Ensure(t.Context(), s.js, topology.Config{RequeueAfter: time.Minute, Lease: keptByTheServer, Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	a := s.start("a", t.TempDir(), func(c *Config) { c.NC, c.JS = natstest.Dial(t, s.srv) })
	s.awaitShares(map[*node]float64{a: 1})
	b := s.start("b", t.TempDir())
	s.until("b to stand by", func() bool { return b.node.HasPeers() && b.node.Ready() == nil })
	a.node.cfg.NC.Close()
	s.awaitShares(map[*node]float64{b: 1})
	s.publish("logs.acme.web", "one")
	s.takeReady("acme.web")
}

// change is one change of the lease bucket.
type change struct {
	jetstream.KeyValueEntry
	key, node string
	revision  uint64
}

func (c change) Key() string                     { return c.key }
func (c change) Value() []byte                   { return []byte(`{"node":"` + c.node + `"}`) }
func (c change) Revision() uint64                { return c.revision }
func (c change) Operation() jetstream.KeyValueOp { return jetstream.KeyValuePut }

// TestLapsedLease holds when a node takes the lease of another one to be over: not before its holder has stopped to trust it,
// within a term, and not when it could not have heard of a renewal.
func TestLapsedLease(t *testing.T) {
	const term = 12 * time.Second
	start := time.Now()
	at := func(d time.Duration) time.Time { return start.Add(d) }
	heldByB := func() *roster {
		r := newRoster(&leases{node: "a"}, term, slog.New(slog.DiscardHandler))
		r.setFit(true)
		r.setShards([]wire.Shard{0})
		r.hear(change{key: wire.NodeKeys + "a", revision: 1}, start)
		r.hear(change{key: wire.NodeKeys + "b", revision: 2}, start)
		r.hear(change{key: wire.LeaseKey(0), node: "b", revision: 3}, start)
		return r
	}
	is := func(r *roster, holder string, lapsed uint64, mine bool) {
		t.Helper()
		if p := r.place(0); p.holder != holder || p.lapsed != lapsed || p.mine != mine {
			t.Errorf("holder %q, lapsed revision %d, mine %v; want %q, %d, %v", p.holder, p.lapsed, p.mine, holder, lapsed, mine)
		}
	}

	r := heldByB()
	r.hear(change{key: wire.NodeKeys + "a", revision: 4}, at(term/2))
	r.expire(at(term / 2))
	is(r, "b", 0, false) // b still answers readers
	r.hear(change{key: wire.NodeKeys + "a", revision: 5}, at(term-1))
	r.expire(at(term - 1))
	is(r, "", 3, true)
	r.hear(change{key: wire.LeaseKey(0), node: "a", revision: 6}, at(term))
	is(r, "a", 0, true)

	r = heldByB()
	r.expire(at(term)) // nothing was heard at all: this node is blind
	is(r, "b", 0, false)
	r.hear(change{key: wire.NodeKeys + "a", revision: 4}, at(2*term))
	r.expire(at(2 * term)) // sees again, and b's renewals may be the next that it hears
	is(r, "b", 0, false)
	r.hear(change{key: wire.NodeKeys + "a", revision: 5}, at(2*term+term/2))
	r.expire(at(3*term - 1))
	is(r, "", 3, true)
}
