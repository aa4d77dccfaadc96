package shard

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"

	"dormouse/ingest/ingesttest"
	"dormouse/internal/extent"
	"dormouse/internal/wire"
	"dormouse/store/manifest"
)

// nameOf returns a name that says that it was given so long ago.
func nameOf(age time.Duration) string {
	id := uuid.New()
	binary.BigEndian.PutUint64(id[:], uint64(time.Now().Add(-age).UnixMilli())<<16|7<<12|0x123)
	return id.String()
}

// TestSweep: of all that a shard's folder may have, only what is old and what nothing names is deleted.
func TestSweep(t *testing.T) {
	o := claimed(t)
	s := o.system(t)
	const hour = time.Hour // the grace
	old, young := 2*hour, hour/2-time.Minute
	put := func(key string) string {
		t.Helper()
		if err := s.Bucket.Put(t.Context(), key, []byte("x")); err != nil {
			t.Fatal(err)
		}
		return key
	}
	commit := func(key string) {
		t.Helper()
		o.commit(t, key, fill(t, o, []string{"t.a"}, 1)...)
	}
	live := put("0/" + nameOf(young) + ".sst")
	commit(live)
	var keep []string
	for _, key := range []string{
		"0/" + nameOf(young) + ".sst", "0/named-by-hand.sst", "0/checkpoint/" + nameOf(young) + ".tree",
		"1/" + nameOf(old) + ".sst",
		"10/" + nameOf(old) + ".sst", "0/" + nameOf(old) + ".txt", "0/other/" + nameOf(old) + ".sst", "dormouse.json",
	} {
		keep = append(keep, put(key))
	}
	newest := put("0/checkpoint/" + nameOf(old) + ".tree")
	if err := o.committer.commit(t.Context(), []appendRequest{{checkpoint: &manifest.Checkpoint{UpTo: 1,
		Object: extent.Segment{Key: newest, Size: 1}}}}); err != nil {
		t.Fatal(err)
	}
	o.claim.clock.latest = time.Now().Add(old) // so that the live one is old too
	keep = slices.DeleteFunc(append(keep, live, newest), func(key string) bool {
		return o.claim.clock.olderThan(key, hour) && key != live && key != newest &&
			(o.site.Source.Shard.IsSegmentKey(key) || o.site.Source.Shard.IsCheckpointKey(key))
	})
	for _, key := range []string{"0/" + nameOf(old) + ".sst", "0/checkpoint/" + nameOf(old+1) + ".tree"} {
		put(key)
	}
	o.sweeper.delay = 0
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- o.committer.run(ctx) }()
	for range 2 {
		if err := o.sweeper.sweep(t.Context(), false); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	<-ended
	var left []string
	for object, err := range s.Bucket.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		left = append(left, object.Key)
	}
	if slices.Sort(keep); !slices.Equal(left, keep) {
		t.Errorf("left are %q, want %q", left, keep)
	}
}

// TestSweepOfAFencedOwner deletes nothing: what nothing names may be another owner's.
func TestSweepOfAFencedOwner(t *testing.T) {
	o := claimed(t)
	s := o.system(t)
	key := "0/" + nameOf(2*time.Hour) + ".sst"
	if err := s.Bucket.Put(t.Context(), key, []byte("x")); err != nil {
		t.Fatal(err)
	}
	o.sweeper.delay = 0
	o.ledger.mu.pos.ManifestID = "another"
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- o.committer.run(ctx) }()
	err := ingesttest.Ended(t, "the sweep", func() error { return o.sweeper.sweep(t.Context(), false) })
	cancel()
	<-ended
	if _, gerr := s.Bucket.Object(t.Context(), key); gerr != nil || !errors.Is(err, manifest.ErrFenced) {
		t.Errorf("ended with %v, the object: %v", err, gerr)
	}
}

