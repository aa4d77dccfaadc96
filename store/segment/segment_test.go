package segment

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"dormouse/internal/entry"
	"dormouse/internal/extent"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sample is what a test puts into a segment: per log, its entries in order.
type sample struct {
	entries []entry.Entry
}

// log adds n entries of one log, with sequences first, first+step, ... and log-like text of about size bytes.
func (s *sample) log(log string, first uint64, step, n, size int) *sample {
	for i := range n {
		e := entry.Entry{Log: log, Seq: first + uint64(i*step), Time: time.Unix(1700000000, int64(i)*1e6).UTC()}
		e.Data = logLine(log, i, size)
		if i%7 == 3 {
			e.Headers = map[string][]string{"Trace": {fmt.Sprint(i)}}
		}
		s.entries = append(s.entries, e)
	}
	return s
}

func logLine(log string, i, size int) []byte {
	line := fmt.Sprintf("2026-01-02T15:04:05.%06dZ %s GET /api/v1/items/%x?page=%d 200 %dus",
		i, log, i*2654435761, i%17, i*31%977)
	return []byte((line + strings.Repeat(" upstream=10.0.0.7", size/18+1))[:max(size, 1)])
}

func (s *sample) of(log string) (found []entry.Entry) {
	for _, e := range s.entries {
		if e.Log == log {
			found = append(found, e)
		}
	}
	return found
}

func (s *sample) extents() (all []extent.Extent) {
	for _, e := range s.entries {
		if n := len(all); n == 0 || all[n-1].Log != e.Log {
			all = append(all, extent.Extent{Log: e.Log})
		}
		all[len(all)-1].Add(e.Seq, e.Time, entry.Size(e.Headers, e.Data))
	}
	return all
}

func (s *sample) write(t testing.TB, opts Options) []byte {
	t.Helper()
	w, err := NewWriter(opts)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for _, e := range s.entries {
		key := entry.AppendKey(nil, e.Log, e.Seq)
		if err := w.Add(key, entry.AppendValue(nil, e.Time, e.Headers, e.Data)); err != nil {
			t.Fatal(err)
		}
	}
	if w.Extents() != len(s.extents()) {
		t.Fatalf("Extents() = %d, want %d", w.Extents(), len(s.extents()))
	}
	estimate := w.Size()
	data, extents, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(extents, s.extents()) {
		t.Fatalf("extents\n%v, want\n%v", extents, s.extents())
	}
	if len(data) > estimate+DefaultBlockSize+1024 {
		t.Fatalf("Size() promised %d bytes, got %d", estimate, len(data))
	}
	return data
}

