package segment

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"dormouse/internal/entry"
)

// walk returns "log:sequence" of all that a cursor has.
func walk(next func() (bool, error), key func() []byte) (got []string, err error) {
	for {
		more, err := next()
		if err != nil || !more {
			return got, err
		}
		log, seq, err := entry.SplitKey(key())
		if err != nil {
			return got, err
		}
		got = append(got, fmt.Sprintf("%s:%d", log, seq))
	}
}

func (s *sample) names(refused ...string) (names []string) {
	for _, e := range s.entries {
		if !slices.Contains(refused, e.Log) {
			names = append(names, fmt.Sprintf("%s:%d", e.Log, e.Seq))
		}
	}
	return names
}

// measured counts the reads of a Source, and the largest.
type measured struct {
	Source
	reads, largest int
}

func (m *measured) ReadAt(ctx context.Context, p []byte, off int64) error {
	m.reads++
	m.largest = max(m.largest, len(p))
	return m.Source.ReadAt(ctx, p, off)
}

// TestCursor: all entries in order, without refused logs, in reads that are bounded and not many.
func TestCursor(t *testing.T) {
	s := new(sample).log("acme.a", 5, 3, 3000, 400).log("acme.b", 1, 1, 1, 1).log("acme.c", 9, 1, 2000, 300).
		log("zoo.z", math.MaxUint64-2, 1, 3, 50)
	data := s.write(t, Options{Compression: "none"})
	for _, refused := range [][]string{nil, {"acme.a"}, {"acme.b", "zoo.z"}, {"acme.a", "acme.b", "acme.c", "zoo.z"}} {
		source := &measured{Source: Bytes("7/test.sst", data)}
		r, err := Open(t.Context(), source)
		if err != nil {
			t.Fatal(err)
		}
		source.reads, source.largest = 0, 0
		c, err := r.Cursor(t.Context(), 256<<10, refused)
		if err != nil {
			t.Fatal(err)
		}
		got, err := walk(c.Next, c.Key)
		if err != nil || !slices.Equal(got, s.names(refused...)) {
			t.Errorf("without %v: %d entries, %v, want %d", refused, len(got), err, len(s.names(refused...)))
		}
		if source.largest > 300<<10 || source.reads > len(data)/(100<<10) {
			t.Errorf("%d reads of up to %d bytes for a segment of %d", source.reads, source.largest, len(data))
		}
		if err := errors.Join(c.Close(), r.Close()); err != nil {
			t.Error(err)
		}
	}
}

