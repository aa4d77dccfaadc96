package shard

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/entry"
	"dormouse/internal/extent"
	"dormouse/internal/wire"
	"dormouse/store/cache"
	"dormouse/store/cache/buffer"
	"dormouse/store/manifest"
	"dormouse/store/tree"
)

// TestTrustedPosition: what the disk has is used only as far as it belongs to the streams as they are.
func TestTrustedPosition(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*cache.Position)
		kept   bool // the position
		buffer bool // likewise, with the sequence that was taken in
	}{
		"as they are":           {func(*cache.Position) {}, true, true},
		"another source stream": {func(p *cache.Position) { p.Source = p.Source.Add(1) }, false, false},
		"another manifest":      {func(p *cache.Position) { p.Manifest = p.Manifest.Add(1) }, false, false},
		"above the manifest":    {func(p *cache.Position) { p.ManifestSeq++ }, false, false},
		"another record":        {func(p *cache.Position) { p.ManifestID = "another" }, false, false},
		"a record that is gone": {func(p *cache.Position) { p.ManifestSeq-- }, false, false},
		"above the source":      {func(p *cache.Position) { p.Applied++ }, true, false},
		"another last entry":    {func(p *cache.Position) { p.AppliedTime = p.AppliedTime.Add(1) }, true, false},
		"a new disk":            {func(p *cache.Position) { *p = cache.Position{} }, false, false},
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
			if err := errors.Join(err, batch.Commit(noSync), batch.Close(), o.ledger.disk.store(pos)); err != nil {
				t.Fatal(err)
			}
			got, err := o.claim.trustedPosition(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			want := cache.Position{Source: o.from.stream.CachedInfo().Created, Manifest: o.claim.chain.manifest.Created()}
			if tc.kept {
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
			if err := errors.Join(err, v.close()); err != nil || buffered != tc.buffer {
				t.Errorf("buffered: %v, %v", buffered, err)
			}
		})
	}
}

// shortenedTo gives an owner's manifest a second record, and takes the first.
func (s *system) shortenedTo(o *trial) {
	s.T.Helper()
	if err := o.claim.chain.append(s.T.Context(),
		manifest.Record{Kind: manifest.Floor, Epoch: o.epoch, Owner: "a"}, accepted{}); err != nil {
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

// TestCompare: what a takeover finds archived leaves the buffer, and what the stream will bring again though it is
// archived is known; the tables of contents of other segments are not read.
func TestCompare(t *testing.T) {
	o := claimed(t)
	s := o.system(t)
	batch := o.site.DB.NewBatch()
	var scratch []byte
	var err error
	for log, seqs := range map[string][]uint64{"t.a": {21, 22, 31}, "t.b": {23, 32}, "t.c": {24}} {
		for _, seq := range seqs {
			if scratch, err = o.ledger.disk.buffer.Put(batch, scratch, log, seq,
				entry.AppendValue(nil, time.Unix(1, 0), nil, nil)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := errors.Join(batch.Commit(noSync), batch.Close()); err != nil {
		t.Fatal(err)
	}
	segment := func(key string, refused []string, extents ...extent.Extent) extent.Summary {
		s.Archive.Has(key, append(slices.Clone(extents), extent.Extent{Log: "t.zz", First: 1, Last: 99, Count: 1}))
		sum := extent.Summarize(extent.Segment{Key: key, Size: 1}, extents)
		sum.Refused = refused
		return sum
	}
	one := func(log string, first, last uint64) extent.Extent {
		return extent.Extent{Log: log, First: first, Last: last, Count: 1}
	}
	var live tree.Tree
	for record, segments := range [][]extent.Summary{
		{{Object: extent.Segment{Key: "0/not-to-be-read.sst", Size: 1}, First: "t.a", Last: "t.c", Logs: 1, Entries: 1,
			MinSeq: 1, MaxSeq: 20}},
		{segment("0/known.sst", []string{"t.zz"}, one("t.a", 1, 30), one("t.c", 1, 50))}, // its record was applied
		{segment("0/new.sst", []string{"t.zz"}, one("t.a", 21, 22), one("t.b", 23, 23))},
		{segment("0/ahead.sst", []string{"t.zz"}, one("t.b", 41, 45))},
	} {
		if live, err = live.Commit(uint64(record+1), segments); err != nil {
			t.Fatal(err)
		}
	}
	before := cache.Position{Applied: 40, ManifestSeq: 2, Floor: 20}
	for range 2 { // as after a crash in between
		if err := o.claim.compare(t.Context(), live, before, before); err != nil {
			t.Fatal(err)
		}
	}
	var left []string
	if err := o.ledger.disk.buffer.Restore(func(a buffer.Active) {
		left = append(left, fmt.Sprintf("%s %d to %d", a.Log, a.First, a.Last))
	}); err != nil {
		t.Fatal(err)
	}
	if want := []string{"t.a 31 to 31"}; !slices.Equal(left, want) {
		t.Errorf("the buffer has %q, want %q", left, want)
	}
	for log, want := range map[string][]archiveState{ // at 41 and 60
		"t.a": {archivedNot, archivedNot}, "t.b": {archivedHere, archivedNot}, "t.c": {archivedHere, archivedNot},
		"t.zz": {archivedNot, archivedNot},
	} {
		for i, seq := range []uint64{41, 60} {
			if got, err := o.ledger.disk.whatIsArchived(log, seq, time.Unix(0, 0)); err != nil || got != want[i] {
				t.Errorf("%s at %d: %v, %v, want %v", log, seq, got, err, want[i])
			}
		}
	}
}

// TestReplayEnds: what was known for it is forgotten with the last entry that may be archived, or when the stream has
// dropped that.
func TestReplayEnds(t *testing.T) {
	for name, end := range map[string]func(*testing.T, *trial){
		"it comes": func(t *testing.T, o *trial) { fill(t, o, []string{"t.a"}, 2) },
		"it was dropped": func(t *testing.T, o *trial) {
			if err := o.ledger.stepOver(4); err != nil {
				t.Fatal(err)
			}
		},
	} {
		o := claimed(t)
		fill(t, o, []string{"t.a"}, 2)
		o.ledger.mu.replayTo = 4
		if err := o.ledger.disk.archived([]extent.Extent{{Log: "t.b", First: 3, Last: 4, Count: 2}}, 2); err != nil {
			t.Fatal(err)
		}
		fill(t, o, []string{"t.a"}, 1)
		if is, err := o.ledger.disk.whatIsArchived("t.b", 4, time.Unix(0, 0)); err != nil || is != archivedHere {
			t.Errorf("%s: before the end: %v, %v", name, is, err)
		}
		end(t, o)
		if is, err := o.ledger.disk.whatIsArchived("t.b", 4, time.Unix(0, 0)); err != nil || is != archivedNot ||
			o.ledger.mu.replayTo != 0 {
			t.Errorf("%s: after it: %v, %v, replayed up to %d", name, is, err, o.ledger.mu.replayTo)
		}
	}
}
