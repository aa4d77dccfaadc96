package topology

import (
	"errors"
	"slices"
	"testing"
	"time"

	"dormouse/internal/natstest"
	"dormouse/internal/wire"
)

// TestRaise: an empty source stream goes on above; one that got a message meanwhile keeps it, and takes what it did.
func TestRaise(t *testing.T) {
	_, js := natstest.Dial(t, natstest.Start(t))
	if _, err := Ensure(t.Context(), js, Config{RequeueAfter: time.Minute, Lease: time.Second}); err != nil {
		t.Fatal(err)
	}
	sources, err := Sources(t.Context(), js)
	if err != nil {
		t.Fatal(err)
	}
	source := sources[0]
	publish := func() uint64 {
		t.Helper()
		ack, err := js.Publish(t.Context(), "logs.a.b", nil)
		if err != nil {
			t.Fatal(err)
		}
		return ack.Sequence
	}
	if seq, err := Begins(t.Context(), js, source, 1000); seq != 0 || err != nil {
		t.Errorf("an empty one begins at %d, %v", seq, err)
	}
	// As one leaves it that was killed in between.
	cfg := natstest.Stream(t, js, source.Stream).CachedInfo().Config
	cfg.Subjects = []string{parkedSubjects + source.Stream}
	if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if seq, err := Begins(t.Context(), js, source, 1); seq != 0 || err != nil {
		t.Errorf("one that takes nothing begins at %d, %v", seq, err)
	}
	if err := Raise(t.Context(), js, source, 1000); err != nil {
		t.Fatal(err)
	}
	if seq := publish(); seq != 1000 {
		t.Errorf("it goes on at %d, want 1000", seq)
	}
	if seq, err := Begins(t.Context(), js, source, 1000); seq != 1000 || err != nil {
		t.Errorf("it begins at %d, %v", seq, err)
	}
	if err := Raise(t.Context(), js, source, 2000); !errors.Is(err, ErrRefused) {
		t.Errorf("one with a message: %v", err)
	}
	info := natstest.Stream(t, js, source.Stream).CachedInfo()
	if info.State.Msgs != 1 || !slices.Equal(info.Config.Subjects, []string{"logs.>"}) {
		t.Errorf("it has %d messages, and takes %v", info.State.Msgs, info.Config.Subjects)
	}
}

// TestBeginManifest: a manifest begins where it is told to, also one that is there without records; one with records of
// a shard is left alone.
func TestBeginManifest(t *testing.T) {
	_, js := natstest.Dial(t, natstest.Start(t))
	next := func() uint64 {
		return natstest.Stream(t, js, wire.ManifestStream).CachedInfo().State.LastSeq + 1
	}
	for _, first := range []uint64{100, 50, 200} {
		if err := BeginManifest(t.Context(), js, Config{FirstRecord: first}); err != nil {
			t.Fatal(err)
		}
		if got := next(); got != max(first, 100) {
			t.Errorf("told to begin at %d it goes on at %d", first, got)
		}
	}
	if _, err := js.Publish(t.Context(), wire.SystemSubject, nil); err != nil {
		t.Fatal(err)
	}
	if err := BeginManifest(t.Context(), js, Config{FirstRecord: 300}); err != nil || next() != 300 {
		t.Errorf("with a system that has no bucket: %v, it goes on at %d", err, next())
	}
	if _, err := js.Publish(t.Context(), wire.ManifestSubject(0), nil); err != nil {
		t.Fatal(err)
	}
	if err := BeginManifest(t.Context(), js, Config{FirstRecord: 400}); !errors.Is(err, ErrRefused) || next() != 301 {
		t.Errorf("with a record: %v, it goes on at %d", err, next())
	}
	if err := BeginManifest(t.Context(), js, Config{FirstRecord: 301}); err != nil {
		t.Errorf("with a record below: %v", err)
	}
}
