package policies

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"dormouse/internal/natstest"
	"dormouse/internal/policy"
	"dormouse/internal/topology"
	"dormouse/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

type system struct {
	t      *testing.T
	js     jetstream.JetStream
	bucket *Bucket
	kv     jetstream.KeyValue
}

func newSystem(t *testing.T) *system {
	t.Helper()
	_, js := natstest.Dial(t, natstest.Start(t))
	s := &system{t: t, js: js}
	s.provision()
	return s
}

// provision makes the bucket.
func (s *system) provision() {
	s.t.Helper()
	_, err := topology.Ensure(s.t.Context(), s.js, topology.Config{RequeueAfter: time.Minute, Lease: time.Minute})
	if err == nil {
		s.bucket, err = Open(s.t.Context(), s.js)
	}
	if err == nil {
		s.kv, err = s.js.KeyValue(s.t.Context(), wire.PolicyBucket)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *system) set(pattern policy.Pattern, p policy.Policy, revision uint64) {
	s.t.Helper()
	if err := s.bucket.Set(s.t.Context(), policy.Rule{Pattern: pattern, Policy: p}, "ann@host", revision); err != nil {
		s.t.Fatal(err)
	}
}

func (s *system) put(key, value string) {
	s.t.Helper()
	if _, err := s.kv.PutString(s.t.Context(), key, value); err != nil {
		s.t.Fatal(err)
	}
}

func (s *system) list() []Kept {
	s.t.Helper()
	all, err := s.bucket.List(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return all
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s for %s", patience, what)
		}
	}
}

// TestBucket: what is set is listed, in order; two who change the same do not undo each other; what was can be read.
func TestBucket(t *testing.T) {
	s := newSystem(t)
	if all := s.list(); len(all) > 0 {
		t.Errorf("of nothing: %+v", all)
	}
	s.set(">", policy.Policy{Keep: time.Hour}, 0)
	s.set("iot.*.ö/x", policy.Policy{MaxDelay: time.Minute}, 0)
	all := s.list()
	if len(all) != 2 || all[0].Pattern != "iot.*.ö/x" || all[0].Policy.MaxDelay != time.Minute ||
		all[0].By != "ann@host" || all[1].Pattern != ">" || time.Since(all[1].At) > time.Minute {
		t.Fatalf("%+v", all)
	}
	ctx, wide := t.Context(), policy.Rule{Pattern: ">", Policy: policy.Policy{Keep: 2 * time.Hour}}
	for _, stale := range []uint64{0, all[0].Revision} {
		if err := s.bucket.Set(ctx, wide, "", stale); !errors.Is(err, ErrChanged) {
			t.Errorf("changed at revision %d: %v", stale, err)
		}
		if err := s.bucket.Remove(ctx, ">", all[0].Revision); !errors.Is(err, ErrChanged) {
			t.Errorf("removed at revision %d: %v", stale, err)
		}
	}
	s.set(">", wide.Policy, all[1].Revision)
	all = s.list()
	if err := s.bucket.Remove(ctx, ">", all[1].Revision); err != nil {
		t.Fatal(err)
	}
	if all := s.list(); len(all) != 1 {
		t.Errorf("after a removal: %+v", all)
	}
	s.set(">", policy.Policy{Rate: 1}, 0) // again, in the place of its removal
	history, err := s.bucket.History(ctx)
	if err != nil || len(history) != 5 {
		t.Fatalf("%+v, %v", history, err)
	}
	if h := history[1:]; h[0].Policy.Keep != time.Hour || h[1].Policy.Keep != 2*time.Hour || !h[2].Removed ||
		h[3].Policy.Rate != 1 {
		t.Errorf("the history is %+v", h)
	}
	if err := s.bucket.Set(ctx, policy.Rule{Pattern: "a.b"}, "", 0); !errors.Is(err, policy.ErrInvalid) {
		t.Errorf("a policy that settles nothing: %v", err)
	}
}

// TestHistoryIsBounded: of a pattern that is changed often the last few are kept.
func TestHistoryIsBounded(t *testing.T) {
	s := newSystem(t)
	revision := uint64(0)
	for i := range 20 {
		s.set(">", policy.Policy{Rate: uint64(i + 1)}, revision)
		revision = s.list()[0].Revision
	}
	if history, err := s.bucket.History(t.Context()); err != nil || len(history) != 5 || history[4].Policy.Rate != 20 {
		t.Errorf("%+v, %v", history, err)
	}
}

