package shard

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"dormouse/ingest/ingesttest"
	"dormouse/internal/streamreader"
	"dormouse/internal/wire"
	"dormouse/store/cache"
	"dormouse/store/manifest"
)

// claimedAt returns an owner that took in entry 3 at a given moment, of a stream with three entries, and the stream's
// last.
func claimedAt(t *testing.T, applied uint64, at time.Duration) *trial {
	t.Helper()
	o := claimed(t)
	s := o.system(t)
	s.Publish("logs.t.a", "1", "2", "3")
	last, err := o.from.stream.GetMsg(t.Context(), 3)
	if err != nil {
		t.Fatal(err)
	}
	o.ledger.mu.pos.Applied, o.ledger.mu.pos.AppliedTime = applied, last.Time.Add(at)
	return o
}

// TestIdleOwnerNoticesThatTheSourceLostItsEnd: its consumer waits above the stream's end, and is sent nothing.
func TestIdleOwnerNoticesThatTheSourceLostItsEnd(t *testing.T) {
	o := claimedAt(t, 5, 0)
	o.from.every = 10 * time.Millisecond
	err := ingesttest.Ended(t, "the owner to step down", func() error {
		return o.Run(context.WithoutCancel(t.Context()), func() {})
	})
	if err == nil || errors.Is(err, errSource) || !strings.Contains(err.Error(), "lost its end") {
		t.Errorf("the owner ended with %v", err)
	}
}

func TestCheckSource(t *testing.T) {
	for name, tc := range map[string]struct {
		applied uint64
		at      time.Duration
		change  func(*cache.Position)
		same    bool
	}{
		"the last entry":               {3, 0, nil, true},
		"another one is the last":      {3, -1, nil, false},
		"above the end":                {4, 0, nil, false},
		"above the end, never read":    {4, 0, func(p *cache.Position) { p.AppliedTime = time.Time{} }, false},
		"another one, and others came": {2, 1, nil, false},
		"nothing taken in":             {0, 0, func(p *cache.Position) { p.AppliedTime = time.Time{} }, true},
		"made anew":                    {3, 0, func(p *cache.Position) { p.Source = p.Source.Add(1) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			o := claimedAt(t, tc.applied, tc.at)
			if tc.change != nil {
				tc.change(&o.ledger.mu.pos)
			}
			if err := o.from.check(t.Context()); (err == nil) != tc.same || errors.Is(err, errSource) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestCheckOfAStreamAtRest is what an idle shard costs: one request.
func TestCheckOfAStreamAtRest(t *testing.T) {
	o := claimedAt(t, 3, 0)
	var requests atomic.Int32
	sub, err := o.site.NC.Subscribe("$JS.API.>", func(*nats.Msg) { requests.Add(1) })
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(o.from.check(t.Context()), sub.Drain(), o.site.NC.Flush()); err != nil {
		t.Fatal(err)
	}
	o.system(t).Until("the subscription to end", func() bool { return !sub.IsValid() })
	if n := requests.Load(); n != 1 {
		t.Errorf("%d requests", n)
	}
}

// announcing is a consumer that is sent one message, and that there is another one.
type announcing struct{ sent bool }

func (a *announcing) Next(ctx context.Context) (streamreader.Message, error) {
	if a.sent {
		<-ctx.Done()
		return streamreader.Message{}, ctx.Err()
	}
	a.sent = true
	return streamreader.Message{Subject: "logs.t.a", Sequence: 1, Delivered: 1, Time: time.Now(), Pending: 1}, nil
}

func (a *announcing) Try() (m streamreader.Message, ok bool, err error) { return m, false, nil }

// TestFollowersThatNeverCome: what was announced behind an entry does not come, and the entry does not wait for it.
func TestFollowersThatNeverCome(t *testing.T) {
	o := claimed(t)
	ctx, cancel := context.WithTimeout(t.Context(), ingesttest.Patience)
	defer cancel()
	in, err := o.intake.readBatch(ctx, &announcing{})
	if err != nil {
		t.Fatal(err)
	}
	defer in.close()
	if in.messages != 1 || in.pending != 0 {
		t.Errorf("a batch of %d messages, and %d more to wait for", in.messages, in.pending)
	}
}

// TestGapOfAFencedOwner: what a successor has archived and trimmed is no loss, and the one who finds it gone steps
// down.
func TestGapOfAFencedOwner(t *testing.T) {
	for name, tc := range map[string]struct{ fenced, consumed bool }{
		"its own, before it reads": {}, "its own, while it reads": {consumed: true},
		"its successor's, before it reads": {fenced: true}, "its successor's, while it reads": {fenced: true, consumed: true},
	} {
		t.Run(name, func(t *testing.T) {
			o := claimed(t)
			s := o.system(t)
			s.Publish("logs.t.a", "1", "2", "3")
			if tc.fenced {
				m, err := manifest.Open(t.Context(), s.JS, 0)
				if err != nil {
					t.Fatal(err)
				}
				last, _ := m.Last()
				if _, err := m.Append(t.Context(), manifest.Record{Kind: manifest.Claim, Epoch: last.Epoch + 1, Owner: "successor",
					Source: last.Source}); err != nil {
					t.Fatal(err)
				}
			}
			var err error
			if tc.consumed { // entry 3 comes right after the position
				in := o.intake.newBatch()
				in.gaps, in.messages, in.applied = []span{{1, 2}}, 1, 3
				in.batch = o.site.DB.NewBatch()
				err = o.intake.apply(t.Context(), in)
			} else {
				err = o.intake.stepOver(t.Context(), 2)
			}
			if errors.Is(err, manifest.ErrFenced) != tc.fenced || !tc.fenced && err != nil {
				t.Fatalf("got %v", err)
			}
			if counted := testutil.ToFloat64(o.site.Metrics.lost) > 0; counted == tc.fenced {
				t.Errorf("counted as lost: %v", counted)
			}
			if moved := o.ledger.applied() > 0; moved == tc.fenced {
				t.Errorf("the position is %d", o.ledger.applied())
			}
		})
	}
}

// TestGapThatCannotBeLookedAt: as long as JetStream does not say whose turn it is, or what an operator has put aside,
// a gap is neither counted nor passed.
func TestGapThatCannotBeLookedAt(t *testing.T) {
	for _, stream := range []string{wire.ManifestStream, wire.RejectedStream} {
		t.Run(stream, func(t *testing.T) {
			o := claimed(t)
			s := o.system(t)
			js, refuse := s.Refusing("STREAM.MSG.GET." + stream)
			refuse.Store(true)
			o.asksBy(js)
			if err := o.intake.stepOver(t.Context(), 2); !errors.Is(err, errSource) || errors.Is(err, manifest.ErrFenced) {
				t.Errorf("got %v", err)
			}
			if lost := testutil.ToFloat64(o.site.Metrics.lost); lost > 0 || o.ledger.applied() > 0 {
				t.Errorf("%v are lost, the position is %d", lost, o.ledger.applied())
			}
			refuse.Store(false)
			if err := o.intake.stepOver(t.Context(), 2); err != nil || testutil.ToFloat64(o.site.Metrics.lost) != 2 ||
				o.ledger.applied() != 2 {
				t.Errorf("afterwards: %v lost, the position is %d, %v", testutil.ToFloat64(o.site.Metrics.lost),
					o.ledger.applied(), err)
			}
		})
	}
}
