package ingest

import (
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"dormouse/ingest/ingesttest"
	"dormouse/internal/extent"
	"dormouse/internal/topology"
	"dormouse/internal/wire"
)

// meeting is two owners of one shard, the older of which does not know of the other: its leases were taken from it, and
// would not be renewed for a long time.
type meeting struct {
	*system
	old, new *node
	first    uint64 // the older one's epoch
	append   *ingesttest.Hooked
}

func meet(t *testing.T) *meeting {
	s := newSystem(t)
	_, err := topology.Ensure(t.Context(), s.JS, topology.Config{RequeueAfter: time.Minute, Lease: time.Hour, Replicas: 1})
	if err != nil {
		t.Fatal(err)
	}
	m := &meeting{system: s, append: &ingesttest.Hooked{JetStream: s.JS}}
	m.append.Set(func(*nats.Msg) {})
	m.old = s.start("old", t.TempDir(), func(c *Config) { c.JS, c.Lease = m.append, time.Hour })
	m.old.awaitOwned()
	m.first = s.Epoch()
	return m
}

// usurp starts the newer owner, of which the older one does not know.
func (m *meeting) usurp() {
	m.T.Helper()
	m.succeed()
	if m.old.metric("dormouse_shards_owned") != 1 {
		m.T.Fatal("the older owner has noticed")
	}
}

// succeed starts the newer owner. The older one may notice, if it has something to append.
func (m *meeting) succeed() {
	m.T.Helper()
	kv, err := m.JS.KeyValue(m.T.Context(), wire.LeaseBucket)
	if err == nil {
		err = errors.Join(kv.Delete(m.T.Context(), wire.NodeKeys+"old"), kv.Delete(m.T.Context(), wire.LeaseKey(0)))
	}
	if err != nil {
		m.T.Fatal(err)
	}
	m.new = m.start("new", m.T.TempDir())
	m.new.awaitOwned()
	if m.first+1 != m.Epoch() {
		m.T.Fatalf("epoch %d after %d", m.Epoch(), m.first)
	}
}

// offer offers extents to the owner of an epoch.
func (m *meeting) offer(epoch uint64, key string, extents ...extent.Extent) (refused int, err error) {
	m.T.Helper()
	m.Archive.Has(key, extents)
	var reply wire.CommitReply
	err = m.AskEpoch(epoch, wire.OpCommit, wire.CommitRequest{Segment: extent.Segment{Key: key, Size: 1},
		Extents: extents}, &reply)
	return len(reply.Refused), errors.Join(err, reply.Err())
}

// mustHold holds that the manifest has the entries of t.a once, up to last, and that the new owner's catalog agrees.
func (m *meeting) mustHold(key string, first, last uint64) {
	m.T.Helper()
	if got := m.Archived("t.a"); !slices.Equal(got, slices.Compact([]uint64{first, last})) {
		m.T.Errorf("the manifest has %v of t.a, want %d to %d once", got, first, last)
	}
	if all := m.catalog(); len(all) != 1 || all[0].Segment.Key != key || all[0].Extent.Last != last {
		m.T.Errorf("the catalog has %+v, want one extent up to %d in %s", all, last, key)
	}
}

// archiveAnew has the successor archive what the old owner could not.
func (m *meeting) archiveAnew() {
	m.T.Helper()
	m.TakeReady("t.a")
	_, again := m.Drain("t.a")
	if refused, err := m.offer(m.Epoch(), "0/new.sst", again...); refused > 0 || err != nil {
		m.T.Fatal(refused, err)
	}
	m.mustHold("0/new.sst", 1, 2)
}

// TestOldOwnersCommitBeforeTheClaim: the successor begins with it, and takes nothing of it in again.
func TestOldOwnersCommitBeforeTheClaim(t *testing.T) {
	m := meet(t)
	m.Publish("logs.t.a", "1", "2")
	m.TakeReady("t.a")
	_, extents := m.Drain("t.a")
	if refused, err := m.offer(m.first, "0/old.sst", extents...); refused > 0 || err != nil {
		t.Fatal(refused, err)
	}
	m.succeed()
	m.mustHold("0/old.sst", 1, 2)
	if entries, _ := m.Drain("t.a"); len(entries) > 0 {
		t.Errorf("the successor buffers what is archived: %s", ingesttest.Payloads(entries))
	}
	// A worker that did not hear the answer asks the successor: it is told that all is well.
	if refused, err := m.offer(m.Epoch(), "0/old.sst", extents...); refused > 0 || err != nil {
		t.Errorf("the same segment again: %d refused, %v", refused, err)
	}
	m.mustHold("0/old.sst", 1, 2)
}

