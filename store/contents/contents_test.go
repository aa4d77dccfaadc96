package contents

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"dormouse/internal/entry"
	"dormouse/internal/extent"
	"dormouse/store/bucket"
	"dormouse/store/segment"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// shelf is segments in memory. It counts those that are open.
type shelf struct {
	t    *testing.T
	data map[string][]byte
	open map[*segment.Reader]bool
	most int // that were open at a time
}

func newShelf(t *testing.T) *shelf {
	s := &shelf{t: t, data: make(map[string][]byte), open: make(map[*segment.Reader]bool)}
	t.Cleanup(func() {
		if len(s.open) > 0 {
			t.Errorf("%d segments are left open", len(s.open))
		}
	})
	return s
}

func (s *shelf) Open(ctx context.Context, at extent.Segment) (*segment.Reader, error) {
	data, ok := s.data[at.Key]
	if !ok {
		return nil, fmt.Errorf("%w: %s", bucket.ErrNotFound, at.Key)
	}
	r, err := segment.Open(ctx, segment.Bytes(at.Key, data))
	if err == nil {
		s.open[r] = true
		s.most = max(s.most, len(s.open))
	}
	return r, err
}

func (s *shelf) Done(_ extent.Segment, r *segment.Reader) error {
	delete(s.open, r)
	return r.Close()
}

// put puts a segment of one entry for each log, at the sequences given.
func (s *shelf) put(key string, level uint8, newest uint64, logs map[string]uint64, refused ...string) extent.Piece {
	s.t.Helper()
	w, err := segment.NewWriter(segment.Options{BlockSize: 256})
	if err != nil {
		s.t.Fatal(err)
	}
	defer w.Close()
	var names []string
	for log := range logs {
		names = append(names, log)
	}
	slices.Sort(names)
	for _, log := range names {
		if err := w.Add(entry.AppendKey(nil, log, logs[log]), entry.AppendValue(nil, time.Unix(1, 0), nil, nil)); err != nil {
			s.t.Fatal(err)
		}
	}
	data, extents, err := w.Finish()
	if err != nil {
		s.t.Fatal(err)
	}
	s.data[key] = data
	extents = slices.DeleteFunc(extents, func(e extent.Extent) bool { return slices.Contains(refused, e.Log) })
	sum := extent.Summarize(extent.Segment{Key: key, Size: uint64(len(data))}, extents)
	sum.Refused = refused
	return extent.Piece{Segment: sum, Newest: newest, Level: level}
}

// walk returns "log:segment,segment" of all between from and to.
func (s *shelf) walk(pieces []extent.Piece, from, to string) (got []string, err error) {
	for log, err := range Walk(s.t.Context(), s, pieces, from, to) {
		if err != nil {
			return got, err
		}
		var keys []string
		for _, l := range log.Extents {
			keys = append(keys, l.Segment.Key)
		}
		got = append(got, log.Log+":"+strings.Join(keys, ","))
	}
	return got, nil
}

// TestWalk: a log's extents come in the tree's order, from runs of several segments, fresh ones, and neighbours that
// share it; without what was refused. Of a run one segment at a time is open.
func TestWalk(t *testing.T) {
	s := newShelf(t)
	pieces := []extent.Piece{
		s.put("old1", 1, 5, map[string]uint64{"a.a": 1, "a.b": 2, "a.c": 3}),
		s.put("old2", 1, 5, map[string]uint64{"a.c": 4, "a.d": 5}),
		s.put("old3", 1, 5, map[string]uint64{"a.e": 6}),
		s.put("new1", 0, 6, map[string]uint64{"a.a": 7, "a.d": 8, "a.x": 9}, "a.x"),
		s.put("new2", 0, 6, map[string]uint64{"a.c": 9, "a.f": 10}),
	}
	all := []string{"a.a:old1,new1", "a.b:old1", "a.c:old1,old2,new2", "a.d:old2,new1", "a.e:old3", "a.f:new2"}
	for _, tc := range []struct {
		from, to string
		want     []string
	}{
		{"", "", all}, {"a.b", "", all[1:]}, {"a.b", "a.d", all[1:3]}, {"a.c", "a.c\x00", all[2:3]}, {"b", "", nil},
		{"", "a.a", nil}, {"a.f", "", all[5:]},
	} {
		if got, err := s.walk(pieces, tc.from, tc.to); err != nil || !slices.Equal(got, tc.want) {
			t.Errorf("from %q to %q: %q, %v, want %q", tc.from, tc.to, got, err, tc.want)
		}
	}
	if s.most > 3 {
		t.Errorf("%d segments were open for three runs", s.most)
	}
	for range Walk(t.Context(), s, pieces, "", "") {
		break // and nothing is left open
	}
	if got, err := s.walk(nil, "", ""); err != nil || len(got) > 0 {
		t.Errorf("of nothing: %q, %v", got, err)
	}
}

// TestWalkOverDamage ends with an error that says where: a segment that is gone, one that is damaged, and extents that
// overlap.
func TestWalkOverDamage(t *testing.T) {
	for name, tc := range map[string]struct {
		harm func(*shelf, []extent.Piece)
		want error
		says string
	}{
		"gone":    {func(s *shelf, _ []extent.Piece) { delete(s.data, "two") }, bucket.ErrNotFound, "two"},
		"damaged": {func(s *shelf, _ []extent.Piece) { s.data["two"] = s.data["two"][:50] }, segment.ErrCorrupt, "two"},
		"out of order": {func(_ *shelf, p []extent.Piece) { p[0], p[2] = p[2], p[0] }, ErrOrder,
			"log a.a goes on at 1 in segment one, after 3 in segment three"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShelf(t)
			pieces := []extent.Piece{s.put("one", 0, 1, map[string]uint64{"a.a": 1}), s.put("two", 0, 2,
				map[string]uint64{"a.b": 2}), s.put("three", 0, 3, map[string]uint64{"a.a": 3})}
			tc.harm(s, pieces)
			if _, err := s.walk(pieces, "", ""); !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("ended with %v", err)
			}
		})
	}
}

// TestWalkModel compares it with a plain map.
func TestWalkModel(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 0))
		s := newShelf(t)
		want := make(map[string][]string)
		var pieces []extent.Piece
		for n := range 1 + r.IntN(8) {
			logs := make(map[string]uint64)
			for range 1 + r.IntN(6) {
				logs[fmt.Sprintf("a.%d", r.IntN(9))] = uint64(n + 1)
			}
			key := fmt.Sprint("s", n)
			pieces = append(pieces, s.put(key, 0, uint64(n+1), logs))
			for log := range logs {
				want[log] = append(want[log], key)
			}
		}
		got, err := s.walk(pieces, "", "")
		if err != nil || len(got) != len(want) || !slices.IsSorted(got) {
			t.Fatalf("seed %d: %q, %v", seed, got, err)
		}
		for _, one := range got {
			log, keys, _ := strings.Cut(one, ":")
			if keys != strings.Join(want[log], ",") {
				t.Fatalf("seed %d: %s, want %v", seed, one, want[log])
			}
		}
	}
}