// TestSweepAfterAnotherClaim deletes nothing: an owner that goes on after a freeze takes for old garbage what its
// successor has committed in time.
func TestSweepAfterAnotherClaim(t *testing.T) {
	o := claimed(t)
	s := o.system(t)
	key := "0/" + nameOf(2*time.Hour) + ".sst"
	if err := s.Bucket.Put(t.Context(), key, []byte("x")); err != nil {
		t.Fatal(err)
	}
	m, err := manifest.Open(t.Context(), o.site.JS, 0)
	if err == nil {
		_, err = m.Append(t.Context(), manifest.Record{Kind: manifest.Claim, Epoch: o.epoch + 1, Owner: "another"})
	}
	if err != nil {
		t.Fatal(err)
	}
	o.sweeper.delay = 0
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- o.committer.run(ctx) }()
	err = ingesttest.Ended(t, "the sweep", func() error { return o.sweeper.sweep(t.Context(), false) })
	cancel()
	<-ended
	if _, gerr := s.Bucket.Object(t.Context(), key); gerr != nil || !errors.Is(err, manifest.ErrFenced) {
		t.Errorf("ended with %v, the object: %v", err, gerr)
	}
}

// TestSweepWaitsAfterItsLook: what is to be deleted cannot be committed any more while the delay passes. Else it could
// be committed and replaced meanwhile, and go before the manifest's record of that is safe.
func TestSweepWaitsAfterItsLook(t *testing.T) {
	o := claimed(t)
	s := o.system(t)
	key := "0/" + nameOf(2*time.Hour) + ".sst"
	if err := s.Bucket.Put(t.Context(), key, []byte("x")); err != nil {
		t.Fatal(err)
	}
	o.sweeper.delay = time.Hour
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	go func() { ended <- o.committer.run(ctx) }()
	go func() { ended <- o.sweeper.sweep(ctx, false) }()
	for began := time.Now(); !o.ledger.isCondemned(key); time.Sleep(time.Millisecond) {
		if time.Since(began) > 10*time.Second {
			t.Fatal("it may still be committed")
		}
	}
	cancel()
	<-ended
	<-ended
	if _, err := s.Bucket.Object(t.Context(), key); err != nil {
		t.Errorf("it went before the delay was over: %v", err)
	}
}

// TestLateCommits: a segment that was named more than half a grace ago is not accepted, however the clock goes; nor is
// such an output of a merge.
func TestLateCommits(t *testing.T) {
	o := claimed(t)
	extents := fill(t, o, []string{"t.a"}, 1)
	offer := func(key string) (refused int) {
		t.Helper()
		o.on.Archive.Has(key, extents)
		data, err := wire.Encode(wire.CommitRequest{Segment: extent.Segment{Key: key, Size: 1}, Extents: extents})
		if err != nil {
			t.Fatal(err)
		}
		call := &commitCall{msg: &nats.Msg{Data: data}}
		if err := o.committer.commit(t.Context(), []appendRequest{{commit: call}}); err != nil || call.err != nil {
			t.Fatal(err, call.err)
		}
		return len(call.refused)
	}
	half := o.site.GCGrace / 2
	if offer("0/"+nameOf(half+time.Minute)+".sst") != 1 {
		t.Error("a late one was accepted")
	}
	inTime := "0/" + nameOf(half-time.Minute) + ".sst"
	o.claim.clock.latest = time.Now().Add(2 * time.Minute) // before it went back
	if offer(inTime) != 1 {
		t.Error("one that was late before the clock went back was accepted")
	}
	if offer("0/"+nameOf(0)+".sst") != 0 {
		t.Error("one in time was refused")
	}
	commits(t, o, 2)
	live, _ := o.ledger.live()
	inputs := []string{live.Runs()[0].Segments[0].Object.Key, live.Runs()[1].Segments[0].Object.Key}
	o.merge(t, wire.ErrBadRequest, "0/"+nameOf(half+time.Minute)+".sst", inputs...)
	o.merge(t, nil, "0/"+nameOf(0)+".sst", inputs...)
	if now, _ := o.ledger.live(); len(now.Runs()) != 2 {
		t.Error(fmt.Sprint(now))
	}
}