// TestOldOwnersCommitAfterTheClaim: it is refused, the old owner steps down, and the entries are archived by the
// successor.
func TestOldOwnersCommitAfterTheClaim(t *testing.T) {
	m := meet(t)
	m.Publish("logs.t.a", "1", "2")
	m.TakeReady("t.a")
	_, extents := m.Drain("t.a")
	m.usurp()
	if _, err := m.offer(m.first, "0/old.sst", extents...); !errors.Is(err, wire.ErrNotOwner) {
		t.Errorf("a commit after the claim: %v", err)
	}
	m.Until("the old owner to step down", func() bool { return m.old.metric("dormouse_shards_owned") == 0 })
	m.archiveAnew()
}

// TestOldOwnersCommitDuringTheClaim: the claim comes between the old owner's decision and its append.
func TestOldOwnersCommitDuringTheClaim(t *testing.T) {
	m := meet(t)
	m.Publish("logs.t.a", "1", "2")
	m.TakeReady("t.a")
	_, extents := m.Drain("t.a")
	reached, claimed := make(chan struct{}), make(chan struct{})
	m.append.Set(func(*nats.Msg) { close(reached); <-claimed })
	answer := make(chan error, 1)
	go func() {
		_, err := m.offer(m.first, "0/old.sst", extents...)
		answer <- err
	}()
	<-reached
	m.append.Set(func(*nats.Msg) {})
	m.usurp()
	close(claimed)
	if err := <-answer; !errors.Is(err, wire.ErrNotOwner) {
		t.Errorf("a commit that was decided before the claim and appended after it: %v", err)
	}
	m.archiveAnew()
}

// TestDrainedFromOldCommittedToNew: the successor has the same entries buffered, so that the work is not lost; what the
// log got meanwhile stays, and the same work from the successor's own drain is refused.
func TestDrainedFromOldCommittedToNew(t *testing.T) {
	m := meet(t)
	m.Publish("logs.t.a", "1", "2")
	m.TakeReady("t.a")
	_, extents := m.Drain("t.a")
	m.usurp()
	m.TakeReady("t.a")
	_, own := m.Drain("t.a")
	m.Publish("logs.t.a", "3")
	m.new.awaitMetric("dormouse_buffer_entries", 3)
	epoch := m.Epoch()
	if refused, err := m.offer(epoch, "0/old.sst", extents...); refused > 0 || err != nil {
		t.Errorf("what was drained from the old owner: %d refused, %v", refused, err)
	}
	if refused, err := m.offer(epoch, "0/new.sst", own...); refused != 1 || err != nil {
		t.Errorf("the same entries once more: %d refused, %v", refused, err)
	}
	m.mustHold("0/old.sst", 1, 2)
	if entries, _ := m.Drain("t.a"); ingesttest.Payloads(entries) != "3" {
		t.Errorf("left is %s", ingesttest.Payloads(entries))
	}
}

// TestBothAnswerADrain: two workers drain the same entries, one from each owner, and both offer what they put to both.
func TestBothAnswerADrain(t *testing.T) {
	m := meet(t)
	m.Publish("logs.t.a", "1", "2")
	m.TakeReady("t.a")
	m.usurp()
	m.TakeReady("t.a")
	var replies [2]wire.DrainReply
	for i, epoch := range []uint64{m.first, m.Epoch()} {
		if err := m.AskEpoch(epoch, wire.OpDrain, wire.DrainRequest{Logs: []string{"t.a"}, MaxBytes: 1 << 20},
			&replies[i]); err != nil || replies[i].Err() != nil {
			t.Fatalf("epoch %d: %v, %v", epoch, err, replies[i].Err())
		}
	}
	if !reflect.DeepEqual(replies[0].Data, replies[1].Data) {
		t.Fatal("the two owners answer with different entries")
	}
	_, extents := m.Decode(replies[0].Data)
	if refused, err := m.offer(m.Epoch(), "0/b.sst", extents...); refused > 0 || err != nil {
		t.Errorf("to the new owner: %d refused, %v", refused, err)
	}
	if _, err := m.offer(m.first, "0/a.sst", extents...); !errors.Is(err, wire.ErrNotOwner) {
		t.Errorf("to the old owner: %v", err)
	}
	if refused, err := m.offer(m.Epoch(), "0/a.sst", extents...); refused != 1 || err != nil {
		t.Errorf("the other segment to the new owner: %d refused, %v", refused, err)
	}
	m.mustHold("0/b.sst", 1, 2)
}
