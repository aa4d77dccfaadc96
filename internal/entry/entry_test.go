package entry

import (
	"bytes"
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"
)

func TestValueRoundTrip(t *testing.T) {
	at := time.Unix(1700000000, 123456789).UTC()
	for name, tc := range map[string]struct {
		headers map[string][]string
		data    []byte
	}{
		"payload":      {nil, []byte("hello")},
		"empty":        {nil, []byte{}},
		"headers":      {map[string][]string{"B": {"2", "1"}, "A": {""}}, []byte("x")},
		"only headers": {map[string][]string{"Trace": {"abc"}}, []byte{}},
	} {
		t.Run(name, func(t *testing.T) {
			value := AppendValue(nil, at, tc.headers, tc.data)
			got, err := DecodeValue(value)
			if err != nil {
				t.Fatal(err)
			}
			want := Value{Time: at, Headers: tc.headers, Data: tc.data, Bytes: Size(tc.headers, tc.data)}
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("got %+v, want %+v", got, want)
			}
			mtime, n, err := Measure(value)
			if err != nil || !mtime.Equal(at) || n != want.Bytes {
				t.Fatalf("Measure = %v, %d, %v", mtime, n, err)
			}
		})
	}
}

func TestKeysSortByLogThenSequence(t *testing.T) {
	sorted := [][]byte{
		AppendKey(nil, "a.b", 1), AppendKey(nil, "a.b", 256), AppendLogEnd(nil, "a.b"),
		AppendKey(nil, "a.b.c", 1), AppendKey(nil, "a.bc", 1),
	}
	if !slices.IsSortedFunc(sorted, bytes.Compare) {
		t.Fatalf("keys are not in order: %q", sorted)
	}
}

func FuzzDecodeValue(f *testing.F) {
	f.Add(AppendValue(nil, time.Unix(1, 2), map[string][]string{"A": {"1"}}, []byte("x")))
	f.Add([]byte{valueVersion, 0, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1})
	f.Fuzz(func(t *testing.T, value []byte) {
		v, err := DecodeValue(value)
		at, n, merr := Measure(value)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("error %v does not wrap ErrCorrupt", err)
			}
			return
		}
		if merr != nil || n != v.Bytes || !at.Equal(v.Time) {
			t.Fatalf("Measure says %v, %d, %v; DecodeValue %v, %d", at, n, merr, v.Time, v.Bytes)
		}
		again, err := DecodeValue(AppendValue(nil, v.Time, v.Headers, v.Data))
		if err != nil || !again.Time.Equal(v.Time) || !bytes.Equal(again.Data, v.Data) ||
			len(again.Headers) != len(v.Headers) {
			t.Fatalf("decoded %+v, encoded and decoded again %+v, %v", v, again, err)
		}
	})
}

func FuzzSplitKey(f *testing.F) {
	f.Add(AppendKey(nil, "acme.web", 7))
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, key []byte) {
		log, seq, err := SplitKey(key)
		if err != nil {
			return
		}
		if got := AppendKey(nil, string(log), seq); !bytes.Equal(got, key) {
			t.Fatalf("key %q came back as %q", key, got)
		}
	})
}
