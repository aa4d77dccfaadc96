package client

import (
	"testing"

	"dormouse/internal/wire"
	"dormouse/store/storetest"
)

// TestTakeover: the owner that the client knew is gone, its successor is busy at first.
func TestTakeover(t *testing.T) {
	s := storetest.New(t)
	s.Publish("a.b", "1")
	s.Claim(1)
	s.Own(1)
	c := New(s.NC, s.JS)
	if _, err := c.Segments(t.Context(), 0, wire.SegmentsRequest{}); err != nil {
		t.Fatal(err)
	}
	c.epochs[0] = 7 // of which nobody answers
	s.Mu.Lock()
	s.Mu.Busy = 2
	s.Mu.Unlock()
	if _, err := c.Segments(t.Context(), 0, wire.SegmentsRequest{}); err != nil {
		t.Fatal(err)
	}
}
