package reader

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/entry"
	"dormouse/internal/extent"
	"dormouse/internal/wire"
	"dormouse/store/client"
)

func (s *system) delete(seqs ...uint64) {
	s.T.Helper()
	for _, seq := range seqs {
		if err := s.Source().DeleteMsg(s.T.Context(), seq); err != nil {
			s.T.Fatal(err)
		}
	}
}

// owned is a system with an owner.
func owned(t *testing.T) *system {
	s := newSystem(t)
	s.Claim(1)
	s.Own(1)
	return s
}

// TestReadOfWhatOnlyTheOwnerHas: entries left the stream in its middle, at its beginning and at its end, and are not
// archived.
func TestReadOfWhatOnlyTheOwnerHas(t *testing.T) {
	s := owned(t)
	s.Publish("a.b", "1", "2", "3", "4", "5")
	s.Publish("a.gone", "6")
	s.delete(1, 3, 5, 6)
	for _, tc := range []struct {
		query Query
		want  string
	}{
		{Query{Log: "a.b"}, "1=1 2=2 3=3 4=4 5=5"},
		{Query{Log: "a.b", From: 2, To: 3}, "2=2 3=3"},
		{Query{Log: "a.b", To: 5, Follow: true}, "1=1 2=2 3=3 4=4 5=5"},
		{Query{Log: "a.b", FromTime: time.Now().Add(-time.Hour), ToTime: time.Now()}, "1=1 2=2 3=3 4=4 5=5"},
		{Query{Log: "a.b", ToTime: time.Now().Add(-time.Hour)}, ""},
		{Query{Log: "a.gone"}, "6=6"},
	} {
		if got := s.read(tc.query); got != tc.want {
			t.Errorf("%+v: got %q, want %q", tc.query, got, tc.want)
		}
	}
}

// TestReadAsksLittle: of a log with few entries the owner is asked once to find it, and once to read it.
func TestReadAsksLittle(t *testing.T) {
	for name, archived := range map[string]bool{"buffered": false, "archived": true} {
		t.Run(name, func(t *testing.T) {
			s := owned(t)
			s.Publish("a.b", "1", "2")
			if archived {
				s.Archive("0/one.sst", 2, "a.b")
			}
			if got := s.read(Query{Log: "a.b"}); got != "1=1 2=2" {
				t.Errorf("got %q", got)
			}
			if n := len(s.Mu.Questions) + len(s.consumers()); n > 2 {
				t.Errorf("%+v and %d consumers", s.Mu.Questions, len(s.consumers()))
			}
		})
	}
}

// following reads a log in the background and returns what came so far.
func (s *system) following(q Query) (got func() string) {
	s.T.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.T.Context()))
	lines, done := make(chan string, 100), make(chan error, 1)
	r := s.open(q.Log)
	go func() {
		done <- r.Read(ctx, q, func(e entry.Entry) error { lines <- fmt.Sprintf("%d=%s", e.Seq, e.Data); return nil })
	}()
	s.T.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			s.T.Errorf("following ended with %v", err)
		}
	})
	var all []string
	return func() string {
		for len(lines) > 0 {
			all = append(all, <-lines)
		}
		return strings.Join(all, " ")
	}
}

// TestFollowerWaitsForWhatComesBefore: the stream drops an entry before the follower was sent it, and the owner, which
// is behind, takes it in later. What comes after it in the stream waits for that.
func TestFollowerWaitsForWhatComesBefore(t *testing.T) {
	s := owned(t)
	s.Publish("a.b", "1")
	s.Mu.Behind = true
	s.Publish("a.b", "2", "3")
	two := entry.Entry{Log: "a.b", Seq: 2, Time: s.Message(2).Time, Data: []byte("2")}
	s.delete(2)
	got := s.following(Query{Log: "a.b", Follow: true})
	s.until("the follower to ask for what lies before", func() bool {
		s.Mu.Lock()
		defer s.Mu.Unlock()
		return slices.ContainsFunc(s.Mu.Questions, func(q wire.HeldRequest) bool { return q.UpTo == 3 })
	})
	if all := got(); all != "1=1" {
		t.Errorf("got %q before the owner had taken in 2", all)
	}
	s.Mu.Lock()
	s.Mu.Behind = false
	s.Mu.Unlock()
	s.TakeIn(two)
	s.TakeIn(entry.Entry{Log: "a.b", Seq: 3, Time: s.Message(3).Time, Data: []byte("3")})
	s.until("all to come", func() bool { return got() == "1=1 2=2 3=3" })
}

// TestFollowerAsksOnlyAboutWhatComes: the owner hears nothing of a follower while only others' entries come.
func TestFollowerAsksOnlyAboutWhatComes(t *testing.T) {
	s := owned(t)
	s.Publish("a.b", "1")
	got := s.following(Query{Log: "a.b", Follow: true})
	s.until("a consumer", func() bool { return got() == "1=1" && len(s.consumers()) == 1 })
	s.Mu.Lock()
	before := len(s.Mu.Questions)
	s.Mu.Unlock()
	for range 50 {
		s.Publish("a.c", "other")
	}
	last := s.Publish("a.b", "2")
	s.until("the entry", func() bool { return got() == fmt.Sprintf("1=1 %d=2", last) })
	s.Mu.Lock()
	defer s.Mu.Unlock()
	for _, q := range s.Mu.Questions[before:] { // more than one, if the owner is behind for a moment
		if q.UpTo != last || q.After != 1 || !slices.Equal(q.Seqs, []uint64{last}) {
			t.Errorf("the owner was asked %+v", q)
		}
	}
}

