package integration

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// TestStreamsThatAreRefused meets streams that were there before with a setting that breaks an invariant: the server
// does not start, and says which setting it is.
func TestStreamsThatAreRefused(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		says   string // besides the stream's name
		stream jetstream.StreamConfig
	}{
		{"retention", jetstream.StreamConfig{Name: "LOGS", Subjects: []string{"logs.>"},
			Retention: jetstream.WorkQueuePolicy}},
		{"retention", jetstream.StreamConfig{Name: "LOGS", Subjects: []string{"logs.>"},
			Retention: jetstream.InterestPolicy}},
		{"storage", jetstream.StreamConfig{Name: "LOGS", Subjects: []string{"logs.>"}, Storage: jetstream.MemoryStorage}},
		{"retention", jetstream.StreamConfig{Name: "DORMOUSE_SYNCQUEUE", Subjects: []string{"dormouse.sync.*"}}},
		{"retention", jetstream.StreamConfig{Name: "DORMOUSE_MERGES", Subjects: []string{"dormouse.merge.*"}}},
		{"max_age", jetstream.StreamConfig{Name: "DORMOUSE_MANIFEST", Subjects: []string{"dormouse.manifest.*"},
			MaxAge: time.Hour}},
	} {
		t.Run(tc.stream.Name+" "+tc.says, func(t *testing.T) {
			nats := startOutsideNATS(t)
			_, js := dial(t, nats.addr)
			if _, err := js.CreateStream(t.Context(), tc.stream); err != nil {
				t.Fatal(err)
			}
			nats.instance(fast...).refused(tc.stream.Name, tc.says)
		})
	}
}

// TestUsersStreamIsNotTrimmed archives a stream that was there before, leaves it alone, and shortens it when told to.
func TestUsersStreamIsNotTrimmed(t *testing.T) {
	t.Parallel()
	nats := startOutsideNATS(t)
	_, js := dial(t, nats.addr)
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "LOGS",
		Subjects: []string{"logs.>"}}); err != nil {
		t.Fatal(err)
	}
	in := nats.instance(append(fast, "--sync-interval", "50ms", "--trim-delay", "100ms")...).start()
	file := lines(200, "mine")
	in.must(file, "publish", "user.log")
	in.awaitMetric("dormouse_entries_synced_total", 200)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for range 30 { // many times the trim delay
		if state, err := in.source(); err != nil || state.Msgs != 200 {
			t.Fatalf("the user's stream has %d messages (%v), want 200", state.Msgs, err)
		}
		<-tick.C
	}
	if code := in.stop(); code != 0 {
		t.Fatalf("exit %d\n%s", code, in.Tail())
	}
	in.args = append(in.args, "--trim", "always")
	in.start().until("the stream to be trimmed", in.sourceEmpty)
	if got := in.must("", "read", "user.log"); got != file {
		t.Fatal("what is read is not what was published")
	}
}

// TestRejected publishes messages that are no entry of a log: they end, with the reason, in a stream of their own, and
// hold nobody up.
func TestRejected(t *testing.T) {
	t.Parallel()
	in := newInstance(t, fast...).start()
	_, js := dial(t, in.nats)
	long := "logs.acme." + strings.Repeat("x", 300)
	for _, subject := range []string{"logs.acme", "logs.acme.good", long, "logs.acme.good"} {
		if _, err := js.Publish(t.Context(), subject, []byte("to "+subject)); err != nil {
			t.Fatal(err)
		}
	}
	in.awaitQuiet(4)
	if got := in.must("", "read", "acme.good"); got != "to logs.acme.good\nto logs.acme.good\n" {
		t.Errorf("the good log reads %q", got)
	}
	in.awaitMetric("dormouse_entries_rejected_total", 2)
	stream, err := js.Stream(t.Context(), "DORMOUSE_REJECTED")
	if err != nil {
		t.Fatal(err)
	}
	if n := stream.CachedInfo().State.Msgs; n != 2 {
		t.Fatalf("%d messages are in DORMOUSE_REJECTED, want 2", n)
	}
	for seq, want := range map[uint64]string{1: "logs.acme", 2: long} {
		msg, err := stream.GetMsg(t.Context(), seq)
		if err != nil {
			t.Fatal(err)
		}
		if msg.Header.Get("Dormouse-Subject") != want || msg.Header.Get("Dormouse-Reason") == "" ||
			string(msg.Data) != "to "+want {
			t.Errorf("message %d is %v %q", seq, msg.Header, msg.Data)
		}
	}
}

// TestLossByTheStreamsOwnLimits lets the source stream drop entries while no server runs: that is counted, said, and
// harms nothing else.
func TestLossByTheStreamsOwnLimits(t *testing.T) {
	t.Parallel()
	nats := startOutsideNATS(t)
	_, js := dial(t, nats.addr)
	_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "LOGS", Subjects: []string{"logs.>"},
		MaxMsgs: 100})
	if err != nil {
		t.Fatal(err)
	}
	in := nats.instance(fast...).start()
	if !strings.Contains(in.Output(), "max_msgs") {
		t.Errorf("the limit was not warned of:\n%s", in.Tail())
	}
	first, second := lines(10, "first"), lines(300, "second")
	in.must(first, "publish", "user.log")
	in.awaitMetric("dormouse_entries_synced_total", 10)
	in.stop()
	in.must(second, "publish", "user.log")
	in.start()
	in.awaitMetric("dormouse_entries_synced_total", 100)
	in.awaitMetric("dormouse_entries_lost_total", 200)
	in.awaitMetric("dormouse_logs_active", 0)
	if !strings.Contains(in.Output(), "entries=200") || !strings.Contains(in.Output(), "(discard old and max_msgs 100)") {
		t.Errorf("the loss was not logged:\n%s", in.Tail())
	}
	left := strings.SplitAfterN(second, "\n", 201)[200]
	if got := in.must("", "read", "user.log"); got != first+left {
		t.Errorf("%d bytes are read, want the first 10 and the last 100 lines", len(got))
	}
	in.must("", "verify")
	if o := in.run("", "read", "user.log", "--from", fmt.Sprint(211), "--to", "211"); o.Out != strings.SplitAfter(left,
		"\n")[0] {
		t.Errorf("entry 211 reads %q", o.Out)
	}
}
