package workers

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/wire"
	"dormouse/store/bucket"
)

var errDisk = errors.New("the bucket is out of order")

func TestFailingPutIsRepeatedUnderTheSameKey(t *testing.T) {
	for name, arrange := range map[string]func(b *fakeBucket){
		"nothing was stored": func(b *fakeBucket) {
			b.before = func(_ context.Context, n int, _ string) error {
				if n <= 2 {
					return errDisk
				}
				return nil
			}
		},
		"it was stored, but the answer was lost": func(b *fakeBucket) {
			b.after = func(context.Context, int, string) error { return errDisk }
		},
		"the first try hangs": func(b *fakeBucket) {
			b.before = func(ctx context.Context, n int, _ string) error {
				if n > 1 {
					return nil
				}
				<-ctx.Done()
				return ctx.Err()
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSystem(t, settings{})
			arrange(s.bucket)
			o := s.own(0, 1, someLogs("acme", 3, 2))
			s.enqueue(o, o.names()...)
			pool := s.start(func(c *Config) { c.PutTimeout = 100 * time.Millisecond })
			s.untilEmpty()
			s.check(o)
			pool.join()
			keys := s.bucket.keys()
			if len(keys) < 2 || len(s.bucket.objects) != 1 || pool.retried("put") != len(keys)-1 || pool.count(done) != 1 {
				t.Errorf("%d puts made %d objects, %d repeated, %d items done", len(keys), len(s.bucket.objects),
					pool.retried("put"), pool.count(done))
			}
			for _, key := range keys {
				if key != keys[0] {
					t.Errorf("put %s after %s", key, keys[0])
				}
			}
		})
	}
}

// An object that is there before the first try is somebody else's and must not be committed.
func TestTakenKeyIsLeftAlone(t *testing.T) {
	s := newSystem(t, settings{})
	s.bucket.before = func(_ context.Context, n int, _ string) error {
		if n == 1 {
			return bucket.ErrExists
		}
		return nil
	}
	o := s.own(0, 1, someLogs("acme", 3, 2))
	s.enqueue(o, o.names()...)
	pool := s.start()
	s.untilEmpty()
	s.check(o)
	pool.join()
	if keys := s.bucket.keys(); len(keys) != 2 || keys[0] == keys[1] || pool.count(abandoned) != 1 {
		t.Fatalf("put %v, %d items given back; want two keys and one item", keys, pool.count(abandoned))
	}
}

func TestWorkIsGivenBackAndDoneLater(t *testing.T) {
	s := newSystem(t, settings{})
	healed := make(chan struct{})
	s.bucket.before = func(context.Context, int, string) error {
		select {
		case <-healed:
			return nil
		default:
			return errDisk
		}
	}
	o := s.own(0, 1, someLogs("acme", 3, 2))
	s.enqueue(o, o.names()...)
	pool := s.start(func(c *Config) { c.GiveUpAfter = time.Millisecond })
	s.until("the item was given back twice", func() bool { return pool.count(abandoned) >= 2 })
	close(healed)
	s.untilEmpty()
	s.check(o)
}

func TestExchangesAreRepeated(t *testing.T) {
	for _, op := range []wire.Operation{wire.OpDrain, wire.OpCommit} {
		for name, answer := range map[string][]byte{"busy": status(wire.Busy), "failed": status(wire.Failed)} {
			t.Run(string(op)+" "+name, func(t *testing.T) {
				s := newSystem(t, settings{})
				o := s.own(0, 1, someLogs("acme", 3, 2))
				o.intercept = func(asked wire.Operation, n int, _ []byte) ([]byte, bool) { return answer, asked != op || n > 2 }
				s.enqueue(o, o.names()...)
				pool := s.start(func(c *Config) { c.RequestTimeout = 100 * time.Millisecond })
				s.untilEmpty()
				s.check(o)
				pool.join()
				if pool.retried(string(op)) != 2 || pool.count(done) != 1 || len(s.bucket.keys()) != 1 {
					t.Errorf("%d repeated, %d done, %d segments", pool.retried(string(op)), pool.count(done), len(s.bucket.keys()))
				}
			})
		}
	}
}

func TestCommitWhoseAnswerIsLost(t *testing.T) {
	s := newSystem(t, settings{})
	o := s.own(0, 1, someLogs("acme", 3, 2))
	o.intercept = func(op wire.Operation, n int, data []byte) ([]byte, bool) {
		if op != wire.OpCommit || n > 1 {
			return nil, true
		}
		o.answerLocked(op, data)
		return nil, false
	}
	s.enqueue(o, o.names()...)
	pool := s.start(func(c *Config) { c.RequestTimeout = 100 * time.Millisecond })
	s.untilEmpty()
	s.check(o)
	pool.join()
	if len(s.bucket.keys()) != 1 || pool.orphans() != 0 || o.requests(wire.OpCommit) != 2 {
		t.Errorf("%d segments, %d orphans, %d commits", len(s.bucket.keys()), pool.orphans(), o.requests(wire.OpCommit))
	}
}