// TestForget: what was removed before a time leaves the bucket, with all that it was, and nothing else.
func TestForget(t *testing.T) {
	s := newSystem(t)
	s.set("stays.>", policy.Policy{Rate: 1}, 0)
	s.set("goes.>", policy.Policy{Rate: 1}, 0)
	s.set("back.>", policy.Policy{Rate: 1}, 0)
	for _, k := range s.list() {
		if k.Pattern != "stays.>" {
			if err := s.bucket.Remove(t.Context(), k.Pattern, k.Revision); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.set("back.>", policy.Policy{Rate: 2}, 0)
	left := func() (patterns []string) {
		history, err := s.bucket.History(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range history {
			patterns = append(patterns, string(k.Pattern))
		}
		return patterns
	}
	before := left()
	if err := s.bucket.Forget(t.Context(), time.Now().Add(-time.Hour)); err != nil || !slices.Equal(left(), before) {
		t.Errorf("what was removed lately: %v, %q became %q", err, before, left())
	}
	want := []string{"back.>", "back.>", "back.>", "stays.>"}
	if err := s.bucket.Forget(t.Context(), time.Now().Add(time.Hour)); err != nil || !slices.Equal(left(), want) {
		t.Errorf("%v, %q, want %q", err, left(), want)
	}
}

// TestUnreadable: one that cannot be read is told, keeps what a wider one would let expire, and can be replaced.
func TestUnreadable(t *testing.T) {
	s := newSystem(t)
	s.set(">", policy.Policy{Keep: time.Hour}, 0)
	s.put("acme.=3E", `{"version":2,"pattern":"acme.>","keep":{"least":"30d"}}`)
	s.put("no/key", "x")
	all := s.list()
	set, faults, err := InForce(all)
	if err != nil || len(faults) != 2 || !errors.Is(faults[0], policy.ErrNewer) || set.Len() != 2 {
		t.Fatalf("%v, %v, %v", set.Rules(), faults, err)
	}
	if got := set.Lookup("acme.web").Keep; got != policy.Forever || set.Lookup("globex.web").Keep != time.Hour {
		t.Errorf("acme's is kept for %s", got)
	}
	if all[2].Key != "no/key" || all[2].Pattern != "" || all[2].Fault == nil {
		t.Errorf("%+v", all)
	}
	s.set("acme.>", policy.Policy{Keep: 2 * time.Hour}, all[0].Revision)
	if set, _, _ = InForce(s.list()); set.Lookup("acme.web").Keep != 2*time.Hour {
		t.Errorf("%v", set.Rules())
	}
}

func TestNoBucket(t *testing.T) {
	_, js := natstest.Dial(t, natstest.Start(t))
	if _, err := Open(t.Context(), js); !errors.Is(err, ErrNoBucket) || !strings.Contains(err.Error(), "provision") {
		t.Errorf("%v", err)
	}
}

// watch runs a watcher.
func (s *system) watch(change ...func(*Watcher)) (*Watcher, *prometheus.Registry) {
	s.t.Helper()
	registry := prometheus.NewRegistry()
	w := NewWatcher(s.js, slog.New(slog.NewTextHandler(s.t.Output(), nil)), registry)
	for _, c := range change {
		c(w)
	}
	ctx, cancel := context.WithCancel(s.t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	s.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			s.t.Error(err)
		}
	})
	return w, registry
}

// TestWatcher: a change is in force soon, and told; several are one.
func TestWatcher(t *testing.T) {
	s := newSystem(t)
	s.set(">", policy.Policy{MaxDelay: time.Minute}, 0)
	w, registry := s.watch()
	w.Await(t.Context(), patience)
	if w.Current().Lookup("a.b").MaxDelay != time.Minute || len(w.Remarks()) > 0 {
		t.Fatalf("%v, %v", w.Current().Rules(), w.Remarks())
	}
	var changes atomic.Int64
	stop := make(chan struct{})
	counted := make(chan struct{})
	go func() {
		defer close(counted)
		for {
			changed := w.Changed()
			select {
			case <-changed:
				changes.Add(1)
			case <-stop:
				return
			}
		}
	}()
	began := time.Now()
	const many = 50
	for i := range many {
		s.set(policy.Pattern(fmt.Sprintf("t%d.>", i)), policy.Policy{Rate: 1}, 0)
	}
	until(t, "all of them", func() bool { return w.Current().Len() == many+1 })
	close(stop)
	<-counted
	if most := int64(time.Since(began)/gather) + 1; changes.Load() == 0 || changes.Load() > most {
		t.Errorf("%d changes were told as %d, want 1 to %d", many, changes.Load(), most)
	}
	if got := testutil.ToFloat64(gauge(t, registry)); got != many+1 {
		t.Errorf("the metric says %v", got)
	}
	for _, k := range s.list() {
		if err := s.bucket.Remove(t.Context(), k.Pattern, k.Revision); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "the removal", func() bool { return w.Current().Len() == 0 })
}

// gauge is dormouse_policies of a registry.
func gauge(t *testing.T, registry *prometheus.Registry) prometheus.Collector {
	t.Helper()
	families, err := registry.Gather()
	if err != nil || len(families) != 1 || families[0].GetName() != "dormouse_policies" {
		t.Fatalf("%v, %v", families, err)
	}
	value := families[0].GetMetric()[0].GetGauge().GetValue()
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "copy"}, func() float64 { return value })
}

