package manifest

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"dormouse/internal/golden"
)

// TestGoldenRecords: a record is read as it was appended, whichever version did, and one of an unknown version is
// refused.
func TestGoldenRecords(t *testing.T) {
	for name, kind := range map[string]Kind{"claim": Claim, "floor": Floor, "commit": Commit, "snapshot": TakeSnapshot} {
		var want Record
		golden.Fill(&want)
		want.Kind, want.Stored = kind, time.Time{}
		if kind == Claim || kind == Floor {
			want.Segments = nil
		}
		for i := range want.Segments {
			for j := range want.Segments[i].Extents {
				e := &want.Segments[i].Extents[j]
				e.Log, e.Last, e.Count, e.MaxTime = "a.b", e.First+9, 3, e.MinTime+5
			}
		}
		if want.Snapshot = nil; kind == TakeSnapshot {
			want.Snapshot = &Snapshot{UpTo: 9, UpToID: "nine", Highest: 7, Runs: []Run{{UpTo: 9, Extents: 1, Entries: 2}}}
			golden.Fill(&want.Snapshot.Runs[0].Parts)
		}
		today, err := want.Encode()
		if err != nil {
			t.Fatal(err)
		}
		kept := golden.Bytes(t, name, today)
		if read, err := Decode(kept); err != nil || !reflect.DeepEqual(read, want) {
			t.Errorf("%s: read as %+v, %v\nwant %+v", name, read, err, want)
		}
		kept[0]++
		if _, err := Decode(kept); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "version") {
			t.Errorf("%s of another version: %v", name, err)
		}
	}
}
