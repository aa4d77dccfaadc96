package catalog

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"testing"

	"dormouse/internal/entry"
	"dormouse/internal/extent"
)

func numberedRow(i int) Row {
	return RowOf(extent.Extent{Log: fmt.Sprintf("tenant%05d.web", i/3), First: uint64(i%3*10 + 1),
		Last: uint64(i%3*10 + 9), Count: 2, MaxTime: int64(i)},
		extent.Segment{Key: fmt.Sprintf("0/%0200d.sst", i%7), Size: uint64(i)})
}

// TestSnapshotRoundTrip spreads rows over runs of several parts and reads them back merged.
func TestSnapshotRoundTrip(t *testing.T) {
	const count, runs = 120_000, 4
	r := rand.New(rand.NewPCG(3, 4))
	var split [runs][]Row
	for i := range count {
		at := r.IntN(runs)
		split[at] = append(split[at], numberedRow(i))
	}
	objects := make(map[string][]byte)
	get := func(_ context.Context, s extent.Segment) ([]byte, error) { return objects[s.Key], nil }
	var sources []iter.Seq2[Row, error]
	for i, rows := range split {
		r.Shuffle(len(rows), func(a, b int) { rows[a], rows[b] = rows[b], rows[a] })
		Sort(rows)
		var parts []extent.Segment
		err := WriteParts(func(yield func(Row, error) bool) {
			for _, row := range rows {
				if !yield(row, nil) {
					return
				}
			}
		}, func(part []byte) error {
			s := extent.Segment{Key: fmt.Sprint(i, "/", len(parts)), Size: uint64(len(part))}
			parts, objects[s.Key] = append(parts, s), part
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		sources = append(sources, Run(t.Context(), parts, get))
	}
	if len(objects) <= runs {
		t.Fatalf("%d parts in %d runs: no run has several", len(objects), runs)
	}
	next := 0
	for row, err := range Merge(sources) {
		if err != nil {
			t.Fatal(err)
		}
		got, err := row.Located()
		want, _ := numberedRow(next).Located()
		if err != nil || got != want {
			t.Fatalf("row %d is %+v, %v, want %+v", next, got, err, want)
		}
		next++
	}
	if next != count {
		t.Fatalf("%d of %d rows came back", next, count)
	}
}

// TestMergeEndsAtAnError holds that a part which cannot be read ends the merge rather than leaving its rows out.
func TestMergeEndsAtAnError(t *testing.T) {
	gone := errors.New("gone")
	parts := []extent.Segment{{Key: "a"}, {Key: "b"}}
	var first []byte
	err := WriteParts(func(yield func(Row, error) bool) { yield(numberedRow(1), nil) }, func(part []byte) error {
		first = part
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	get := func(_ context.Context, s extent.Segment) ([]byte, error) {
		if s.Key == "a" {
			return first, nil
		}
		return nil, gone
	}
	rows := 0
	for _, err = range Merge([]iter.Seq2[Row, error]{Run(t.Context(), parts, get)}) {
		if err == nil {
			rows++
		}
	}
	if rows != 1 || !errors.Is(err, gone) {
		t.Fatalf("%d rows, then %v", rows, err)
	}
	if err := WriteParts(Run(t.Context(), parts, get), func([]byte) error { return nil }); !errors.Is(err, gone) {
		t.Fatalf("parts were written of what could not be read: %v", err)
	}
}

// TestBadParts: each is an error that says so, and never a row too few; nor does a small one grow into what the process
// cannot hold.
func TestBadParts(t *testing.T) {
	enc, _ := partCodec()
	part := func(plain ...byte) []byte { return enc.EncodeAll(plain, []byte{partVersion}) }
	whole := part(1, 'a', 1, 'x', 1, 'b', 1, 'y')
	damaged := bytes.Clone(whole)
	damaged[len(damaged)-1] ^= 1 // of the checksum
	for name, data := range map[string][]byte{
		"nothing":               {},
		"another version":       append([]byte{partVersion + 1}, whole[1:]...),
		"a frame that is cut":   whole[:len(whole)-2],
		"a damaged frame":       damaged,
		"a key that is cut":     part(1, 'a', 1, 'x', 9, 'b'),
		"a value that is cut":   part(1, 'a', 1, 'x', 1, 'b', 2, 'y'),
		"a length that is cut":  part(1, 'a', 1, 'x', 1, 'b', 0x80),
		"a row twice":           part(1, 'a', 1, 'x', 1, 'a', 1, 'x'),
		"rows that do not rise": part(1, 'b', 1, 'x', 1, 'a', 1, 'x'),
		"far more than any part": part(append(binary.AppendUvarint([]byte{1, 'a'}, 2*maxPart),
			make([]byte, 2*maxPart)...)...),
	} {
		var err error
		for _, err = range Rows(data) {
			if err != nil {
				break
			}
		}
		if !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRunEndsAtABadPart: what comes after it is not taken for the whole.
func TestRunEndsAtABadPart(t *testing.T) {
	enc, _ := partCodec()
	parts := map[string][]byte{"a": {partVersion + 1}, "b": enc.EncodeAll([]byte{1, 'b', 1, 'y'}, []byte{partVersion})}
	get := func(_ context.Context, s extent.Segment) ([]byte, error) { return parts[s.Key], nil }
	yielded := 0
	for _, err := range Run(t.Context(), []extent.Segment{{Key: "a"}, {Key: "b"}}, get) {
		if yielded++; !errors.Is(err, ErrCorrupt) {
			t.Errorf("%v, want ErrCorrupt", err)
		}
	}
	if yielded != 1 {
		t.Errorf("%d results, want one", yielded)
	}
}

// TestRowsThatCannotBe are well formed, and no extent is like that.
func TestRowsThatCannotBe(t *testing.T) {
	key := entry.AppendKey(nil, "a.b", 5)
	for name, e := range map[string]extent.Extent{
		"no entry":                       {Log: "a.b", First: 5, Last: 5, Count: 0},
		"more entries than sequences":    {Log: "a.b", First: 5, Last: 6, Count: 3},
		"one that ends before it begins": {Log: "a.b", First: 5, Last: 4, Count: 1},
	} {
		if l, err := decodeRow(key, appendRow(nil, e, extent.Segment{Key: "0/x.sst", Size: 1})); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %+v, %v", name, l, err)
		}
	}
}

// FuzzRows feeds the decoder of parts: it must end in ErrCorrupt or in rows that ascend.
func FuzzRows(f *testing.F) {
	err := WriteParts(func(yield func(Row, error) bool) {
		for i := range 10 {
			if !yield(numberedRow(i), nil) {
				return
			}
		}
	}, func(part []byte) error { f.Add(part); return nil })
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte{partVersion})
	f.Fuzz(func(t *testing.T, part []byte) {
		last := ""
		for row, err := range Rows(part) {
			if err != nil {
				if !errors.Is(err, ErrCorrupt) {
					t.Fatalf("error %v does not wrap ErrCorrupt", err)
				}
				return
			}
			if string(row.Key) <= last {
				t.Fatalf("%q after %q", row.Key, last)
			}
			last = string(row.Key)
			_, _ = row.Located()
		}
	})
}
