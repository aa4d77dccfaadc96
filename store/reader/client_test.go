package reader

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"dormouse/internal/wire"
)

func TestReadJoinsArchiveAndStream(t *testing.T) {
	s := newSystem(t)
	s.claim(1)
	s.own(1)
	s.publish("a.b", "1", "2")
	s.publish("a.c", "other")
	s.publish("a.b", "4")
	s.archive("0/one.sst", 3, "a.b", "a.c")
	s.archive("0/two.sst", 4, "a.b")
	s.trim(3)
	s.publish("a.b", "5", "6")
	for _, tc := range []struct {
		query Query
		want  string
	}{
		{Query{}, "1=1 2=2 4=4 5=5 6=6"},
		{Query{From: 2, To: 5}, "2=2 4=4 5=5"},
		{Query{From: 3, To: 3}, ""},
		{Query{From: 7}, ""},
		{Query{From: 5, Follow: true, To: 6}, "5=5 6=6"},
		{Query{FromTime: time.Now().Add(-time.Hour), ToTime: time.Now().Add(-time.Minute), Follow: true}, ""},
		{Query{FromTime: time.Now().Add(-time.Hour), ToTime: time.Now().Add(time.Minute)}, "1=1 2=2 4=4 5=5 6=6"},
	} {
		tc.query.Log = "a.b"
		if got := s.read(tc.query); got != tc.want {
			t.Errorf("%+v: got %q, want %q", tc.query, got, tc.want)
		}
	}
}

// TestTakeover: the owner that the client knew is gone, its successor is busy at first.
func TestTakeover(t *testing.T) {
	s := newSystem(t)
	s.publish("a.b", "1")
	s.claim(1)
	s.own(1)
	client := NewClient(s.nc, s.js)
	if _, err := client.Extents(t.Context(), 0, wire.ExtentsRequest{Log: "a.b"}); err != nil {
		t.Fatal(err)
	}
	client.epochs[0] = 7 // of which nobody answers
	s.mu.Lock()
	s.mu.busy = 2
	s.mu.Unlock()
	if _, err := client.Extents(t.Context(), 0, wire.ExtentsRequest{Log: "a.b"}); err != nil {
		t.Fatal(err)
	}
}

func TestErrorsSayWhatIsMissing(t *testing.T) {
	s := newSystem(t)
	client := NewClient(s.nc, s.js)
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	s.claim(1)
	if _, err := client.Locate(short, "a.b"); err == nil {
		t.Error("nobody answers, and Locate says nothing")
	}
	s.own(1)
	at, err := client.Locate(t.Context(), "a.b")
	if !errors.Is(err, ErrNoLog) || !strings.Contains(err.Error(), "a.b") || at.Source.Stream != wire.DefaultSource {
		t.Errorf("unknown log: %+v, %v", at, err)
	}
	if err := s.js.DeleteStream(t.Context(), wire.DefaultSource); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Locate(t.Context(), "a.b"); err == nil || !strings.Contains(err.Error(), "dormouse serve") {
		t.Errorf("no system: %v", err)
	}
}
