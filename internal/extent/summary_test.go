package extent

import (
	"errors"
	"reflect"
	"testing"
)

// summary is of two logs, with one between them that is refused.
func summary() Summary {
	s := Summarize(Segment{Key: "0/a.sst", Size: 100}, []Extent{
		{Log: "a.b", First: 5, Last: 9, Count: 3, Bytes: 30, MinTime: -7, MaxTime: 20},
		{Log: "a.f", First: 3, Last: 4, Count: 2, Bytes: 20, MinTime: 5, MaxTime: 40},
	})
	s.Refused = []string{"a.d"}
	return s
}

func TestSummarize(t *testing.T) {
	want := Summary{Object: Segment{Key: "0/a.sst", Size: 100}, First: "a.b", Last: "a.f", Logs: 2, Entries: 5, Bytes: 50,
		MinSeq: 3, MaxSeq: 9, MinTime: -7, MaxTime: 40, Refused: []string{"a.d"}}
	if got := summary(); !reflect.DeepEqual(got, want) || got.Validate() != nil {
		t.Errorf("got %+v, %v, want %+v", got, got.Validate(), want)
	}
	one := Extent{Log: "a.b", First: 5, Last: 9, Count: 3, Bytes: 30, MinTime: 10, MaxTime: 20}
	want = Summary{Object: Segment{Key: "k", Size: 1}, First: "a.b", Last: "a.b", Logs: 1, Entries: 3, Bytes: 30,
		MinSeq: 5, MaxSeq: 9, MinTime: 10, MaxTime: 20}
	if got := Summarize(want.Object, []Extent{one}); !reflect.DeepEqual(got, want) {
		t.Errorf("of one: got %+v, want %+v", got, want)
	}
}

func TestValidateSummary(t *testing.T) {
	one := Extent{Log: "a", First: 1, Last: 1, Count: 1}
	for name, change := range map[string]func(*Summary){
		"one log of one entry": func(s *Summary) { *s = Summarize(s.Object, []Extent{one}) },
		"a log for each entry": func(s *Summary) { s.Logs = s.Entries },
		"nothing refused":      func(s *Summary) { s.Refused = nil },
		"entries of no bytes":  func(s *Summary) { s.Bytes = 0 },
	} {
		good := summary()
		change(&good)
		if err := good.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, change := range map[string]func(*Summary){
		"no key":               func(s *Summary) { s.Object.Key = "" },
		"an object of nothing": func(s *Summary) { s.Object.Size = 0 },
		"no first log":         func(s *Summary) { s.First = "" },
		"logs backwards":       func(s *Summary) { s.Last = "a.a" },
		"no logs":              func(s *Summary) { s.Logs = 0 },
		"no entries":           func(s *Summary) { s.Entries = 0 },
		"logs of no entries":   func(s *Summary) { s.Logs = 6 },
		"no lowest sequence":   func(s *Summary) { s.MinSeq = 0 },
		"sequences backwards":  func(s *Summary) { s.MaxSeq = 2 },
		"times backwards":      func(s *Summary) { s.MaxTime = -8 },
		"refused, no order":    func(s *Summary) { s.Refused = []string{"a.e", "a.d"} },
	} {
		bad := summary()
		change(&bad)
		if err := bad.Validate(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMayHold(t *testing.T) {
	for log, want := range map[string]bool{"a.a": false, "a.b": true, "a.c": true, "a.d": false, "a.dd": true, "a.e": true,
		"a.f": true, "a.ff": false, "": false} {
		if got := summary().MayHold(log); got != want {
			t.Errorf("%q: %v", log, got)
		}
	}
}

func TestOverlaps(t *testing.T) {
	for _, tc := range []struct {
		from, to string
		want     bool
	}{
		{"", "", true}, {"a.f", "", true}, {"a.ff", "", false}, {"", "a.b", false}, {"", "a.bb", true}, {"a.c", "a.d", true},
		{"a.f", "a.z", true}, {"a.g", "a.z", false}, {"a", "a.b", false},
	} {
		if got := summary().Overlaps(tc.from, tc.to); got != tc.want {
			t.Errorf("from %q to %q: %v", tc.from, tc.to, got)
		}
	}
}

// TestTotalOf: what segments add up to does not depend on how entries are spread over them, nor on their objects.
func TestTotalOf(t *testing.T) {
	extents := []Extent{
		{Log: "a.b", First: 5, Last: 9, Count: 3, Bytes: 30, MinTime: -7, MaxTime: 20},
		{Log: "a.c", First: 3, Last: 4, Count: 2, Bytes: 20, MinTime: 5, MaxTime: 40},
		{Log: "a.d", First: 10, Last: 19, Count: 4, Bytes: 7, MinTime: -9, MaxTime: 1},
	}
	want := Total{Entries: 9, Bytes: 57, MinSeq: 3, MaxSeq: 19, MinTime: -9, MaxTime: 40}
	of := func(key string, extents []Extent) Summary { return Summarize(Segment{Key: key, Size: 1}, extents) }
	for cut := range len(extents) {
		segments := []Summary{of("b", extents[cut:])}
		if cut > 0 {
			segments = append(segments, of("a", extents[:cut]))
		}
		if got := TotalOf(segments); got != want {
			t.Errorf("cut at %d: %+v, want %+v", cut, got, want)
		}
	}
	if got := TotalOf(nil); got != (Total{}) {
		t.Errorf("of nothing: %+v", got)
	}
}
