package segment

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"dormouse/internal/entry"
	"dormouse/internal/golden"
)

// TestGoldenSegment: an object is read whichever version made it.
func TestGoldenSegment(t *testing.T) {
	w, err := NewWriter(Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	var want []string
	for _, log := range []string{"a.b", "a.c"} {
		for seq := range uint64(3) {
			at := time.Unix(1_700_000_000+int64(seq), 0)
			value := entry.AppendValue(nil, at, map[string][]string{"H": {log}}, []byte(fmt.Sprint("entry ", seq)))
			if err := w.Add(entry.AppendKey(nil, log, 10*seq+1), value); err != nil {
				t.Fatal(err)
			}
			want = append(want, fmt.Sprintf("%s %d %d entry %d", log, 10*seq+1, at.UnixNano(), seq))
		}
	}
	today, extents, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	r, err := Open(t.Context(), Bytes("0/golden.sst", golden.Bytes(t, "segment", today)))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := r.Contents(t.Context()); err != nil || !reflect.DeepEqual(got, extents) {
		t.Errorf("the contents are %+v, %v, want %+v", got, err, extents)
	}
	var got []string
	for _, e := range extents {
		err := r.Scan(t.Context(), e.Log, e.First, e.Last, func(e entry.Entry) error {
			got = append(got, fmt.Sprintf("%s %d %d %s", e.Log, e.Seq, e.Time.UnixNano(), e.Data))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("read %q, want %q", got, want)
	}
	d := rowDecoder{rest: []byte{contentsVersion + 1}}
	if d.version(); d.err == nil || !errors.Is(d.err, errRow) || !strings.Contains(d.err.Error(), "version") {
		t.Errorf("contents of another version: %v", d.err)
	}
}
