package ingest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"dormouse/internal/wire"
	"dormouse/store/manifest"
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

// TestInheritedFloors come before what was recorded since, and a clock that went back makes nothing due early.
func TestInheritedFloors(t *testing.T) {
	start := time.Unix(1000, 0)
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	var l floorLog
	l.recorded(40, at(9))
	l.recorded(50, at(10))
	l.inherit([]floorSample{{10, at(0)}, {20, at(3)}, {20, at(3)}, {30, at(2)}, {40, at(4)}})
	for _, tc := range []struct {
		before int
		want   uint64
	}{{-1, 0}, {0, 10}, {2, 10}, {3, 30}, {4, 40}, {9, 40}, {10, 50}} {
		copied := floorLog{samples: slices.Clone(l.samples)}
		if got, _ := copied.due(at(tc.before)); got != tc.want {
			t.Errorf("at %d s floor %d is due, want %d", tc.before, got, tc.want)
		}
	}
}

func TestLeastAge(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	for name, tc := range map[string]struct {
		stored, server, own, want time.Duration // against now
	}{
		"the clocks agree":               {-10, 0, 0, 10},
		"the server's jumped ahead":      {-10, 3600, 0, 10},
		"this machine's jumped ahead":    {-10, 0, 3600, 10},
		"the server's went back":         {-10, -3600, 0, 0},
		"another server stored it ahead": {3600, 0, 0, 0},
	} {
		if got := leastAge(now.Add(tc.stored), now.Add(tc.server), now.Add(tc.own)); got != tc.want {
			t.Errorf("%s: %d, want %d", name, got, tc.want)
		}
	}
	if got := leastAge(time.Time{}, now, now); got != 0 {
		t.Errorf("a record without a time is %s old", got)
	}
}

// TestTrimWithManyTakeovers: owners that each live for less than the trim delay trim what is recorded for longer, and not earlier.
func TestTrimWithManyTakeovers(t *testing.T) {
	const delay = 4 * time.Second
	s := newSystem(t)
	dir := t.TempDir()
	n := s.start("a", dir, func(c *Config) { c.TrimDelay = delay })
	n.awaitOwned()
	s.publish("logs.t.a", "1", "2", "3")
	s.archiveAll("t.a", 3)
	var recorded manifest.Record
	s.until("the floor to be recorded", func() bool { recorded = s.lastRecord(); return recorded.Floor == 3 })
	stream, err := s.js.Stream(t.Context(), wire.DefaultSource)
	if err != nil {
		t.Fatal(err)
	}
	trimmed := func() bool {
		info, err := stream.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return info.State.FirstSeq == 4
	}
	for i := 0; !trimmed(); i++ {
		if i == 20 {
			t.Fatal("not trimmed after 20 takeovers")
		}
		n.stop()
		if i%2 == 0 {
			dir = t.TempDir()
		}
		n = s.start(fmt.Sprint("node", i), dir, func(c *Config) { c.TrimDelay = delay })
		n.awaitOwned()
		life := time.Now().Add(delay / 8)
		s.until("the owner to have lived for a while", func() bool { return trimmed() || time.Now().After(life) })
	}
	if age := time.Since(recorded.Stored); age < delay {
		t.Errorf("trimmed %s after the floor was recorded, the delay is %s", age, delay)
	}
}
