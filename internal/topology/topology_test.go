package topology

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"

	"dormouse/internal/natstest"
	"dormouse/internal/wire"
)

// TestMain leaves one goroutine of the server's out: a stream waits half a minute for one of its sources to answer,
// also when the server has ended.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction(
		"github.com/nats-io/nats-server/v2/server.(*stream).trySetupSourceConsumer.func3"))
}

var testConfig = Config{RequeueAfter: time.Minute, Lease: 10 * time.Second}

func dial(t *testing.T, srv *server.Server) jetstream.JetStream {
	t.Helper()
	_, js := natstest.Dial(t, srv)
	return js
}

func TestEnsureManyTimesAtOnce(t *testing.T) {
	srv := natstest.Start(t)
	var group errgroup.Group
	for range 6 {
		js := dial(t, srv)
		group.Go(func() error {
			_, err := Ensure(t.Context(), js, testConfig)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	js := dial(t, srv)
	warnings, err := Ensure(t.Context(), js, testConfig)
	if err != nil || len(warnings) > 0 {
		t.Fatalf("again: %v, %v", warnings, err)
	}
	sources, err := Sources(t.Context(), js)
	if err != nil || len(sources) != 1 {
		t.Fatalf("sources %v, %v", sources, err)
	}
	if s := sources[0]; s.Shard != 0 || s.Stream != wire.DefaultSource || s.Prefix != wire.DefaultPrefix || !s.Managed ||
		s.Created.IsZero() {
		t.Fatalf("source %+v", s)
	}
}

func TestChangedTimesAreApplied(t *testing.T) {
	js := dial(t, natstest.Start(t))
	for _, cfg := range []Config{testConfig, {RequeueAfter: 7 * time.Second, Lease: 3 * time.Second}} {
		if _, err := Ensure(t.Context(), js, cfg); err != nil {
			t.Fatal(err)
		}
		queue, err := js.Stream(t.Context(), wire.SyncQueueStream)
		if err != nil || queue.CachedInfo().Config.MaxAge != cfg.RequeueAfter {
			t.Fatalf("the SyncQueue keeps items for %v, %v", queue.CachedInfo().Config.MaxAge, err)
		}
		kv, err := js.KeyValue(t.Context(), wire.LeaseBucket)
		if err != nil {
			t.Fatal(err)
		}
		if status, err := kv.Status(t.Context()); err != nil || status.TTL() != cfg.Lease {
			t.Fatalf("leases live for %v, %v", status.TTL(), err)
		}
	}
}

// TestRefusals makes each stream with one setting that breaks an invariant. The error must name stream, setting and
// value.
func TestRefusals(t *testing.T) {
	source := func(change func(*jetstream.StreamConfig)) jetstream.StreamConfig {
		c := jetstream.StreamConfig{Name: wire.DefaultSource, Subjects: []string{"logs.>"}}
		change(&c)
		return c
	}
	queue := func(change func(*jetstream.StreamConfig)) jetstream.StreamConfig {
		c := jetstream.StreamConfig{Name: wire.SyncQueueStream, Subjects: []string{wire.SyncQueueSubjects},
			Retention: jetstream.WorkQueuePolicy, Discard: jetstream.DiscardNew, MaxAge: time.Minute}
		change(&c)
		return c
	}
	record := func(change func(*jetstream.StreamConfig)) jetstream.StreamConfig {
		c := jetstream.StreamConfig{Name: wire.ManifestStream, Subjects: []string{wire.ManifestSubjects}}
		change(&c)
		return c
	}
	for name, tc := range map[string]struct {
		stream jetstream.StreamConfig
		trim   bool
		says   []string
	}{
		"work-queue source": {source(func(c *jetstream.StreamConfig) { c.Retention = jetstream.WorkQueuePolicy }), false,
			[]string{"LOGS", "retention", "WorkQueue", "Limits"}},
		"interest source": {source(func(c *jetstream.StreamConfig) { c.Retention = jetstream.InterestPolicy }), false,
			[]string{"LOGS", "retention", "Interest"}},
		"memory source": {source(func(c *jetstream.StreamConfig) { c.Storage = jetstream.MemoryStorage }), false,
			[]string{"LOGS", "storage", "Memory"}},
		"source no_ack": {source(func(c *jetstream.StreamConfig) { c.NoAck = true }), false, []string{"LOGS", "no_ack"}},
		"source deny_purge": {source(func(c *jetstream.StreamConfig) { c.DenyPurge = true }), true,
			[]string{"LOGS", "deny_purge"}},
		"source sealed": {source(func(c *jetstream.StreamConfig) { c.Sealed = true }), false, []string{"LOGS", "sealed"}},
		"source async": {source(func(c *jetstream.StreamConfig) { c.PersistMode = jetstream.AsyncPersistMode }), false,
			[]string{"LOGS", "persist_mode"}},
		"source counters": {source(func(c *jetstream.StreamConfig) { c.AllowMsgCounter = true }), true,
			[]string{"LOGS", "--trim", "allow_msg_counter"}},
		"source schedules": {source(func(c *jetstream.StreamConfig) { c.AllowMsgSchedules, c.AllowRollup = true, true }),
			true, []string{"LOGS", "--trim", "allow_msg_schedules"}},
		"source consumers": {source(func(c *jetstream.StreamConfig) { c.ConsumerLimits.InactiveThreshold = time.Second }),
			false, []string{"LOGS", "inactive_threshold 1s"}},
		"source subjects": {source(func(c *jetstream.StreamConfig) { c.Subjects = []string{"other.>"} }), false,
			[]string{"LOGS", "subjects"}},
		"source elsewhere": {source(func(c *jetstream.StreamConfig) { c.Name = "MINE" }), false,
			[]string{"logs.", "--add-stream"}},
		"source bad shard": {source(
			func(c *jetstream.StreamConfig) { c.Metadata = map[string]string{wire.MetadataShard: "one"} }), false,
			[]string{"LOGS", wire.MetadataShard, "one"}},
		"queue retention": {queue(func(c *jetstream.StreamConfig) { c.Retention = jetstream.LimitsPolicy }), false,
			[]string{wire.SyncQueueStream, "retention"}},
		"queue discard": {queue(func(c *jetstream.StreamConfig) { c.Discard = jetstream.DiscardOld }), false,
			[]string{wire.SyncQueueStream, "discard"}},
		"manifest age": {record(func(c *jetstream.StreamConfig) { c.MaxAge = time.Hour }), false,
			[]string{wire.ManifestStream, "max_age", "1h"}},
		"manifest direct": {record(func(c *jetstream.StreamConfig) { c.AllowDirect = true }), false,
			[]string{wire.ManifestStream, "allow_direct"}},
		"manifest memory": {record(func(c *jetstream.StreamConfig) { c.Storage = jetstream.MemoryStorage }), false,
			[]string{wire.ManifestStream, "storage"}},
		"manifest limited": {record(func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject = 10 }), false,
			[]string{wire.ManifestStream, "max_msgs_per_subject", "10"}},
	} {
		t.Run(name, func(t *testing.T) {
			js := dial(t, natstest.Start(t))
			sealed := tc.stream.Sealed // which no stream is from the start
			tc.stream.Sealed = false
			_, err := js.CreateStream(t.Context(), tc.stream)
			if tc.stream.Sealed = sealed; err == nil && sealed {
				_, err = js.UpdateStream(t.Context(), tc.stream)
			}
			if err != nil {
				t.Fatal(err)
			}
			cfg := testConfig
			cfg.Trim = tc.trim
			_, err = Ensure(t.Context(), js, cfg)
			if !errors.Is(err, ErrRefused) {
				t.Fatalf("got %v, want it refused", err)
			}
			for _, part := range tc.says {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q does not say %q", err, part)
				}
			}
		})
	}
}

func TestConsumersOfTheQueuesAreChecked(t *testing.T) {
	for stream, pool := range map[string]string{
		wire.SyncQueueStream: wire.SyncQueuePool, wire.MergeStream: wire.MergePool,
	} {
		t.Run(stream, func(t *testing.T) {
			js := dial(t, natstest.Start(t))
			if _, err := Ensure(t.Context(), js, testConfig); err != nil {
				t.Fatal(err)
			}
			if err := js.DeleteConsumer(t.Context(), stream, pool); err != nil {
				t.Fatal(err)
			}
			_, err := js.CreateConsumer(t.Context(), stream, jetstream.ConsumerConfig{Durable: pool,
				AckPolicy: jetstream.AckExplicitPolicy, MaxDeliver: 3})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Ensure(t.Context(), js, testConfig); !errors.Is(err, ErrRefused) ||
				!strings.Contains(err.Error(), "max_deliver") || !strings.Contains(err.Error(), stream) {
				t.Fatalf("got %v, want max_deliver of %s refused", err, stream)
			}
		})
	}
}

// TestMergeQueue: what bounds it is its own, and does not follow the SyncQueue.
func TestMergeQueue(t *testing.T) {
	js := dial(t, natstest.Start(t))
	for _, cfg := range []Config{testConfig, {RequeueAfter: 7 * time.Second, Lease: 3 * time.Second}} {
		if _, err := Ensure(t.Context(), js, cfg); err != nil {
			t.Fatal(err)
		}
		stream, err := js.Stream(t.Context(), wire.MergeStream)
		if err != nil {
			t.Fatal(err)
		}
		have := stream.CachedInfo().Config
		if have.MaxAge != 10*time.Minute || have.MaxMsgs != 10_000 || have.MaxBytes != 16<<20 ||
			have.Discard != jetstream.DiscardNew || have.Retention != jetstream.WorkQueuePolicy ||
			len(have.Subjects) != 1 || have.Subjects[0] != wire.MergeSubjects {
			t.Errorf("the queue of merges is %+v", have)
		}
		pool, err := stream.Consumer(t.Context(), wire.MergePool)
		if err != nil {
			t.Fatal(err)
		}
		if c := pool.CachedInfo().Config; c.AckPolicy != jetstream.AckExplicitPolicy || c.AckWait != 30*time.Second ||
			c.MaxDeliver != -1 || c.MaxAckPending != 1000 {
			t.Errorf("its consumer is %+v", c)
		}
	}
}

func TestStreamThatWasThereIsAdoptedAndNotManaged(t *testing.T) {
	js := dial(t, natstest.Start(t))
	_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: wire.DefaultSource, Subjects: []string{"logs.>"},
		MaxAge: time.Hour, MaxBytes: 1 << 20, Metadata: map[string]string{"mine": "yes"}})
	if err != nil {
		t.Fatal(err)
	}
	warnings, err := Ensure(t.Context(), js, testConfig)
	if err != nil {
		t.Fatal(err)
	}
	if all := strings.Join(warnings, "\n"); !strings.Contains(all, "max_age") || !strings.Contains(all, "max_bytes") {
		t.Errorf("limits that lose entries are not warned of: %q", warnings)
	}
	sources, err := Sources(t.Context(), js)
	if err != nil || len(sources) != 1 || sources[0].Managed {
		t.Fatalf("sources %+v, %v", sources, err)
	}
	stream, err := js.Stream(t.Context(), wire.DefaultSource)
	if err != nil || stream.CachedInfo().Config.Metadata["mine"] != "yes" ||
		stream.CachedInfo().Config.MaxAge != time.Hour {
		t.Fatalf("adopting changed the stream: %+v, %v", stream.CachedInfo().Config, err)
	}
}

func TestTwoStreamsOfOneShardAreRefused(t *testing.T) {
	js := dial(t, natstest.Start(t))
	for _, name := range []string{"A", "B"} {
		_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: name, Subjects: []string{name + ".>"},
			Metadata: map[string]string{wire.MetadataShard: "4"}})
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Sources(t.Context(), js); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "A and B") {
		t.Fatalf("got %v", err)
	}
}
