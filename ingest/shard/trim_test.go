package shard

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"dormouse/ingest/ingesttest"
	"dormouse/internal/natstest"
	"dormouse/internal/wire"
	"dormouse/scheduler"
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
	if last := l.last(); !last.at.Equal(at(5)) {
		t.Errorf("the last floor was recorded at %v", last)
	}
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

// TestFloorIsBelowWhatIsBuffered: by less than a block of sequences, and never below what is recorded.
func TestFloorIsBelowWhatIsBuffered(t *testing.T) {
	for _, tc := range []struct {
		applied, recorded uint64
		buffered          []uint64 // first sequences of logs
		want              uint64
	}{
		{0, 0, nil, 0}, {10, 0, nil, 10}, {10, 0, []uint64{1}, 0}, {10, 0, []uint64{3}, 0}, {10, 2, []uint64{3}, 2},
		{1, 5, nil, 5},
		{5000, 0, []uint64{1024}, 1023}, {5000, 0, []uint64{2048, 1030}, 1023}, {5000, 1500, []uint64{2048, 3000}, 2047},
	} {
		o := claimed(t)
		o.ledger.mu.pos.Applied, o.ledger.mu.pos.Floor = tc.applied, tc.recorded
		for _, first := range tc.buffered {
			o.sched.Restore(fmt.Sprint("t.", first), scheduler.Pending{First: first, Last: first, Count: 1, Bytes: 1},
				time.Now())
		}
		if got := o.ledger.floorLocked(); got != tc.want {
			t.Errorf("taken in up to %d, recorded %d, buffered from %v: the floor is %d, want %d", tc.applied, tc.recorded,
				tc.buffered, got, tc.want)
		}
	}
}

// TestInheritedFloors come before what was recorded since, and a clock that went back makes nothing due early; one
// that went ahead does not make what is recorded since wait for it.
func TestInheritedFloors(t *testing.T) {
	start := time.Unix(1000, 0)
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	var l floorLog
	l.recorded(40, at(9))
	l.recorded(50, at(10))
	l.inherit([]floorSample{{10, at(0)}, {20, at(3)}, {20, at(3)}, {30, at(2)}, {40, at(4)}, {45, at(20)}})
	if !slices.IsSortedFunc(l.samples, func(a, b floorSample) int { return a.at.Compare(b.at) }) {
		t.Errorf("not in the order of time: %v", l.samples)
	}
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

// due is an owner of a stream with three entries, up to the last of which the floor is recorded for longer than the
// delay.
func due(t *testing.T) (*system, *trial) {
	t.Helper()
	o := claimed(t)
	s := o.system(t)
	s.Publish("logs.t.a", "1", "2", "3")
	o.ledger.mu.pos.Applied, o.ledger.mu.pos.Floor, o.ledger.mu.pos.AppliedTime = 3, 3, s.Message(3).Time
	o.claim.chain.floors.samples = []floorSample{{3, time.Now().Add(-time.Hour)}}
	return s, o
}

// TestTrimmedStreams: a stream that Dormouse did not make is shortened only where its user says so.
func TestTrimmedStreams(t *testing.T) {
	for name, tc := range map[string]struct {
		trim             Trim
		managed, trimmed bool
	}{
		"its own":               {TrimAuto, true, true},
		"its own, never":        {TrimNever, true, false},
		"the user's":            {TrimAuto, false, false},
		"the user's, always":    {TrimAlways, false, true},
		"the user's, and never": {TrimNever, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			s, o := due(t)
			o.site.Trim, o.site.Source.Managed = tc.trim, tc.managed
			trimmer := o.newTrimmer()
			for range 3 {
				if more, err := trimmer.look(t.Context()); more || err != nil {
					t.Errorf("there is more to do: %v, %v", more, err)
				}
			}
			if first := s.firstStored(); (first == 4) != tc.trimmed {
				t.Errorf("the stream begins at %d", first)
			}
			if got := o.trims; got > 1 || (got == 1) != tc.trimmed {
				t.Errorf("it was trimmed %d times", got)
			}
		})
	}
}

// TestTrimOfAnotherStream: what was made anew under the name is not shortened on the strength of the old one's floor.
func TestTrimOfAnotherStream(t *testing.T) {
	s, o := due(t)
	o.site.Trim = TrimAlways
	natstest.MakeAnew(t, s.JS, wire.DefaultSource)
	s.Publish("logs.t.a", "another 1", "another 2")
	err := ingesttest.Ended(t, "the trimmer to end", func() error {
		return o.newTrimmer().run(context.WithoutCancel(t.Context()))
	})
	if err == nil || errors.Is(err, errSource) || !strings.Contains(err.Error(), "another one now") {
		t.Errorf("it ended with %v", err)
	}
	if first := s.firstStored(); first != 1 {
		t.Errorf("the stream begins at %d", first)
	}
}

// TestInheritedFloorsEndWhereTheyDoNotHold: at a record of another stream, or of a higher floor: an owner after it had
// to begin lower. What may be trimmed comes after those only.
func TestInheritedFloorsEndWhereTheyDoNotHold(t *testing.T) {
	made := time.Unix(1000, 0)
	for name, tc := range map[string]struct {
		floors []uint64
		others int // of them are of another stream
		want   []uint64
	}{
		"all hold":               {[]uint64{4, 5, 6}, 0, []uint64{4, 5, 6}},
		"the first did not hold": {[]uint64{9, 5, 6}, 0, []uint64{5, 6}},
		"of another stream":      {[]uint64{3, 4, 5, 6}, 2, []uint64{5, 6}},
	} {
		t.Run(name, func(t *testing.T) {
			o := claimed(t)
			m, err := manifest.Open(t.Context(), o.site.JS, 1)
			if err != nil {
				t.Fatal(err)
			}
			o.claim.chain.manifest, o.site.TrimDelay, o.claim.chain.floors.samples = m, time.Hour, nil
			for i, floor := range tc.floors {
				source := manifest.Source{Created: made}
				if i < tc.others {
					source.Created = made.Add(-time.Hour)
				}
				if _, err := m.Append(t.Context(), manifest.Record{Kind: manifest.Claim, Epoch: uint64(i + 1), Owner: "a",
					Floor: floor, Source: source}); err != nil {
					t.Fatal(err)
				}
			}
			o.claim.chain.before, _ = m.Last()
			if err := o.claim.chain.inheritFloors(t.Context(), o.site.TrimDelay); err != nil {
				t.Fatal(err)
			}
			var got []uint64
			for _, sample := range o.claim.chain.floors.samples {
				got = append(got, sample.floor)
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("inherited %v, want %v", got, tc.want)
			}
		})
	}
}

// firstStored returns the first sequence of the source stream.
func (s *system) firstStored() uint64 {
	s.T.Helper()
	return s.Source().CachedInfo().State.FirstSeq
}
