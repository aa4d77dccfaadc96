package ingesttest

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"testing"

	"dormouse/internal/extent"
	"dormouse/store/bucket"
	"dormouse/store/segment"
)

// Archive is a bucket as an owner needs it, in which segments may be without entries.
type Archive struct {
	*bucket.Bucket
	mu       sync.Mutex
	contents map[string][]extent.Extent // by key
}

// NewArchive makes an Archive over a bucket.
func NewArchive(b *bucket.Bucket) *Archive {
	return &Archive{Bucket: b, contents: make(map[string][]extent.Extent)}
}

// Has makes up a segment of which there is a table of contents only.
func (a *Archive) Has(key string, extents []extent.Extent) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.contents[key] = slices.Clone(extents)
}

// Contents reads a table of contents.
func (a *Archive) Contents(ctx context.Context, s extent.Segment) ([]extent.Extent, error) {
	a.mu.Lock()
	extents, ok := a.contents[s.Key]
	a.mu.Unlock()
	if ok {
		return slices.Clone(extents), nil
	}
	return segment.ContentsOf(ctx, s, a.Bucket.Segment)
}

// extents returns what a live segment has.
func (a *Archive) extents(t testing.TB, s extent.Summary) []extent.Extent {
	t.Helper()
	extents, err := a.Contents(t.Context(), s.Object)
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(extents, func(e extent.Extent) bool { return !s.MayHold(e.Log) })
}

// Join returns what a merge of made up segments has.
func (a *Archive) Join(keys ...string) (joined []extent.Extent) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, key := range keys {
		joined = append(joined, a.contents[key]...)
	}
	slices.SortStableFunc(joined, func(x, y extent.Extent) int {
		return cmp.Or(strings.Compare(x.Log, y.Log), cmp.Compare(x.First, y.First))
	})
	last := 0
	for _, e := range joined[min(1, len(joined)):] {
		if l := &joined[last]; l.Log == e.Log {
			l.Last, l.Count, l.Bytes = e.Last, l.Count+e.Count, l.Bytes+e.Bytes
			l.MinTime, l.MaxTime = min(l.MinTime, e.MinTime), max(l.MaxTime, e.MaxTime)
			continue
		}
		last++
		joined[last] = e
	}
	return joined[:min(last+1, len(joined))]
}
