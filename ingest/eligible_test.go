package ingest

import (
	"errors"
	"fmt"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/ingest/shard"
	"dormouse/internal/wire"
)

// hasKey reports whether the lease bucket has a key.
func (s *system) hasKey(key string) bool {
	s.T.Helper()
	kv, err := s.JS.KeyValue(s.T.Context(), wire.LeaseBucket)
	if err == nil {
		_, err = kv.Get(s.T.Context(), key)
	}
	if err != nil && !errors.Is(err, jetstream.ErrKeyNotFound) {
		s.T.Fatal(err)
	}
	return err == nil
}

// snapshotOf lets a node own the shard and take a checkpoint, so that an empty disk needs the bucket.
func (s *system) checkpointOf(n *node) {
	s.T.Helper()
	n.awaitOwned()
	commits := 0
	s.Until("a checkpoint and the cut", func() bool {
		s.commitOne(fmt.Sprintf("0/%s%d.sst", n.name, commits), "t.a")
		commits++
		return n.metric("dormouse_checkpoints_total") > 0
	})
}

// TestNodeWithoutABucketTakesNothing holds that a node whose bucket does not answer is given no shard while another one
// lives, and its share as soon as the bucket answers.
func TestNodeWithoutABucketTakesNothing(t *testing.T) {
	s := newSystem(t)
	s.addShards(2)
	a := s.start("a", t.TempDir())
	s.awaitShares(map[*node]float64{a: 2})
	epoch := s.Epoch()
	bucket := &faulty{Bucket: s.Archive}
	bucket.checks.Store(true)
	b := s.start("b", t.TempDir(), func(c *Config) { c.Bucket = bucket })
	s.Until("b to stand by", func() bool { return b.node.HasPeers() && b.node.Ready() == nil })
	s.Until("b to ask the bucket again and again", func() bool { return bucket.failed.Load() >= 5 })
	if !s.hasKey(wire.WaitingKeys+"b") || s.hasKey(wire.NodeKeys+"b") || a.node.HasPeers() {
		t.Error("the node without a bucket looks to the others as if it could own shards")
	}
	if a.metric("dormouse_shards_owned") != 2 || s.Epoch() != epoch {
		t.Errorf("the shards changed hands: the other node has %v", a.metric("dormouse_shards_owned"))
	}
	bucket.checks.Store(false)
	s.awaitShares(map[*node]float64{a: 1, b: 1})
	s.Until("b to say no more that it waits", func() bool { return !s.hasKey(wire.WaitingKeys + "b") })
	bucket.checks.Store(true) // of an owner, which goes on
	bucket.gets.Store(true)
	a.stop()
	s.awaitShares(map[*node]float64{b: 2})
}

// TestWithdrawnNodeKeepsWhatItServes holds that a node which leaves shards to others goes on with those that it serves.
func TestWithdrawnNodeKeepsWhatItServes(t *testing.T) {
	t.Parallel() // it waits most of its time
	s := newSystem(t)
	s.addShards(2)
	bucket := &faulty{Bucket: s.Archive}
	a := s.start("a", t.TempDir())
	b := s.start("b", t.TempDir(), func(c *Config) { c.Bucket = bucket })
	s.awaitShares(map[*node]float64{a: 1, b: 1})
	bucket.checks.Store(true)
	b.node.members.Load().Withdraw(shard.ErrArchiveUnread)
	s.Until("b to ask the bucket again and again", func() bool { return bucket.failed.Load() >= 5 })
	if a.node.HasPeers() || b.metric("dormouse_shards_owned") != 1 || b.metric("dormouse_owner_stepdowns_total") != 0 {
		t.Errorf("b owns %v shards, stepped down %v times", b.metric("dormouse_shards_owned"),
			b.metric("dormouse_owner_stepdowns_total"))
	}
	a.stop()
	s.awaitShares(map[*node]float64{b: 2})
}

// TestEveryBucketIsAway lets all nodes start while the bucket is away. Who has the checkpoint on its disk must come to
// own the shard, also if one that has not was first; and one that is alone must own it once the bucket is back.
func TestEveryBucketIsAway(t *testing.T) {
	t.Parallel() // it waits most of its time
	s := newSystem(t)
	dir, bucket := t.TempDir(), &faulty{Bucket: s.Archive}
	with := func(c *Config) { often(c); c.Bucket = bucket }
	a := s.start("a", dir, with)
	s.checkpointOf(a)
	a.stop()
	bucket.checks.Store(true)
	bucket.gets.Store(true)
	b := s.start("b", t.TempDir(), with)
	b.awaitMetric("dormouse_shards_claiming", 1) // alone, it tries
	a = s.start("a", dir, with)
	a.awaitOwned()
	a.stop()
	b.awaitMetric("dormouse_shards_claiming", 1)
	bucket.checks.Store(false)
	bucket.gets.Store(false)
	b.awaitOwned()
}

// TestArchiveThatCannotBeRead holds that a node which seems to have a bucket, and yet cannot load what it needs,
// leaves the shard to others, comes back, and can own shards then.
func TestArchiveThatCannotBeRead(t *testing.T) {
	t.Parallel() // it waits most of its time
	s := newSystem(t)
	dir, bucket := t.TempDir(), &faulty{Bucket: s.Archive}
	a := s.start("a", dir, often)
	s.checkpointOf(a)
	b := s.start("b", t.TempDir(), func(c *Config) { often(c); c.Bucket = bucket })
	s.Until("a to know b", a.node.HasPeers)
	bucket.gets.Store(true)
	a.stop()
	s.Until("b to need the archive", func() bool { return bucket.failed.Load() > 0 })
	a = s.start("a", dir, often)
	a.awaitOwned()
	s.Until("b to look to the others as one that owns no shards", func() bool { return !s.hasKey(wire.NodeKeys + "b") })
	bucket.gets.Store(false)
	s.Until("b to come back", a.node.HasPeers)
	a.stop()
	b.awaitOwned()
}
