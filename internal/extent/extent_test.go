package extent

import (
	"errors"
	"testing"
	"time"
)

func TestAddKeepsTheInvariant(t *testing.T) {
	e := Extent{Log: "a.b"}
	for i, nanos := range []int64{50, 20, 70} { // clocks of a cluster may step back a little
		e.Add(uint64(3+2*i), time.Unix(0, nanos), 10)
	}
	want := Extent{Log: "a.b", First: 3, Last: 7, Count: 3, Bytes: 30, MinTime: 20, MaxTime: 70}
	if e != want || e.Validate() != nil {
		t.Fatalf("got %+v, %v, want %+v", e, e.Validate(), want)
	}
}

func TestValidate(t *testing.T) {
	good := Extent{Log: "a.b", First: 3, Last: 7, Count: 3, MinTime: -1, MaxTime: 0}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Extent){
		"no first":  func(e *Extent) { e.First = 0 },
		"backwards": func(e *Extent) { e.Last = 2 },
		"empty":     func(e *Extent) { e.Count = 0 },
		"too many":  func(e *Extent) { e.Count = 6 },
		"time":      func(e *Extent) { e.MinTime = 1 },
	} {
		bad := good
		change(&bad)
		if err := bad.Validate(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
