package ingest

import (
	"testing"
	"time"
)

func TestFloorsAreDueAfterTheDelayOnly(t *testing.T) {
	var l floorLog
	start := time.Unix(1000, 0)
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	if _, ok := l.due(at(100)); ok {
		t.Fatal("a floor was due before any was recorded")
	}
	l.recorded(10, at(0))
	l.recorded(20, at(5))
	l.recorded(20, at(6)) // no news
	l.recorded(30, at(9))
	for _, tc := range []struct {
		before int
		want   uint64
	}{{-1, 0}, {0, 10}, {4, 10}, {5, 20}, {8, 20}, {9, 30}, {50, 30}} {
		if got, _ := l.due(at(tc.before)); got != tc.want {
			t.Errorf("at %d s floor %d is due, want %d", tc.before, got, tc.want)
		}
	}
	if !l.last().at.Equal(at(9)) {
		t.Errorf("last floor recorded at %v", l.last())
	}
}

func TestFloorLogIsBounded(t *testing.T) {
	var l floorLog
	start := time.Unix(0, 0)
	for i := range 10 * maxFloorSamples {
		l.recorded(uint64(i+1), start.Add(time.Duration(i)*time.Second))
		if len(l.samples) > maxFloorSamples {
			t.Fatalf("%d samples kept", len(l.samples))
		}
		// Merging may make a floor due later, never earlier.
		if i%500 == 0 {
			half := start.Add(time.Duration(i/2) * time.Second)
			copied := floorLog{samples: append([]floorSample(nil), l.samples...)}
			if floor, _ := copied.due(half); floor > uint64(i/2+1) {
				t.Fatalf("floor %d is due at a time when %d was recorded", floor, i/2+1)
			}
		}
	}
}