func open(t testing.TB, data []byte) *Reader {
	t.Helper()
	r, err := Open(context.Background(), Bytes("7/test.sst", data))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func scan(r *Reader, log string, first, last uint64) (found []entry.Entry, err error) {
	err = r.Scan(context.Background(), log, first, last, func(e entry.Entry) error {
		found = append(found, e)
		return nil
	})
	return found, err
}

func TestRoundTrip(t *testing.T) {
	s := new(sample).log("acme.a", 5, 3, 700, 200).log("acme.a.b", 1, 1, 1, 1).log("acme.ab", 9, 1, 40, 100).
		log("zoo.z", math.MaxUint64-2, 1, 3, 50)
	for _, compression := range []string{"", "zstd", "snappy", "none"} {
		t.Run("compression "+compression, func(t *testing.T) {
			r := open(t, s.write(t, Options{Compression: compression, BlockSize: 4 << 10}))
			defer r.Close()
			for _, x := range s.extents() {
				found, err := scan(r, x.Log, 0, math.MaxUint64)
				if err != nil || !reflect.DeepEqual(found, s.of(x.Log)) {
					t.Fatalf("%s: read %d entries of %d, %v", x.Log, len(found), x.Count, err)
				}
			}
			contents, err := r.Contents(context.Background())
			if err != nil || !reflect.DeepEqual(contents, s.extents()) {
				t.Fatalf("contents\n%v, %v, want\n%v", contents, err, s.extents())
			}
			if _, err := r.Verify(context.Background(), s.extents()); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestScanRange(t *testing.T) {
	s := new(sample).log("acme.a", 10, 2, 100, 100).log("acme.b", 1, 1, 10, 10)
	r := open(t, s.write(t, Options{BlockSize: 1 << 10}))
	defer r.Close()
	for _, tc := range []struct {
		log         string
		first, last uint64
		count       int
	}{
		{"acme.a", 0, math.MaxUint64, 100}, {"acme.a", 10, 10, 1}, {"acme.a", 11, 11, 0}, {"acme.a", 11, 15, 2},
		{"acme.a", 208, 300, 1}, {"acme.a", 209, 300, 0}, {"acme.a", 0, 9, 0}, {"acme.a", 20, 10, 0},
		{"acme", 0, math.MaxUint64, 0}, {"acme.aa", 0, math.MaxUint64, 0}, {"zz.z", 0, math.MaxUint64, 0},
	} {
		found, err := scan(r, tc.log, tc.first, tc.last)
		if err != nil || len(found) != tc.count {
			t.Errorf("%s from %d to %d: %d entries, %v, want %d", tc.log, tc.first, tc.last, len(found), err, tc.count)
		}
	}
}

func TestScanReturnsTheCallersErrorAndPanic(t *testing.T) {
	r := open(t, new(sample).log("acme.a", 1, 1, 10, 10).write(t, Options{}))
	defer r.Close()
	enough := errors.New("enough")
	calls := 0
	err := r.Scan(context.Background(), "acme.a", 0, 9, func(entry.Entry) error { calls++; return enough })
	if err != enough || calls != 1 {
		t.Fatalf("got %v after %d calls, want the caller's error after one", err, calls)
	}
	defer func() {
		if recover() != "mine" {
			t.Fatal("the caller's panic did not come through")
		}
	}()
	_ = r.Scan(context.Background(), "acme.a", 0, 9, func(entry.Entry) error { panic("mine") })
}

func TestScanStopsWithItsContext(t *testing.T) {
	r := open(t, new(sample).log("acme.a", 1, 1, 10, 10).write(t, Options{}))
	defer r.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	err := r.Scan(ctx, "acme.a", 0, 9, func(entry.Entry) error { return nil })
	if !errors.Is(err, context.Canceled) || errors.Is(err, ErrCorrupt) {
		t.Fatalf("got %v", err)
	}
}

func TestWriterRefuses(t *testing.T) {
	value := entry.AppendValue(nil, time.Unix(1, 0), nil, []byte("x"))
	w, err := NewWriter(Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	add := func(log string, seq uint64, value []byte) error { return w.Add(entry.AppendKey(nil, log, seq), value) }
	if err := add("acme.b", 5, value); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		log   string
		seq   uint64
		value []byte
		want  error
	}{
		"same key":       {"acme.b", 5, value, ErrOrder},
		"lower sequence": {"acme.b", 4, value, ErrOrder},
		"lower log":      {"acme.a", 9, value, ErrOrder},
		"bad value":      {"acme.c", 1, []byte{9}, entry.ErrCorrupt},
		"sequence 0":     {"acme.c", 0, value, extent.ErrInvalid},
		"no key":         {"", 1, value, entry.ErrCorrupt},
	} {
		if err := add(tc.log, tc.seq, tc.value); !errors.Is(err, tc.want) {
			t.Errorf("%s: got %v, want %v", name, err, tc.want)
		}
	}
	if err := add("acme.\xff", 1, value); err == nil {
		t.Error("accepted a LogID that is not valid UTF-8")
	}
	if err := add("acme.c", 1, value); err != nil {
		t.Fatalf("the Writer does not go on after a refusal: %v", err)
	}
	data, extents, err := w.Finish()
	if err != nil || len(extents) != 2 {
		t.Fatalf("%v, %v", extents, err)
	}
	if _, err := open(t, data).Verify(context.Background(), extents); err != nil {
		t.Fatal(err)
	}
	if err := add("acme.d", 1, value); !errors.Is(err, ErrFinished) {
		t.Errorf("Add after Finish: %v", err)
	}
}

func TestEmptyAndUnknown(t *testing.T) {
	if _, err := NewWriter(Options{Compression: "lzma"}); err == nil || !strings.Contains(err.Error(), "use zstd") {
		t.Errorf("got %v", err)
	}
	w, err := NewWriter(Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.Finish(); !errors.Is(err, ErrEmpty) {
		t.Errorf("got %v, want ErrEmpty", err)
	}
	w.Close()
}

func TestEqualEntriesMakeEqualSegments(t *testing.T) {
	s := new(sample).log("acme.a", 1, 1, 500, 100)
	if !bytes.Equal(s.write(t, Options{}), s.write(t, Options{})) {
		t.Fatal("two segments of the same entries differ")
	}
}
