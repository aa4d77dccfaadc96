package catalog

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"go.uber.org/goleak"

	"dormouse/internal/entry"
	"dormouse/internal/extent"
	"dormouse/store/cache"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestAgainstModel fills a catalog with random extents and compares every question with a plain search of the list.
func TestAgainstModel(t *testing.T) {
	db, err := cache.Open(t.TempDir(), cache.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	c := New(db, 1)
	r := rand.New(rand.NewPCG(1, 2))
	logs := []string{"a.x", "a.x.y", "a.xy", "b.a", "b.b"}
	model := make(map[string][]extent.Located)
	batch := db.NewBatch()
	defer batch.Close()
	for _, log := range logs[:4] {
		seq := uint64(r.IntN(10))
		for i := range 30 {
			first := seq + 1 + uint64(r.IntN(3))
			seq = first + uint64(r.IntN(5))
			l := extent.Located{
				Extent: extent.Extent{Log: log, First: first, Last: seq, Count: 1 + uint64(r.IntN(int(seq-first)+1)),
					Bytes: uint64(r.IntN(1000)), MinTime: int64(first) - 50, MaxTime: int64(seq)},
				Segment: extent.Segment{Key: fmt.Sprintf("1/%d.sst", i), Size: uint64(r.IntN(1 << 30))},
			}
			model[log] = append(model[log], l)
			if err := c.Put(batch, l.Extent, l.Segment); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := New(db, 2).Put(batch, extent.Extent{Log: "z.other", First: 1, Last: 1, Count: 1},
		extent.Segment{Key: "k"}); err != nil {
		t.Fatal(err)
	}
	if err := batch.Commit(pebble.NoSync); err != nil {
		t.Fatal(err)
	}
	for _, log := range logs {
		for seq := uint64(0); seq < 250; seq++ {
			checkCovering(t, c, model[log], log, seq)
			checkExtents(t, c, model[log], log, seq)
		}
	}
	checkAll(t, c, model, logs)
	checkSummaries(t, c, model)
}

func checkCovering(t *testing.T, c *Catalog, all []extent.Located, log string, seq uint64) {
	t.Helper()
	var want extent.Located
	found := false
	for _, l := range all {
		if l.Extent.First <= seq {
			want, found = l, true
		}
	}
	got, ok, err := c.Covering(log, seq)
	if err != nil || ok != found || ok && got != want {
		t.Fatalf("Covering(%s, %d) = %v, %v, %v, want %v, %v", log, seq, got, ok, err, want, found)
	}
}

func checkExtents(t *testing.T, c *Catalog, all []extent.Located, log string, after uint64) {
	t.Helper()
	var want []extent.Located
	for _, l := range all {
		if l.Extent.Last > after {
			want = append(want, l)
		}
	}
	got, more, err := c.Extents(log, after, false, 7)
	if err != nil || more != (len(want) > 7) || !reflect.DeepEqual(got, want[:min(7, len(want))]) {
		t.Fatalf("Extents(%s, %d) = %v, %v, %v, want the first of %v", log, after, got, more, err, want)
	}
}

// checkAll pages over everything and expects each extent once, in key order.
func checkAll(t *testing.T, c *Catalog, model map[string][]extent.Located, logs []string) {
	t.Helper()
	var got, want []extent.Located
	for _, log := range logs {
		want = append(want, model[log]...)
	}
	log, after := "", uint64(0)
	for more := true; more; {
		page, m, err := c.Extents(log, after, true, 7)
		if err != nil || len(page) == 0 {
			t.Fatalf("a page of %d, %v", len(page), err)
		}
		got, more = append(got, page...), m
		log, after = page[len(page)-1].Extent.Log, page[len(page)-1].Extent.Last
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("paged over %d extents, want %d", len(got), len(want))
	}
}

func summaries(ctx context.Context, c *Catalog, prefix string, from Mark, bounds Bounds) (page []Summary, next Mark,
	err error) {
	err = c.read(func(v *View) error {
		page, next, err = v.Summaries(ctx, prefix, from, bounds)
		return err
	})
	return page, next, err
}

func checkSummaries(t *testing.T, c *Catalog, model map[string][]extent.Located) {
	t.Helper()
	later := time.Now().Add(time.Hour)
	for _, tc := range []struct {
		prefix, from string
		want         []string
	}{
		{"", "", []string{"a.x", "a.x.y", "a.xy", "b.a"}},
		{"a.", "", []string{"a.x", "a.x.y", "a.xy"}},
		{"a.", "a.x\x01", []string{"a.x.y", "a.xy"}},
		{"b.a", "", []string{"b.a"}},
		{"c", "", nil},
	} {
		for _, bounds := range []Bounds{{1000, 100_000, later}, {1, 100_000, later}, {1000, 7, later}, {2, 31, later},
			{1000, 30, later}, {1, 1, later}, {1000, 100_000, time.Now()}} {
			got := summarize(t, c, tc.prefix, Mark{Log: tc.from}, bounds)
			var logs []string
			for _, s := range got {
				logs = append(logs, s.Log)
				var entries uint64
				for _, l := range model[s.Log] {
					entries += l.Extent.Count
				}
				first, last := model[s.Log][0].Extent, model[s.Log][29].Extent
				if s.Extents != 30 || s.All.Entries != entries || s.All.First != first.First || s.All.Last != last.Last ||
					s.All.MinTime != first.MinTime || s.All.MaxTime != last.MaxTime {
					t.Errorf("%+v: %+v", bounds, s)
				}
			}
			if !reflect.DeepEqual(logs, tc.want) {
				t.Errorf("Summaries(%q, %q) in %+v = %v, want %v", tc.prefix, tc.from, bounds, logs, tc.want)
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := summaries(ctx, c, "", Mark{}, Bounds{1000, 1000, later}); !errors.Is(err, context.Canceled) {
		t.Errorf("goes on after its end: %v", err)
	}
}

// summarize goes on from page to page, none of which is beyond the bounds, and joins what belongs together.
func summarize(t *testing.T, c *Catalog, prefix string, from Mark, bounds Bounds) (all []Summary) {
	t.Helper()
	for {
		page, next, err := summaries(t.Context(), c, prefix, from, bounds)
		if err != nil {
			t.Fatal(err)
		}
		extents, past := uint64(0), time.Now().After(bounds.Until)
		for i, s := range page {
			extents += s.Extents
			if i == 0 && from.Seq > 0 && len(all) > 0 && all[len(all)-1].Log == s.Log {
				last := &all[len(all)-1]
				last.Extents, last.All = last.Extents+s.Extents, last.All.Join(s.All)
				continue
			}
			all = append(all, s)
		}
		if len(page) > bounds.Logs || extents > uint64(bounds.Extents) || past && extents > 1 {
			t.Fatalf("a page of %d logs and %d extents, beyond %+v", len(page), extents, bounds)
		}
		if next == (Mark{}) {
			return all
		}
		from = next
	}
}

func FuzzDecodeRow(f *testing.F) {
	e := extent.Extent{Log: "a.b", First: 3, Last: 9, Count: 4, Bytes: 100, MinTime: -5, MaxTime: 7}
	f.Add(entry.AppendKey(nil, e.Log, e.First), appendRow(nil, e, extent.Segment{Key: "0/x.sst", Size: 12}))
	f.Fuzz(func(t *testing.T, key, value []byte) {
		l, err := decodeRow(key, value)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("error %v does not wrap ErrCorrupt", err)
			}
			return
		}
		again, err := decodeRow(entry.AppendKey(nil, l.Extent.Log, l.Extent.First), appendRow(nil, l.Extent, l.Segment))
		if err != nil || again != l {
			t.Fatalf("%+v came back as %+v, %v", l, again, err)
		}
	})
}
