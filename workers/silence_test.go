package workers

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"dormouse/internal/natstest"
	"dormouse/internal/shardid"
	"dormouse/internal/wire"
)

// silent is an intercept of an owner that is frozen: the server knows it, and it answers nothing.
func silent(wire.Operation, int, []byte) ([]byte, bool) { return nil, false }

// TestSilentOwnerHoldsUpNobodyInItsFetch has one worker fetch items of two owners of whom one never answers, with a
// time-out that does not come.
func TestSilentOwnerHoldsUpNobodyInItsFetch(t *testing.T) {
	s := newSystem(t, settings{})
	frozen, lives := s.own(5, 1, someLogs("frozen", 3, 2)), s.own(0, 1, someLogs("acme", 3, 2))
	frozen.intercept = silent
	s.enqueue(frozen, frozen.names()...)
	s.enqueue(lives, lives.names()...)
	pool := s.start(func(c *Config) {
		c.Size, c.ItemsPerFetch, c.Linger = 1, 2, patience
		c.RequestTimeout, c.Grace = time.Hour, time.Millisecond
	})
	s.until("the owner that lives has committed", func() bool { return pool.count(done) == 1 })
	s.check(lives)
	// Its item came first: had it been in a fetch of its own, nothing would be done yet.
	s.until("the silent owner has been asked", func() bool { return frozen.requests(wire.OpDrain) == 1 })
}

// TestSilentOwnerIsLeftAlone has a pool meet item after item of an owner that never answers: it asks a few times, and
// gives back the rest at once.
func TestSilentOwnerIsLeftAlone(t *testing.T) {
	s := newSystem(t, settings{})
	frozen, lives := s.own(5, 1, someLogs("frozen", 40, 1)), s.own(0, 1, someLogs("acme", 40, 1))
	frozen.intercept = silent
	for i, log := range frozen.names() {
		s.enqueue(frozen, log)
		s.enqueue(lives, lives.names()[i])
	}
	const size = 2
	pool := s.startWith(func(p *Pool) { p.silence.lasts = time.Hour }, func(c *Config) {
		c.Size, c.ItemsPerFetch, c.RequestTimeout = size, 2, 500*time.Millisecond
	})
	s.until("all items have been met", func() bool { return pool.count(done) == 40 && pool.count(abandoned) >= 80 })
	s.check(lives)
	if n := frozen.requests(wire.OpDrain); n > maxUnanswered*size {
		t.Errorf("the silent owner was asked %d times by %d workers", n, size)
	}
}

// TestBatchIsGivenUpWhenItsOwnerIsSilent holds that two unanswered requests are enough, that answers in between make
// them begin anew, and that the owner is asked again later. What was put or even committed before it fell silent stays
// right.
func TestBatchIsGivenUpWhenItsOwnerIsSilent(t *testing.T) {
	for name, tc := range map[string]struct {
		op          wire.Operation
		answers     string // to the first requests: s silent, l lost after it was done, b busy
		givenUp     bool
		segments    int
		atLeastAsks int
	}{
		"drain":               {wire.OpDrain, "ss", true, 1, 3},
		"commit":              {wire.OpCommit, "ss", true, 2, 3},
		"commit that counts":  {wire.OpCommit, "ll", true, 1, 2},
		"drain, once":         {wire.OpDrain, "s", false, 1, 2},
		"busy between":        {wire.OpCommit, "sbsb", false, 1, 5},
		"busy for long":       {wire.OpCommit, "bbbb", false, 1, 5},
		"commit and then not": {wire.OpCommit, "ls", true, 1, 2},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSystem(t, settings{})
			o := s.own(0, 1, someLogs("acme", 3, 2))
			o.intercept = func(op wire.Operation, n int, data []byte) ([]byte, bool) {
				if op != tc.op || n > len(tc.answers) {
					return nil, true
				}
				switch tc.answers[n-1] {
				case 'b':
					return status(wire.Busy), false
				case 'l':
					o.answerLocked(op, data)
				}
				return nil, false
			}
			s.enqueue(o, o.names()...)
			pool := s.start(func(c *Config) { c.RequestTimeout = 200 * time.Millisecond })
			s.untilEmpty()
			s.check(o)
			pool.join()
			if (pool.count(abandoned) > 0) != tc.givenUp || pool.count(done) != 1 {
				t.Errorf("%d items given back, %d done", pool.count(abandoned), pool.count(done))
			}
			if n := len(s.bucket.keys()); n != tc.segments || o.requests(tc.op) < tc.atLeastAsks {
				t.Errorf("%d segments, want %d; asked %d times, want at least %d", n, tc.segments, o.requests(tc.op),
					tc.atLeastAsks)
			}
		})
	}
}