// Another worker was faster between this one's drain and its commit.
func TestRefusedSegmentIsAnOrphan(t *testing.T) {
	s := newSystem(t, settings{})
	o := s.own(0, 1, someLogs("acme", 3, 2))
	o.intercept = func(op wire.Operation, _ int, data []byte) ([]byte, bool) {
		if op == wire.OpCommit {
			clear(o.buffered)
		}
		return nil, true
	}
	s.enqueue(o, o.names()...)
	pool := s.start()
	s.untilEmpty()
	pool.join()
	if pool.orphans() != 1 || pool.count(done) != 1 {
		t.Errorf("%d orphans, %d items done, want one each", pool.orphans(), pool.count(done))
	}
}

func TestOwnerIsGone(t *testing.T) {
	for name, arrange := range map[string]func(o *owner){
		"nobody answers": func(o *owner) {
			if err := o.sub.Unsubscribe(); err != nil {
				o.s.t.Fatal(err)
			}
		},
		"drain":  func(o *owner) { o.intercept = refuse(wire.OpDrain) },
		"commit": func(o *owner) { o.intercept = refuse(wire.OpCommit) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSystem(t, settings{})
			old, now := s.own(0, 1, someLogs("acme", 3, 2)), s.own(0, 2, someLogs("acme", 3, 2))
			arrange(old)
			s.enqueue(old, old.names()...)
			s.enqueue(now, now.names()...)
			pool := s.start()
			s.untilEmpty()
			s.check(now)
			pool.join()
			if pool.count(stale) != 1 || pool.count(done) != 1 || len(old.committed) != 0 {
				t.Errorf("%d stale, %d done, %d committed in the old epoch", pool.count(stale), pool.count(done),
					len(old.committed))
			}
		})
	}
}

func refuse(op wire.Operation) func(wire.Operation, int, []byte) ([]byte, bool) {
	return func(asked wire.Operation, _ int, _ []byte) ([]byte, bool) { return status(wire.NotOwner), asked != op }
}

func TestPoisonBlocksNobody(t *testing.T) {
	s := newSystem(t, settings{})
	o, odd := s.own(0, 1, someLogs("acme", 3, 2)), s.own(5, 1, someLogs("odd", 1, 1))
	odd.intercept = func(wire.Operation, int, []byte) ([]byte, bool) { return status(wire.BadRequest), false }
	s.publish(0, []byte("no work item"))
	s.publish(0, encoded(wire.WorkItem{Epoch: 1}))
	s.publish(0, encoded(wire.WorkItem{Epoch: 1, Logs: []string{"b.b", "a.a"}}))
	s.enqueue(odd, odd.names()...)
	s.enqueue(o, o.names()...)
	pool := s.start()
	s.untilEmpty()
	s.check(o)
	pool.join()
	if pool.count(poison) != 4 || pool.count(done) != 1 {
		t.Errorf("%d poison, %d done, want 4 and 1", pool.count(poison), pool.count(done))
	}
}

// The entry that comes in parts is archived by another worker before its last part is asked for.
func TestEntryThatMovesWhileItIsDrained(t *testing.T) {
	for name, rest := range map[string][]record{
		"nothing is left":     nil,
		"a shorter one next":  {{2, []byte("next")}},
		"a large one next":    {noise(3, 200<<10)},
		"just a part's size":  {noise(3, 48<<10-512-12)}, // too large for a reply, and ends before the next part would begin
		"one before is added": {{1, []byte("odd")}, noise(3, 200<<10)},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSystem(t, settings{maxPayload: 64 << 10})
			o := s.own(0, 1, map[string][]record{"acme.huge": {noise(1, 200<<10)}})
			o.intercept = func(op wire.Operation, n int, _ []byte) ([]byte, bool) {
				if op == wire.OpDrain && n == 2 {
					o.buffered["acme.huge"], o.given["acme.huge"] = rest, rest
				}
				return nil, true
			}
			s.enqueue(o, "acme.huge")
			pool := s.start()
			s.untilEmpty()
			s.check(o)
			pool.join()
			if pool.count(abandoned) != 1 || pool.count(done) != 1 {
				t.Errorf("%d items given back, %d done, want one each", pool.count(abandoned), pool.count(done))
			}
		})
	}
}

