package alone

import (
	"math"
	"slices"
	"testing"
	"time"

	"dormouse/internal/extent"
	"dormouse/store/reader"
)

// cut cuts the tree.
func (s *system) cut(c extent.Cut) {
	s.T.Helper()
	var err error
	if s.Mu.Tree, err = s.Mu.Tree.Cut(s.Mu.Tree.NewestCut().Record+100, c); err != nil {
		s.T.Fatal(err)
	}
}

// TestCutsOfTheCheckpoint are obeyed by who reads the bucket alone: by whole extents, by parts of them, and in objects
// that the checkpoint does not know.
func TestCutsOfTheCheckpoint(t *testing.T) {
	s := newSystem(t)
	s.Publish("a.b", "1", "2")
	s.Publish("a.c", "3")
	s.Publish("b.a", "4")
	first := at(time.Now())
	s.Archive(first, 4, "a.b", "a.c", "b.a")
	s.Publish("a.b", "5", "6")
	s.Archive(at(time.Now()), 6, "a.b")
	s.cut(extent.Cut{Logs: "a.b", UpTo: 5})
	s.cut(extent.Cut{Logs: "b.>", UpTo: 4, Before: 1})
	s.checkpoint()
	s.must("a part", "a.b", "6=6")
	s.must("another log", "a.c", "3=3")
	s.must("nothing so early", "b.a", "4=4")
	if got := s.list(""); got != "a.b=1:6..6 a.c=1:3..3 b.a=1:4..4" {
		t.Errorf("listed %s", got)
	}
	info, err := s.open().Log(t.Context(), "a.b")
	if err != nil || info.Archived.Entries != 1 || info.Archived.First != 6 {
		t.Errorf("of a part is told %+v, %v", info, err)
	}
	s.cut(extent.Cut{Logs: ">", UpTo: math.MaxUint64})
	s.checkpoint()
	if got := s.list(""); got != "" {
		t.Errorf("of nothing is listed %s", got)
	}
	if got := s.read(reader.Query{Log: "a.b"}); got != "no such log" {
		t.Errorf("of nothing is read %s", got)
	}
	if _, err := s.open().Log(t.Context(), "a.b"); err == nil {
		t.Error("of nothing is told something")
	}
}

// TestFind: every object is looked at, also such as nobody names, and entries that are not sought do not count.
func TestFind(t *testing.T) {
	s := newSystem(t)
	s.Publish("a.b", "1", "2")
	s.Publish("a.c", "3")
	orphan, live := at(time.Now()), at(time.Now())
	s.Archive(live, 3, "a.c", "a.b")
	s.Publish("a.b", "4")
	s.Archive(orphan, 4, "a.b")
	for name, tc := range map[string]struct {
		sought Sought
		want   []string
	}{
		"a log":            {Everything("a.b"), []string{live, orphan}},
		"a prefix":         {Everything("a.>"), []string{live, orphan}},
		"all":              {Everything(">"), []string{live, orphan}},
		"of one only":      {Everything("a.c"), []string{live}},
		"nothing":          {Everything("a.d"), nil},
		"up to a sequence": {Sought{0: {Logs: "a.b", UpTo: 3}}, []string{live}},
		"a part":           {Sought{0: {Logs: "a.b", UpTo: 1}}, []string{live}},
		"nothing so early": {Sought{0: {Logs: "a.b", UpTo: 9, Before: 1}}, nil},
		"in another shard": {Sought{7: {Logs: "a.b", UpTo: 9}}, nil},
		"all before tomorrow": {Sought{0: {Logs: ">", UpTo: 9, Before: time.Now().Add(time.Hour).UnixNano()}},
			[]string{live, orphan}},
	} {
		got, err := Find(t.Context(), s.Bucket, tc.sought, nil)
		slices.Sort(got)
		slices.Sort(tc.want)
		if err != nil || !slices.Equal(got, tc.want) {
			t.Errorf("%s: %q, %v, want %q", name, got, err, tc.want)
		}
	}
	if err := s.Bucket.Put(t.Context(), at(time.Now()), []byte("damaged")); err != nil {
		t.Fatal(err)
	}
	if got, err := Find(t.Context(), s.Bucket, Everything("a.d"), nil); err == nil {
		t.Errorf("with a damaged object: %q", got)
	}
}