// TestWatcherOutlivesItsBucket: what is known stays in force while there is none, and one that is made anew is found.
func TestWatcherOutlivesItsBucket(t *testing.T) {
	s := newSystem(t)
	s.set(">", policy.Policy{MaxDelay: time.Minute}, 0)
	w, _ := s.watch(func(w *Watcher) { w.pause = 300 * time.Millisecond })
	w.Await(t.Context(), patience)
	if err := s.js.DeleteKeyValue(t.Context(), wire.PolicyBucket); err != nil {
		t.Fatal(err)
	}
	until(t, "a remark", func() bool {
		r := strings.Join(w.Remarks(), "\n")
		return strings.Contains(r, "stay in force") && strings.Contains(r, "provision")
	})
	if w.Current().Len() != 1 {
		t.Errorf("in force are %v", w.Current().Rules())
	}
	s.provision()
	s.set("a.>", policy.Policy{MaxDelay: time.Hour}, 0)
	until(t, "the new bucket", func() bool {
		return w.Current().Lookup("a.b").MaxDelay == time.Hour && w.Current().Len() == 1 && len(w.Remarks()) == 0
	})
}

// TestWatcherWithoutBucket: a process of a system that was made before there were policies does not wait for them.
func TestWatcherWithoutBucket(t *testing.T) {
	_, js := natstest.Dial(t, natstest.Start(t))
	s := &system{t: t, js: js}
	w, _ := s.watch()
	began := time.Now()
	w.Await(t.Context(), patience)
	if time.Since(began) > patience/2 || w.Current() != nil || len(w.Remarks()) != 1 {
		t.Errorf("after %s: %v, %q", time.Since(began), w.Current(), w.Remarks())
	}
}

// TestWatcherIsBounded: with more policies than there may be, those that are known stay in force, until there are
// fewer.
func TestWatcherIsBounded(t *testing.T) {
	s := newSystem(t)
	s.set("first.>", policy.Policy{Rate: 1}, 0)
	w, _ := s.watch()
	w.Await(t.Context(), patience)
	for i := range policy.MaxPatterns {
		if _, err := s.js.PublishAsync(fmt.Sprintf("$KV.%s.t%d.x", wire.PolicyBucket, i),
			[]byte(fmt.Sprintf(`{"version":1,"pattern":"t%d.x","rate":1}`, i))); err != nil {
			t.Fatal(err)
		}
		if i%1000 == 999 {
			<-s.js.PublishAsyncComplete()
		}
	}
	until(t, "a remark", func() bool { return strings.Contains(strings.Join(w.Remarks(), ""), "more than 10000") })
	if _, err := s.bucket.List(t.Context()); !errors.Is(err, ErrTooMany) {
		t.Errorf("listing them: %v", err)
	}
	if err := s.kv.Delete(t.Context(), "t7.x"); err != nil {
		t.Fatal(err)
	}
	until(t, "the others", func() bool { return w.Current().Len() == policy.MaxPatterns && len(w.Remarks()) == 0 })
}

// TestWatcherTellsFaults: of a policy that cannot be read, until it is set again.
func TestWatcherTellsFaults(t *testing.T) {
	s := newSystem(t)
	s.put("acme.=3E", `{"version":2}`)
	w, _ := s.watch()
	w.Await(t.Context(), patience)
	if r := w.Remarks(); len(r) != 1 || !strings.Contains(r[0], "newer version") || !strings.Contains(r[0], "acme.>") {
		t.Errorf("%q", r)
	}
	if w.Current().Lookup("acme.web").Keep != policy.Forever {
		t.Errorf("%v", w.Current().Rules())
	}
	s.set("acme.>", policy.Policy{Rate: 1}, s.list()[0].Revision)
	until(t, "the policy", func() bool { return w.Current().Lookup("acme.web").Rate == 1 && len(w.Remarks()) == 0 })
}
