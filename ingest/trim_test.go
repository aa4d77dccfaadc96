package ingest

import (
	"fmt"
	"testing"
	"time"

	"dormouse/internal/wire"
	"dormouse/store/manifest"
)

// TestTrimWithManyTakeovers: owners that each live for less than the trim delay trim what is recorded for longer, and
// not earlier.
func TestTrimWithManyTakeovers(t *testing.T) {
	const delay = 4 * time.Second
	s := newSystem(t)
	dir := t.TempDir()
	n := s.start("a", dir, func(c *Config) { c.TrimDelay = delay })
	n.awaitOwned()
	s.Publish("logs.t.a", "1", "2", "3")
	s.archiveAll("t.a", 3)
	var recorded manifest.Record
	s.Until("the floor to be recorded", func() bool { recorded = s.LastRecord(); return recorded.Floor == 3 })
	stream, err := s.JS.Stream(t.Context(), wire.DefaultSource)
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
		s.Until("the owner to have lived for a while", func() bool { return trimmed() || time.Now().After(life) })
	}
	if age := time.Since(recorded.Stored); age < delay {
		t.Errorf("trimmed %s after the floor was recorded, the delay is %s", age, delay)
	}
}