func TestWorkInHandMayFinish(t *testing.T) {
	s := newSystem(t, settings{})
	arrived, open := make(chan struct{}), make(chan struct{})
	s.bucket.before = func(ctx context.Context, _ int, _ string) error {
		close(arrived)
		select {
		case <-open:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	o := s.own(0, 1, someLogs("acme", 3, 2))
	s.enqueue(o, o.names()...)
	pool := s.start(func(c *Config) { c.Grace = patience })
	<-arrived
	pool.stop()
	s.enqueue(o, "acme.not.taken.any.more")
	close(open)
	pool.join()
	s.check(o)
	if pool.count(done) != 1 {
		t.Errorf("%d items done, want the one in hand", pool.count(done))
	}
}

func TestGraceEnds(t *testing.T) {
	s := newSystem(t, settings{})
	arrived := make(chan struct{}, 1)
	s.bucket.before = func(ctx context.Context, n int, _ string) error {
		if n > 1 {
			return nil
		}
		arrived <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}
	o := s.own(0, 1, someLogs("acme", 3, 2))
	s.enqueue(o, o.names()...)
	long := func(p *Pool) { p.rest = time.Hour }
	pool := s.startWith(long, func(c *Config) { c.Grace = 10 * time.Millisecond })
	<-arrived
	pool.join()
	if pool.count(abandoned) != 1 || o.requests(wire.OpCommit) != 0 {
		t.Fatalf("%d items given back, %d commits", pool.count(abandoned), o.requests(wire.OpCommit))
	}
	s.start() // another process goes on at once, though AckWait and the rest are far longer than this test's patience
	s.untilEmpty()
	s.check(o)
}

// TestAbandonedItemRests: the pool does not come back to it at once, over and over.
func TestAbandonedItemRests(t *testing.T) {
	s := newSystem(t, settings{})
	o, silent := s.own(0, 1, someLogs("acme", 3, 2)), s.own(5, 1, someLogs("odd", 1, 1))
	silent.intercept = func(wire.Operation, int, []byte) ([]byte, bool) { return nil, false }
	s.enqueue(silent, silent.names()...)
	pool := s.startWith(func(p *Pool) { p.rest = time.Hour }, func(c *Config) { c.RequestTimeout = 20 * time.Millisecond })
	s.until("the item is given back", func() bool { return pool.count(abandoned) > 0 })
	for _, name := range o.names() { // what would be delivered again comes before
		s.enqueue(o, name)
	}
	s.until("the others are done", func() bool { return pool.count(done) == len(o.names()) })
	if n := pool.count(abandoned); n != 1 {
		t.Errorf("it was given back %d times", n)
	}
}

func TestLongUploadKeepsTheItem(t *testing.T) {
	t.Parallel() // it waits most of its time
	const ackWait = 2 * time.Second
	s := newSystem(t, settings{ackWait: ackWait})
	s.bucket.before = func(ctx context.Context, _ int, _ string) error {
		select {
		case <-time.After(ackWait * 5 / 2): // the upload takes that long
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	o := s.own(0, 1, someLogs("acme", 3, 2))
	s.enqueue(o, o.names()...)
	pool := s.start()
	s.untilEmpty()
	s.check(o)
	pool.join()
	if len(s.bucket.keys()) != 1 || pool.count(done) != 1 {
		t.Errorf("%d puts, %d items done: it was delivered again", len(s.bucket.keys()), pool.count(done))
	}
}

func TestItemOfADeadWorkerIsDeliveredAgain(t *testing.T) {
	s := newSystem(t, settings{ackWait: 200 * time.Millisecond})
	o := s.own(0, 1, someLogs("acme", 3, 2))
	s.enqueue(o, o.names()...)
	consumer, err := s.queue.Consumer(t.Context(), wire.SyncQueuePool)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := consumer.Next(jetstream.FetchMaxWait(patience)); err != nil { // and never acked
		t.Fatal(err)
	}
	s.start()
	s.untilEmpty()
	s.check(o)
}

// An owner that answers nonsense spoils only its own items.
func TestMalformedReplies(t *testing.T) {
	refusal, err := wire.Encode(wire.CommitReply{Status: wire.Status{Code: wire.BadRequest,
		Message: "as you never asked"}})
	if err != nil {
		t.Fatal(err)
	}
	garbage := []byte(strings.Repeat("?", 9))
	for name, tc := range map[string]struct {
		op     wire.Operation
		answer []byte
	}{"drain": {wire.OpDrain, garbage}, "commit": {wire.OpCommit, garbage}, "a drain refused": {wire.OpDrain, refusal},
		"a commit refused": {wire.OpCommit, refusal}} {
		t.Run(name, func(t *testing.T) {
			s := newSystem(t, settings{})
			o, odd := s.own(0, 1, someLogs("acme", 3, 2)), s.own(5, 1, someLogs("odd", 1, 1))
			odd.intercept = func(asked wire.Operation, _ int, _ []byte) ([]byte, bool) {
				return tc.answer, asked != tc.op
			}
			s.enqueue(odd, odd.names()...)
			s.enqueue(o, o.names()...)
			pool := s.start()
			s.untilEmpty()
			s.check(o)
			pool.join()
			if pool.count(poison) != 1 || pool.count(done) != 1 {
				t.Errorf("%d poison, %d done, want one each", pool.count(poison), pool.count(done))
			}
		})
	}
}
