package shard

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/entry"
	"dormouse/internal/extent"
	"dormouse/internal/wire"
	"dormouse/store/cache"
	"dormouse/store/manifest"
)

// TestTrustedPosition: what the disk has is used only as far as it belongs to the streams as they are.
func TestTrustedPosition(t *testing.T) {
	for name, tc := range map[string]struct {
		change  func(*cache.Position)
		catalog bool // it is kept
		buffer  bool // likewise, with the sequence that was taken in
	}{
		"as they are":            {func(*cache.Position) {}, true, true},
		"another source stream":  {func(p *cache.Position) { p.Source = p.Source.Add(1) }, false, false},
		"another manifest":       {func(p *cache.Position) { p.Manifest = p.Manifest.Add(1) }, false, false},
		"above the manifest":     {func(p *cache.Position) { p.ManifestSeq++ }, false, false},
		"another record":         {func(p *cache.Position) { p.ManifestID = "another" }, false, false},
		"a record that is gone":  {func(p *cache.Position) { p.ManifestSeq-- }, false, false},
		"above the source":       {func(p *cache.Position) { p.Applied++ }, true, false},
		"another last entry":     {func(p *cache.Position) { p.AppliedTime = p.AppliedTime.Add(1) }, true, false},
		"while a snapshot loads": {func(p *cache.Position) { *p = cache.Position{} }, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // some look at the stream's end for a while
			o := claimed(t)
			s := o.system(t)
			s.Publish("logs.t.a", "1", "2")
			s.shortenedTo(o)
			o.ledger.mu.pos.Applied, o.ledger.mu.pos.AppliedTime = 2, s.Message(2).Time
			pos := o.ledger.mu.pos
			tc.change(&pos)
			batch := o.site.DB.NewBatch()
			_, err := o.ledger.disk.buffer.Put(batch, nil, "t.a", 2, entry.AppendValue(nil, time.Unix(1, 0), nil, nil))
			err = errors.Join(err, o.ledger.disk.catalog.Put(batch, extent.Extent{Log: "t.a", First: 1, Last: 1, Count: 1},
				extent.Segment{Key: "0/a.sst"}))
			if err := errors.Join(err, batch.Commit(noSync), batch.Close(), o.ledger.disk.store(pos)); err != nil {
				t.Fatal(err)
			}
			got, err := o.claim.trustedPosition(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			want := cache.Position{Source: o.from.stream.CachedInfo().Created, Manifest: o.claim.chain.manifest.Created()}
			if tc.catalog {
				want = o.ledger.mu.pos
			}
			if !tc.buffer {
				want.Applied, want.AppliedTime = 0, time.Time{}
			}
			if stored, err := o.site.DB.Position(0); err != nil || !samePosition(got, want) || !samePosition(stored, want) {
				t.Errorf("goes on from %+v, and the disk says %+v, %v; want %+v", got, stored, err, want)
			}
			v, err := o.ledger.view()
			if err != nil {
				t.Fatal(err)
			}
			_, _, buffered, err := v.buffered.Seek("t.a", 0)
			archived, _, err2 := v.archived.Extents("t.a", 0, false, 1)
			if err := errors.Join(err, err2, v.close()); err != nil || buffered != tc.buffer ||
				(len(archived) == 1) != tc.catalog {
				t.Errorf("buffered: %v, archived: %v, %v", buffered, archived, err)
			}
		})
	}
}

// shortenedTo gives an owner's manifest a second record, and takes the first.
func (s *system) shortenedTo(o *trial) {
	s.T.Helper()
	if err := o.claim.chain.append(s.T.Context(),
		manifest.Record{Kind: manifest.Floor, Epoch: o.epoch, Owner: "a"}); err != nil {
		s.T.Fatal(err)
	}
	stream, err := s.JS.Stream(s.T.Context(), wire.ManifestStream)
	if err == nil {
		err = stream.Purge(s.T.Context(), jetstream.WithPurgeSequence(2))
	}
	if err != nil {
		s.T.Fatal(err)
	}
}

func samePosition(a, b cache.Position) bool {
	same := a.Source.Equal(b.Source) && a.Manifest.Equal(b.Manifest) && a.AppliedTime.Equal(b.AppliedTime)
	a.Source, a.Manifest, a.AppliedTime = b.Source, b.Manifest, b.AppliedTime
	return same && a == b
}

// TestSourceOfARecord: a record says how far the stream was taken in, as far as an entry tells; a sequence without one
// does not make it less.
func TestSourceOfARecord(t *testing.T) {
	made, at := time.Unix(1, 0), time.Unix(5, 0)
	before := manifest.Source{Created: made, Seq: 3, Time: time.Unix(3, 0)}
	for name, tc := range map[string]struct {
		applied uint64
		at      time.Time
		want    manifest.Source
	}{
		"an entry above":         {5, at, manifest.Source{Created: made, Seq: 5, Time: at}},
		"the same one":           {3, at, before},
		"an empty disk":          {2, at, before},
		"a gap, and nothing yet": {5, time.Time{}, before},
	} {
		l := &ledger{}
		l.mu.pos = cache.Position{Source: made, Applied: tc.applied, AppliedTime: tc.at}
		if got := l.source(before); got != tc.want {
			t.Errorf("%s: %+v, want %+v", name, got, tc.want)
		}
	}
}

// TestSnapshotThatIsHalfLoaded leaves a disk that nobody trusts; a whole one is as good as the records that it has.
func TestSnapshotThatIsHalfLoaded(t *testing.T) {
	const extents = 4
	of := claimed(t)
	of.snapshots.most.Extents = extents / 2
	commits(t, of, extents)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- of.committer.run(ctx) }()
	for range 2 {
		upTo := manifest.Mark{Seq: of.ledger.mu.pos.ManifestSeq, ID: of.ledger.mu.pos.ManifestID}
		if err := of.snapshots.take(t.Context(), upTo); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	whole := of.snapshots.newest
	half := *whole
	lost := extent.Segment{Key: "0/catalog/lost.rows", Size: 1}
	half.Runs = append(slices.Clone(whole.Runs), manifest.Run{Parts: []extent.Segment{lost}})

	o := claimed(t)
	o.site.Bucket = of.site.Bucket
	if _, err := o.claim.loadSnapshot(t.Context(), &half, o.ledger.mu.pos); !errors.Is(err, ErrSnapshotUnread) {
		t.Errorf("loading ended with %v", err)
	}
	if pos, err := o.site.DB.Position(0); err != nil || !pos.Source.IsZero() || pos.ManifestSeq > 0 {
		t.Errorf("the disk says %+v, %v", pos, err)
	}
	pos, err := o.claim.loadSnapshot(t.Context(), whole, o.ledger.mu.pos)
	if err != nil {
		t.Fatal(err)
	}
	stored, err := o.site.DB.Position(0)
	if err != nil || !samePosition(pos, stored) || pos.ManifestSeq != whole.UpTo || pos.ManifestID != whole.UpToID ||
		pos.Highest != extents {
		t.Errorf("goes on from %+v, and the disk says %+v, %v; want record %d and %d entries", pos, stored, err, whole.UpTo,
			extents)
	}
	if located, ok, err := o.ledger.disk.catalog.Last("t.a"); err != nil || !ok || located.Extent.Last != extents {
		t.Errorf("the catalog ends with %+v, %v", located, err)
	}
}
