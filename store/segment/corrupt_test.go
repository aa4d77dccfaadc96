package segment

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/sstable"

	"dormouse/internal/entry"
	"dormouse/internal/extent"
)

// TestEveryFlippedBit: whatever bit of a segment is flipped, Verify says so; and a read returns what was written, or
// fails with ErrCorrupt.
func TestEveryFlippedBit(t *testing.T) {
	s := new(sample).log("acme.a", 1, 1, 6, 60).log("acme.b", 1, 2, 3, 20)
	for _, compression := range []string{"zstd", "none"} {
		data := s.write(t, Options{Compression: compression, BlockSize: 256})
		for bit := 0; bit < len(data)*8; bit++ {
			if bit/8 < len(data)-100 {
				bit += 6 // of the blocks every seventh bit: each bit of a byte has its turn; of the footer all
			}
			flipped := bytes.Clone(data)
			flipped[bit/8] ^= 1 << (bit % 8)
			r, err := Open(context.Background(), Bytes("7/test.sst", flipped))
			if err != nil {
				mustBeCorrupt(t, bit, err)
				continue
			}
			_, err = r.Verify(context.Background(), s.extents())
			mustBeCorrupt(t, bit, err)
			for _, x := range s.extents() {
				if found, err := scan(r, x.Log, 0, math.MaxUint64); err != nil {
					mustBeCorrupt(t, bit, err)
				} else if !reflect.DeepEqual(found, s.of(x.Log)) {
					t.Fatalf("%s: with bit %d flipped, reading %s returned something else", compression, bit, x.Log)
				}
			}
			if contents, err := r.Contents(context.Background()); err != nil {
				mustBeCorrupt(t, bit, err)
			} else if !reflect.DeepEqual(contents, s.extents()) {
				t.Fatalf("%s: with bit %d flipped, the contents are %v", compression, bit, contents)
			}
		}
	}
}

func mustBeCorrupt(t *testing.T, bit int, err error) {
	t.Helper()
	if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "7/test.sst") {
		t.Fatalf("bit %d: got %v, want ErrCorrupt with the name of the object", bit, err)
	}
}

func TestTruncated(t *testing.T) {
	s := new(sample).log("acme.a", 1, 1, 5, 30)
	data := s.write(t, Options{})
	for n := range data {
		for _, part := range [][]byte{data[:n], data[n+1:]} {
			r, err := Open(context.Background(), Bytes("7/test.sst", part))
			if err == nil {
				_, err = r.Verify(context.Background(), nil)
			}
			mustBeCorrupt(t, n, err)
		}
	}
}

func TestVerifyNamesTheDifference(t *testing.T) {
	s := new(sample).log("acme.a", 1, 1, 12, 60).log("acme.b", 1, 2, 3, 20)
	r := open(t, s.write(t, Options{}))
	defer r.Close()
	for name, tc := range map[string]struct {
		change func(*extent.Extent)
		want   string
	}{
		"other log": {func(e *extent.Extent) { e.Log = "acme.c" }, "nothing of acme.c"},
		"count":     {func(e *extent.Extent) { e.Count++ }, "want acme.b from 1 to 5: 4 entries"},
		"bytes":     {func(e *extent.Extent) { e.Bytes++ }, "61 bytes"},
		"last":      {func(e *extent.Extent) { e.Last++ }, "from 1 to 6"},
		"time":      {func(e *extent.Extent) { e.MaxTime++ }, "times"},
	} {
		want := s.extents()[1:]
		tc.change(&want[0])
		_, err := r.Verify(context.Background(), want)
		mustBeCorrupt(t, 0, err)
		if !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v does not say %q", name, err, tc.want)
		}
	}
}

// TestVerifyDoubtsTheContents: tables whose checksums are all right, but whose rows do not fit together.
func TestVerifyDoubtsTheContents(t *testing.T) {
	value := entry.AppendValue(nil, sampleTime, nil, []byte("x"))
	a := extent.Extent{Log: "acme.a"}
	a.Add(1, sampleTime, 1)
	seal := appendTotals(nil, totals{1, 1, 1})
	toc := func(log string) []byte { return append([]byte{contentsPrefix}, log...) }
	wrong := a
	wrong.Bytes = 2
	for name, tc := range map[string]struct {
		rows [][2][]byte
		want string
	}{
		"no contents": {[][2][]byte{{entry.AppendKey(nil, "acme.a", 1), value}}, "no end"},
		"no seal": {[][2][]byte{{entry.AppendKey(nil, "acme.a", 1), value}, {toc("acme.a"), appendExtent(nil, a)}},
			"no end"},
		"no entries": {[][2][]byte{{toc("acme.a"), appendExtent(nil, a)}, {sealKey, seal}}, "entries of 0 logs"},
		"wrong bytes": {[][2][]byte{{entry.AppendKey(nil, "acme.a", 1), value}, {toc("acme.a"), appendExtent(nil, wrong)},
			{sealKey, appendTotals(nil, totals{1, 1, 2})}}, "1 bytes"},
		"wrong seal": {[][2][]byte{{entry.AppendKey(nil, "acme.a", 1), value}, {toc("acme.a"), appendExtent(nil, a)},
			{sealKey, appendTotals(nil, totals{1, 2, 1})}}, "adds up to"},
		"after seal": {[][2][]byte{{sealKey, appendTotals(nil, totals{})}, {append(toc("\xff"), 1), nil}}, "after the seal"},
		"bad key":    {[][2][]byte{{[]byte("acme"), value}}, "key"},
		"bad entry":  {[][2][]byte{{entry.AppendKey(nil, "acme.a", 1), []byte{9}}}, "entry 1 of acme.a"},
		"bad row":    {[][2][]byte{{toc("acme.a"), []byte{7}}}, "version 7"},
	} {
		r := open(t, table(t, tc.rows))
		_, err := r.Verify(context.Background(), nil)
		mustBeCorrupt(t, 0, err)
		if !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v does not say %q", name, err, tc.want)
		}
	}
}

