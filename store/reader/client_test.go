package reader

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"dormouse/internal/wire"
	"dormouse/store/client"
)

func TestReadJoinsArchiveAndStream(t *testing.T) {
	s := newSystem(t)
	s.Claim(1)
	s.Own(1)
	s.Publish("a.b", "1", "2")
	s.Publish("a.c", "other")
	s.Publish("a.b", "4")
	s.Archive("0/one.sst", 3, "a.b", "a.c")
	s.Archive("0/two.sst", 4, "a.b")
	s.Trim(3)
	s.Publish("a.b", "5", "6")
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

func TestErrorsSayWhatIsMissing(t *testing.T) {
	s := newSystem(t)
	asks := client.New(s.NC, s.JS)
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	s.Claim(1)
	if _, err := Locate(short, asks, s.archive, "a.b"); err == nil {
		t.Error("nobody answers, and Locate says nothing")
	}
	s.Own(1)
	at, err := Locate(t.Context(), asks, s.archive, "a.b")
	if !errors.Is(err, client.ErrNoLog) || !strings.Contains(err.Error(), "a.b") ||
		at.Source.Stream != wire.DefaultSource {
		t.Errorf("unknown log: %+v, %v", at, err)
	}
	if err := s.JS.DeleteStream(t.Context(), wire.DefaultSource); err != nil {
		t.Fatal(err)
	}
	if _, err := Locate(t.Context(), asks, s.archive, "a.b"); err == nil ||
		!strings.Contains(err.Error(), "dormouse serve") {
		t.Errorf("no system: %v", err)
	}
}
