package ingest

import (
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
			s := &system{t: t, nc: o.cfg.NC, js: o.cfg.JS}
			s.publish("logs.t.a", "1", "2")
			s.shortenedTo(o)
			o.ledger.mu.pos.Applied, o.ledger.mu.pos.AppliedTime = 2, s.message(2).Time
			pos := o.ledger.mu.pos
			tc.change(&pos)
			batch := o.cfg.DB.NewBatch()
			_, err := o.ledger.buffer.Put(batch, nil, "t.a", 2, entry.AppendValue(nil, time.Unix(1, 0), nil, nil))
			err = errors.Join(err, o.ledger.catalog.Put(batch, extent.Extent{Log: "t.a", First: 1, Last: 1, Count: 1},
				extent.Segment{Key: "0/a.sst"}))
			if err := errors.Join(err, batch.Commit(noSync), batch.Close(), o.ledger.store(pos)); err != nil {
				t.Fatal(err)
			}
			got, err := o.trustedPosition(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			want := cache.Position{Source: o.from.stream.CachedInfo().Created, Manifest: o.manifest.Created()}
			if tc.catalog {
				want = o.ledger.mu.pos
			}
			if !tc.buffer {
				want.Applied, want.AppliedTime = 0, time.Time{}
			}
			if stored, err := o.cfg.DB.Position(0); err != nil || !samePosition(got, want) || !samePosition(stored, want) {
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
func (s *system) shortenedTo(o *owner) {
	s.t.Helper()
	if err := o.append(s.t.Context(), manifest.Record{Kind: manifest.Floor, Epoch: o.epoch, Owner: "a"}); err != nil {
		s.t.Fatal(err)
	}
	stream, err := s.js.Stream(s.t.Context(), wire.ManifestStream)
	if err == nil {
		err = stream.Purge(s.t.Context(), jetstream.WithPurgeSequence(2))
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

func samePosition(a, b cache.Position) bool {
	same := a.Source.Equal(b.Source) && a.Manifest.Equal(b.Manifest) && a.AppliedTime.Equal(b.AppliedTime)
	a.Source, a.Manifest, a.AppliedTime = b.Source, b.Manifest, b.AppliedTime
	return same && a == b
}

// TestSnapshotThatIsHalfLoaded leaves a disk that nobody trusts; a whole one is as good as the records that it has.
func TestSnapshotThatIsHalfLoaded(t *testing.T) {
	s := newSystem(t)
	n := s.start("a", t.TempDir(), often)
	s.snapshotOf(n)
	n.stop()
	snapshot := s.newestSnapshot()
	whole := *snapshot
	lost := extent.Segment{Key: "0/catalog/lost.rows", Size: 1}
	snapshot.Runs = append(slices.Clone(snapshot.Runs), manifest.Run{Parts: []extent.Segment{lost}})
	o := claimed(t)
	o.cfg.Bucket = s.bucket
	if _, err := o.loadSnapshot(t.Context(), snapshot, o.ledger.mu.pos); !errors.Is(err, errSnapshotUnread) {
		t.Errorf("loading ended with %v", err)
	}
	if pos, err := o.cfg.DB.Position(0); err != nil || !pos.Source.IsZero() || pos.ManifestSeq > 0 {
		t.Errorf("the disk says %+v, %v", pos, err)
	}
	extents := uint64(0)
	for _, run := range whole.Runs {
		extents += run.Extents // of one entry each, in the order of their commits
	}
	pos, err := o.loadSnapshot(t.Context(), &whole, o.ledger.mu.pos)
	if err != nil {
		t.Fatal(err)
	}
	stored, err := o.cfg.DB.Position(0)
	if err != nil || !samePosition(pos, stored) || pos.ManifestSeq != whole.UpTo || pos.ManifestID != whole.UpToID ||
		pos.Highest != extents {
		t.Errorf("goes on from %+v, and the disk says %+v, %v; want record %d and %d entries", pos, stored, err, whole.UpTo,
			extents)
	}
	if located, ok, err := o.ledger.catalog.Last("t.a"); err != nil || !ok || located.Extent.Last != extents {
		t.Errorf("the catalog ends with %+v, %v", located, err)
	}
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