// table makes a sorted table of any rows.
func table(t testing.TB, rows [][2][]byte) []byte {
	t.Helper()
	opts, err := Options{}.writerOptions()
	if err != nil {
		t.Fatal(err)
	}
	var out buffer
	w := sstable.NewWriter(&out, opts)
	for _, r := range rows {
		if err := w.Set(r[0], r[1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// broken fails every read.
type broken struct{ Source }

func (broken) ReadAt(context.Context, []byte, int64) error { return io.ErrClosedPipe }

func TestSourceFailureIsNotCorruption(t *testing.T) {
	s := new(sample).log("acme.a", 1, 1, 4000, 400)
	data := s.write(t, Options{Compression: "none"})
	_, err := Open(context.Background(), broken{Bytes("x", data)})
	mustBlameSource(t, err)
	r := open(t, data)
	r.file.src = broken{r.file.src}
	_, err = scan(r, "acme.a", 0, 100)
	mustBlameSource(t, err)
	_, err = r.Verify(context.Background(), nil)
	mustBlameSource(t, err)
}

func mustBlameSource(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, io.ErrClosedPipe) || errors.Is(err, ErrCorrupt) {
		t.Fatalf("got %v, want what the source failed with", err)
	}
}

func TestPanicsOfTheLibraryAreErrors(t *testing.T) {
	r := open(t, new(sample).log("acme.a", 1, 1, 1, 1).write(t, Options{}))
	err := r.explain(guard(func() error { panic("assertion failed") }))
	mustBeCorrupt(t, 0, err)
	if !strings.Contains(err.Error(), "assertion failed") {
		t.Fatalf("%v does not say what happened", err)
	}
}

// TestBadRowsOfTheContents: each is refused by itself, whatever the checksums and the seal say.
func TestBadRowsOfTheContents(t *testing.T) {
	key := func(log string) []byte { return append([]byte{contentsPrefix}, log...) }
	row := func(e extent.Extent) []byte { return appendExtent(nil, e) }
	good := extent.Extent{First: 3, Last: 9, Count: 2, Bytes: 7, MinTime: 1, MaxTime: 2}
	for name, tc := range map[string]struct {
		log string
		row []byte
	}{
		"a log twice":                 {"acme.m", row(good)},
		"a log before the last one":   {"acme.a", row(good)},
		"a log that is none":          {"zzz", row(good)},
		"bytes behind the row":        {"acme.z", append(row(good), 0)},
		"a row that is cut":           {"acme.z", row(good)[:3]},
		"another version":             {"acme.z", append([]byte{contentsVersion + 1}, row(good)[1:]...)},
		"no entries":                  {"acme.z", row(extent.Extent{First: 3, Last: 9})},
		"sequence 0":                  {"acme.z", row(extent.Extent{First: 0, Last: 0, Count: 1})},
		"more entries than sequences": {"acme.z", row(extent.Extent{First: 3, Last: 4, Count: 3})},
	} {
		var c contents
		if err := c.add(key("acme.m"), row(good)); err != nil {
			t.Fatal(err)
		}
		if err := c.add(key(tc.log), tc.row); !errors.Is(err, errRow) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzOpen(f *testing.F) {
	s := new(sample).log("acme.a", 1, 1, 12, 60).log("acme.b", 1, 2, 3, 20)
	for _, compression := range []string{"zstd", "snappy", "none"} {
		f.Add(s.write(f, Options{Compression: compression, BlockSize: 256}))
	}
	f.Add([]byte(footerEnd))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Open(context.Background(), Bytes("7/test.sst", data))
		if err != nil {
			mustBeCorrupt(t, 0, err)
			return
		}
		if _, err := r.Contents(context.Background()); err != nil {
			mustBeCorrupt(t, 0, err)
		}
		if _, err := scan(r, "acme.a", 0, math.MaxUint64); err != nil {
			mustBeCorrupt(t, 0, err)
		}
		if _, err := r.Verify(context.Background(), nil); err != nil {
			mustBeCorrupt(t, 0, err)
		}
	})
}

func FuzzDecodeExtent(f *testing.F) {
	f.Add(appendExtent(nil, extent.Extent{First: 1, Last: 9, Count: 3, Bytes: 7, MinTime: -5, MaxTime: math.MaxInt64}))
	f.Add([]byte{contentsVersion, 1, 0, 1, 1, 0, 0, 0})
	f.Add([]byte{2})
	f.Fuzz(func(t *testing.T, row []byte) {
		e, err := decodeExtent("acme.a", row)
		if err != nil {
			if !errors.Is(err, errRow) {
				t.Fatalf("error %v does not wrap errRow", err)
			}
			return
		}
		if again, err := decodeExtent("acme.a", appendExtent(nil, e)); err != nil || again != e {
			t.Fatalf("%+v became %+v, %v", e, again, err)
		}
		if tot, err := decodeTotals(row); err == nil && len(appendTotals(nil, tot)) > len(row) {
			t.Fatalf("totals %+v grew", tot)
		}
	})
}
