package manifest

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"dormouse/internal/extent"
	"dormouse/internal/golden"
)

// TestGoldenRecords: a record is read as it was appended, whichever version did, and one of an unknown version is
// refused.
func TestGoldenRecords(t *testing.T) {
	for name, kind := range map[string]Kind{"claim": Claim, "floor": Floor, "commit": Commit, "checkpoint": TakeCheckpoint,
		"merge": Merge, "cut": MakeCut} {
		var want Record
		golden.Fill(&want)
		want.Kind, want.Stored = kind, time.Time{}
		possible(want.Segments)
		possible(want.Merge.Outputs)
		if kind != Commit {
			want.Segments = nil
		}
		if kind != TakeCheckpoint {
			want.Checkpoint = nil
		}
		if kind != Merge {
			want.Merge = nil
		}
		if kind != MakeCut {
			want.Cut = nil
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

// possible makes segments such as can be.
func possible(segments []extent.Summary) {
	for i := range segments {
		s := &segments[i]
		slices.Sort(s.Refused)
		s.First, s.Last, s.Logs, s.Entries, s.MaxSeq, s.MaxTime = "a.b", "a.c", 2, 3, s.MinSeq+9, s.MinTime+5
	}
}

// TestRecordOfTheVersionBefore: its archive is refused by what it is.
func TestRecordOfTheVersionBefore(t *testing.T) {
	if _, err := Decode(golden.Kept(t, "version1")); !errors.Is(err, ErrOldFormat) {
		t.Errorf("read with %v", err)
	}
}
