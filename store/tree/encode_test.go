package tree

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"testing"

	"go.uber.org/goleak"

	"dormouse/internal/codec"
	"dormouse/internal/extent"
	"dormouse/internal/golden"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sample has a merged run of two segments and two fresh ones.
func sample(t testing.TB) Tree {
	t.Helper()
	var live Tree
	var err error
	for i, key := range []string{"0/1.sst", "0/2.sst", "0/3.sst", "0/4.sst"} {
		s := segmentOf(key, uint64(i+1), uint64(i+2))
		s.MinTime, s.MaxTime, s.Bytes = int64(i), int64(i+5), 7
		if i == 2 {
			s.Refused = []string{"a.b", "a.c"}
		}
		if live, err = live.Commit(uint64(i+1), []extent.Summary{s}); err != nil {
			t.Fatal(err)
		}
	}
	live, _, err = live.Replace(Replacement{Inputs: []string{"0/1.sst", "0/2.sst"},
		Outputs: []extent.Summary{segmentOf("0/5.sst", 1, 2), segmentOf("0/6.sst", 3, 3)}})
	if err != nil {
		t.Fatal(err)
	}
	return live
}

// TestGoldenTree: a checkpoint is read as it was put, whichever version did, and one of an unknown version is refused.
func TestGoldenTree(t *testing.T) {
	if got, err := Decode(golden.Kept(t, "tree")); err != nil || !reflect.DeepEqual(got, sample(t)) {
		t.Errorf("of version 1: read as %+v, %v", got, err)
	}
	want, err := sample(t).Cut(6, extent.Cut{Logs: "a.>", UpTo: 3, Before: 4, ID: "b", Made: 5, By: "c"})
	if err != nil {
		t.Fatal(err)
	}
	today, err := want.Encode()
	if err != nil {
		t.Fatal(err)
	}
	kept := golden.Bytes(t, "tree2", today)
	if got, err := Decode(kept); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("read as %+v, %v, want %+v", got, err, want)
	}
	kept[0]++
	if _, err := Decode(kept); !errors.Is(err, ErrInvalid) {
		t.Errorf("of another version: %v", err)
	}
}

// TestTreesThatCannotBe are well encoded, and no owner puts one.
func TestTreesThatCannotBe(t *testing.T) {
	fresh := func(key string, record uint64) Run {
		return Run{Newest: record, Segments: []extent.Summary{segmentOf(key, record, record)}}
	}
	merged := func(key string, record uint64) Run { r := fresh(key, record); r.Level = 1; return r }
	two := fresh("a", 1)
	two.Segments = append(two.Segments, segmentOf("b", 2, 2))
	for name, runs := range map[string][]Run{
		"a run of nothing":      {{Newest: 1}},
		"a run of no record":    {fresh("a", 0)},
		"a fresh run of two":    {two},
		"runs out of order":     {fresh("a", 2), fresh("b", 1)},
		"levels out of order":   {fresh("a", 1), merged("b", 2)},
		"a segment twice":       {fresh("a", 1), fresh("a", 2)},
		"a segment of no entry": {{Newest: 1, Segments: []extent.Summary{{}}}},
	} {
		data, err := Tree{runs: runs}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Decode(data); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	enc, _ := zstdCodec()
	for name, plain := range map[string][]byte{"no run": []byte("garbage"), "half a run": {0xa3, 1}} {
		if got, err := Decode(enc.EncodeAll(plain, []byte{treeVersion})); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// TestDecodeIsBounded: damaged bytes that would become very much more are given up before they have.
func TestDecodeIsBounded(t *testing.T) {
	enc, _ := zstdCodec()
	// A frame that says how large its content is, in four bytes, and has it: blocks of 128 KiB, each one repeated byte.
	encode := func(plain []byte) []byte { return enc.EncodeAll(plain, []byte{treeVersion}) }
	large := binary.LittleEndian.AppendUint32([]byte{treeVersion, 0x28, 0xb5, 0x2f, 0xfd, 0x80, 0x50}, maxDecoded+1)
	large = append(large, bytes.Repeat([]byte{2, 0, 0x10, 0xa0}, maxDecoded>>17)...)
	for name, data := range map[string][]byte{
		"a size above the bound":    append(large, 11, 0, 0, 0xa0),
		"runs of nothing, 8 Mi":     encode(bytes.Repeat([]byte{0xa0}, 8<<20)),
		"segments that do not come": encode([]byte{0xa3, 1, 0, 2, 1, 3, 0x9a, 0x7f, 0xff, 0xff, 0xff}),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := Decode(data)
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; !errors.Is(err, ErrInvalid) || took > 48<<20 {
			t.Errorf("%s: %v, with %d MiB", name, err, took>>20)
		}
	}
}

func FuzzDecode(f *testing.F) {
	data, err := sample(f).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte{treeVersion})
	_, dec := zstdCodec()
	plain, err := dec.DecodeAll(data[1:], nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(plain)
	run, err := codec.Encode(Run{Newest: 1})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(run)
	enc, _ := zstdCodec()
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, data := range [][]byte{data, enc.EncodeAll(data, []byte{treeVersion})} { // as it is, and past the checksum
			got, err := Decode(data)
			if err != nil {
				if !errors.Is(err, ErrInvalid) {
					t.Fatalf("error %v does not wrap ErrInvalid", err)
				}
				continue
			}
			if err := got.Validate(); err != nil {
				t.Fatalf("%+v was read: %v", got, err)
			}
			again, err := got.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if twice, err := Decode(again); err != nil || fmt.Sprint(twice) != fmt.Sprint(got) {
				t.Fatalf("%+v is read again as %+v, %v", got, twice, err)
			}
		}
	})
}