// TestMerged: the entries of several segments come in the order of their keys; one that is in two ends it, naming both.
func TestMerged(t *testing.T) {
	merge := func(samples ...*sample) ([]string, error) {
		t.Helper()
		var cursors []*Cursor
		for i, s := range samples {
			r, err := Open(t.Context(), Bytes(fmt.Sprintf("7/%d.sst", i), s.write(t, Options{BlockSize: 512})))
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			c, err := r.Cursor(t.Context(), 0, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			cursors = append(cursors, c)
		}
		m := Merge(cursors)
		return walk(m.Next, func() []byte {
			if !strings.HasPrefix(m.Segment(), "7/") {
				t.Errorf("%q is in %q", m.Key(), m.Segment())
			}
			return m.Key()
		})
	}
	old := new(sample).log("a.a", 1, 1, 30, 40).log("a.c", 5, 1, 3, 40)
	middle := new(sample).log("a.b", 100, 1, 50, 40)
	young := new(sample).log("a.a", 200, 2, 20, 40).log("a.b", 300, 1, 2, 40)
	want := append(old.names("a.c"), young.names("a.b")...)
	want = append(append(append(want, middle.names()...), young.names("a.a")...), old.names("a.a")...)
	// The order of the runs does not count.
	for _, samples := range [][]*sample{{old, middle, young}, {young, old, middle}} {
		if got, err := merge(samples...); err != nil || !slices.Equal(got, want) {
			t.Errorf("merged %q, %v, want %q", got, err, want)
		}
	}
	if got, err := merge(); err != nil || len(got) > 0 {
		t.Errorf("of nothing: %q, %v", got, err)
	}
	_, err := merge(old, middle, new(sample).log("a.a", 30, 1, 1, 40))
	if !errors.Is(err, ErrDuplicate) || !strings.Contains(err.Error(), "7/0.sst") ||
		!strings.Contains(err.Error(), "7/2.sst") {
		t.Errorf("an entry in two segments: %v", err)
	}
}

// TestCursorOfADamagedSegment ends with an error that names it, whatever is damaged, and never with less.
func TestCursorOfADamagedSegment(t *testing.T) {
	s := new(sample).log("acme.a", 5, 3, 200, 100).log("acme.b", 1, 1, 20, 50)
	data := s.write(t, Options{BlockSize: 1 << 10})
	for at := 0; at < len(data); at += 7 {
		damaged := slices.Clone(data)
		damaged[at] ^= 0x10
		r, err := Open(t.Context(), Bytes("7/test.sst", damaged))
		if err != nil {
			continue // it shows at once
		}
		var got []string
		c, err := r.Cursor(t.Context(), 0, nil)
		if err == nil {
			got, err = walk(c.Next, c.Key)
			err = errors.Join(err, c.Close())
		}
		switch {
		case err != nil && (!errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "7/test.sst")):
			t.Errorf("byte %d: %v", at, err)
		case err == nil && !slices.Equal(got, s.names()): // what is damaged may be the table of contents
			t.Errorf("byte %d: %d entries and no error", at, len(got))
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestCursorOfASourceThatFails: what fails is not called damage, and what was read before is right.
func TestCursorOfASourceThatFails(t *testing.T) {
	s := new(sample).log("acme.a", 5, 3, 5000, 400)
	unreachable := errors.New("unreachable")
	source := &failing{Source: Bytes("7/test.sst", s.write(t, Options{Compression: "none"}))}
	r, err := Open(t.Context(), source)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	for name, tc := range map[string]struct {
		fail func()
		want error
	}{"the bucket": {func() { source.err = unreachable }, unreachable}, "its context": {cancel, context.Canceled}} {
		source.err = nil
		c, err := r.Cursor(ctx, 128<<10, nil)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		got, err := walk(func() (bool, error) {
			if n++; n == 1000 {
				tc.fail()
			}
			return c.Next()
		}, c.Key)
		if !errors.Is(err, tc.want) || errors.Is(err, ErrCorrupt) || !slices.Equal(got, s.names()[:len(got)]) ||
			len(got) < 999 {
			t.Errorf("%s: %d entries, %v", name, len(got), err)
		}
		_ = c.Close() // says it once more
		if name == "its context" {
			ctx = t.Context()
		}
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

// failing is a Source that fails when err is set.
type failing struct {
	Source
	err error
}

func (f *failing) ReadAt(ctx context.Context, p []byte, off int64) error {
	if f.err != nil {
		return f.err
	}
	return f.Source.ReadAt(ctx, p, off)
}

// TestTableCursor: any part of a table of contents, with its neighbours left out.
func TestTableCursor(t *testing.T) {
	s := new(sample)
	var names []string
	for i := range 500 {
		names = append(names, fmt.Sprintf("acme.%03d", i))
		s.log(names[i], uint64(10*i+1), 1, 2, 300)
	}
	r := open(t, s.write(t, Options{BlockSize: 1 << 10}))
	defer r.Close()
	for _, tc := range []struct{ from, to string }{
		{"", ""}, {"acme.100", "acme.101"}, {"acme.100", "acme.100\x00"}, {"acme.1005", "acme.102"}, {"acme.499", ""},
		{"acme.5", ""}, {"a", "acme.000"}, {"", "acme.003"},
	} {
		var want, got []string
		for _, name := range names {
			if name >= tc.from && (tc.to == "" || name < tc.to) {
				want = append(want, name)
			}
		}
		c, err := r.Table(t.Context(), tc.from, tc.to)
		if err != nil {
			t.Fatal(err)
		}
		for {
			e, ok, err := c.Next()
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				break
			}
			if e.Count != 2 || e.First%10 != 1 {
				t.Errorf("%+v", e)
			}
			got = append(got, e.Log)
		}
		if err := c.Close(); err != nil || !slices.Equal(got, want) {
			t.Errorf("from %q to %q: %q, want %q, %v", tc.from, tc.to, got, want, err)
		}
	}
}