// TestOwnersOfOneFetchShareTheMemoryOfAWorker: they are drained side by side, and packed no more at a time than one
// worker may.
func TestOwnersOfOneFetchShareTheMemoryOfAWorker(t *testing.T) {
	s := newSystem(t, settings{})
	const owners = 5
	var puts, most atomic.Int32
	open := make(chan struct{})
	s.bucket.before = func(ctx context.Context, _ int, _ string) error {
		most.Store(max(most.Load(), puts.Add(1)))
		defer puts.Add(-1)
		select {
		case <-open:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	var all []*owner
	for shard := range shardid.Shard(owners) {
		o := s.own(shard, 1, someLogs("acme", 3, 2))
		s.enqueue(o, o.names()...)
		all = append(all, o)
	}
	s.start(func(c *Config) { c.Size, c.ItemsPerFetch, c.Linger = 1, owners, patience })
	s.until("all are drained and one puts", func() bool {
		return puts.Load() > 0 && !slices.ContainsFunc(all, func(o *owner) bool { return o.requests(wire.OpDrain) == 0 })
	})
	close(open)
	s.untilEmpty()
	for _, o := range all {
		s.check(o)
	}
	if most.Load() != 1 {
		t.Errorf("%d segments at a time of one worker", most.Load())
	}
}

// TestCommitHoldsUpNoOtherOwner: once its segment is put, an owner that takes its time for the commit leaves the
// worker's memory to the others of the fetch.
func TestCommitHoldsUpNoOtherOwner(t *testing.T) {
	s := newSystem(t, settings{})
	slow, other := s.own(0, 1, someLogs("acme", 3, 2)), s.own(1, 1, someLogs("odd", 3, 2))
	committing := make(chan struct{})
	slow.intercept = func(op wire.Operation, _ int, _ []byte) ([]byte, bool) {
		if op == wire.OpCommit {
			close(committing)
			s.until("the other one has committed", func() bool { return other.requests(wire.OpCommit) > 0 })
		}
		return nil, true
	}
	other.intercept = func(op wire.Operation, _ int, _ []byte) ([]byte, bool) {
		if op == wire.OpDrain {
			<-committing // so that it packs second
		}
		return nil, true
	}
	s.enqueue(slow, slow.names()...)
	s.enqueue(other, other.names()...)
	s.start(func(c *Config) { c.Size, c.ItemsPerFetch, c.Linger, c.RequestTimeout = 1, 2, patience, 2*patience })
	s.untilEmpty()
	s.check(slow)
	s.check(other)
}

func TestSilence(t *testing.T) {
	s := newSilence(time.Minute)
	now := time.Unix(1_700_000_000, 0)
	a, b := ownerID{1, 1}, ownerID{1, 2}
	if s.turnAway(a, now) || s.known(a) {
		t.Fatal("turned away before it was asked")
	}
	if !s.begin(a, now) || s.begin(a, now) {
		t.Fatal("news once, want that")
	}
	if !s.turnAway(a, now.Add(time.Minute-1)) || s.turnAway(b, now) {
		t.Fatal("want the silent owner left alone, and no other epoch")
	}
	if s.turnAway(a, now.Add(time.Minute)) {
		t.Fatal("never asked again")
	}
	if !s.turnAway(a, now.Add(time.Minute)) || !s.known(a) {
		t.Fatal("asked by more than one at a time")
	}
	s.end(a)
	if s.turnAway(a, now.Add(time.Minute)) {
		t.Fatal("left alone after it answered")
	}
	for i := range uint64(2 * maxSilent) {
		s.begin(ownerID{2, i}, now)
	}
	if n := len(s.mu.until); n != maxSilent {
		t.Fatalf("remembers %d owners, want %d", n, maxSilent)
	}
	s.begin(a, now.Add(2*time.Minute))
	if n := len(s.mu.until); n != 1 {
		t.Fatalf("remembers %d owners after a while, want the last", n)
	}
}

// TestLostConnectionIsNotTheOwnersSilence: while the pool itself is cut off, no owner is blamed, and the work in hand
// goes on when the connection comes back before GiveUpAfter.
func TestLostConnectionIsNotTheOwnersSilence(t *testing.T) {
	srv := natstest.Start(t)
	nc, js := natstest.Dial(t, srv)
	pool, err := New(Config{NC: nc, JS: js, Bucket: &fakeBucket{}, RequestTimeout: 20 * time.Millisecond,
		GiveUpAfter: 500 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	srv.Shutdown()
	for nc.IsConnected() {
		runtime.Gosched()
	}
	b := &batch{ownerID: ownerID{0, 1}}
	_, err = ask[wire.CommitReply](t.Context(), pool, b, wire.OpCommit, wire.CommitRequest{})
	if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errSilent) || pool.silence.known(b.ownerID) ||
		b.unanswered != 0 {
		t.Errorf("got %v after %d unanswered", err, b.unanswered)
	}
}