// TestOwnerThatIsBehind: the stream has all that the owner has not taken in, which the reader can tell; or it does not.
func TestOwnerThatIsBehind(t *testing.T) {
	t.Parallel()
	s := owned(t)
	s.Publish("a.b", "1")
	s.Publish("a.c", "2")
	s.Mu.Behind = true
	s.Publish("a.b", "3")
	s.Publish("a.c", "4")
	s.Publish("a.b", "5")
	s.delete(2) // which is known
	if got := s.read(Query{Log: "a.b"}); got != "1=1 3=3 5=5" {
		t.Errorf("got %q", got)
	}
	for range 2*fetchEntries + 7 {
		s.Publish("a.b", "x")
	}
	s.Mu.Lock()
	s.Mu.Questions = nil
	s.Mu.Unlock()
	n := len(strings.Fields(s.read(Query{Log: "a.b"})))
	first := s.Mu.Questions[slices.IndexFunc(s.Mu.Questions, func(q wire.HeldRequest) bool { return q.UpTo > 0 })].UpTo
	if patient := slices.ContainsFunc(s.Mu.Questions, func(q wire.HeldRequest) bool {
		return q.UpTo > first
	}); n != 2*fetchEntries+10 || patient {
		t.Errorf("got %d entries, and waited again for an owner that is far behind: %v", n, patient)
	}
	s.delete(4)
	var got []uint64
	began := time.Now()
	err := s.open("a.b").Read(t.Context(), Query{Log: "a.b"}, func(e entry.Entry) error {
		got = append(got, e.Seq)
		return nil
	})
	if took := time.Since(began); !errors.Is(err, errBehind) || !slices.Equal(got, []uint64{1}) ||
		took > client.Patience+3*time.Second {
		t.Errorf("got %v and %v after %s", got, err, took)
	}
}

// TestFollowingWithoutAnOwner goes on as long as the stream loses nothing.
func TestFollowingWithoutAnOwner(t *testing.T) {
	s := owned(t)
	s.Publish("a.b", "1")
	got := s.following(Query{Log: "a.b", Follow: true})
	s.until("the first entry", func() bool { return got() == "1=1" && len(s.consumers()) == 1 })
	s.Claim(2) // of which nobody answers
	s.Mu.Lock()
	s.Mu.Busy = 1 << 30
	s.Mu.Unlock()
	s.Publish("a.b", "2", "3")
	s.until("what is published", func() bool { return got() == "1=1 2=2 3=3" })
}

func TestKept(t *testing.T) {
	s := newSystem(t)
	s.Publish("a.b", "1", "2", "3", "4", "5", "6", "7", "8")
	s.delete(4, 6)
	s.Trim(2)
	tail := s.tail()
	for _, tc := range []struct {
		after, upTo uint64
		want        bool
	}{
		{0, 1, false}, {1, 8, false}, {2, 3, true}, {2, 4, false}, {3, 4, false}, {4, 5, true}, {4, 6, false}, {6, 8, true},
		{8, 20, true}, {20, 30, true},
	} {
		if got, err := tail.Kept(t.Context(), tc.after, tc.upTo); err != nil || got != tc.want {
			t.Errorf("above %d up to %d: %v, %v", tc.after, tc.upTo, got, err)
		}
	}
	if err := s.Source().Purge(t.Context(), jetstream.WithPurgeSubject("logs.>")); err != nil {
		t.Fatal(err)
	}
	for after, want := range map[uint64]bool{6: false, 8: true} {
		if got, err := tail.Kept(t.Context(), after, 8); err != nil || got != want {
			t.Errorf("an empty stream above %d: %v, %v", after, got, err)
		}
	}
}

// TestAnswersThatMakeNoSense end a read; they neither repeat nor reorder entries, and nothing goes on without end.
func TestAnswersThatMakeNoSense(t *testing.T) {
	value := entry.AppendValue(nil, time.Unix(1, 0), nil, []byte("x"))
	p := func(log string, newest uint64) extent.Piece {
		return extent.Piece{Newest: newest, Segment: extent.Summarize(extent.Segment{Key: "0/a.sst", Size: 1},
			[]extent.Extent{{Log: log, First: 1, Last: 9, Count: 1}})}
	}
	none := p("a.b", 9)
	none.Segment.Entries = 0
	for name, reply := range map[string]wire.HeldReply{
		"an entry again":        {Entries: []wire.HeldEntry{{Seq: 5, Value: value}}},
		"entries out of order":  {Entries: []wire.HeldEntry{{Seq: 7, Value: value}, {Seq: 6, Value: value}}},
		"no entry":              {Entries: []wire.HeldEntry{{Seq: 7, Value: []byte{9}}}},
		"a segment again":       {Pieces: []extent.Piece{p("a.b", 7)}},
		"another log's":         {Pieces: []extent.Piece{p("a.c", 8)}},
		"no segment":            {Pieces: []extent.Piece{none}},
		"segments out of order": {Pieces: []extent.Piece{p("a.b", 9), p("a.b", 8)}},
		"more, and nothing":     {More: true},
	} {
		if held, err := heldOf("a.b", Place{5, 7}, reply); !errors.Is(err, errReply) {
			t.Errorf("%s: %+v, %v", name, held, err)
		}
	}
	if held, err := heldOf("a.b", Place{5, 7}, wire.HeldReply{Entries: []wire.HeldEntry{{Seq: 6, Value: value}},
		Pieces: []extent.Piece{p("a.b", 8), p("a.b", 8)}, More: true}); err != nil || len(held.Entries) != 1 ||
		len(held.Pieces) != 2 {
		t.Errorf("%+v, %v", held, err)
	}
}
