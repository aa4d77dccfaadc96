package topology

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"dormouse/internal/natstest"
	"dormouse/internal/shardid"
	"dormouse/internal/wire"
)

func sharded(n int) Config {
	c := testConfig
	c.Shards = n
	return c
}

// TestPartitionsManyTimesAtOnce makes the shards from several processes, one of which was interrupted before.
func TestPartitionsManyTimesAtOnce(t *testing.T) {
	const shards = 5
	srv := natstest.Start(t)
	js := dial(t, srv)
	half := sharded(shards)
	half.Replicas = 1
	if _, err := js.CreateStream(t.Context(), partitionConfig(2, shards, half)); err != nil {
		t.Fatal(err)
	}
	var group errgroup.Group
	for i := range 6 {
		js := dial(t, srv)
		group.Go(func() error {
			_, err := Ensure(t.Context(), js, sharded(shards*(i%2))) // every second one does not know the number
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	sources, err := Sources(t.Context(), js)
	if err != nil || len(sources) != shards || Partitions(sources) != shards {
		t.Fatalf("sources %+v, %v", sources, err)
	}
	for i, s := range sources {
		if s.Shard != shardid.Shard(i) || s.Stream != fmt.Sprintf("DORMOUSE_LOGS_%d", i) ||
			s.Prefix != fmt.Sprintf("dormouse.shard.%d", i) || !s.Managed {
			t.Errorf("source %+v", s)
		}
	}
}

// TestNumberOfShardsIsFixed: logs would move between shards otherwise.
func TestNumberOfShardsIsFixed(t *testing.T) {
	for name, tc := range map[string]struct {
		first, then int
		refused     bool
	}{
		"one, then none said": {1, 0, false}, "one, then one": {1, 1, false}, "one, then three": {1, 3, true},
		"three, then none said": {3, 0, false}, "three, then three": {3, 3, false}, "three, then one": {3, 1, true},
		"three, then four": {3, 4, true},
	} {
		t.Run(name, func(t *testing.T) {
			js := dial(t, natstest.Start(t))
			if _, err := Ensure(t.Context(), js, sharded(tc.first)); err != nil {
				t.Fatal(err)
			}
			_, err := Ensure(t.Context(), js, sharded(tc.then))
			if errors.Is(err, ErrRefused) != tc.refused || err != nil && !strings.Contains(err.Error(), "--shards") {
				t.Errorf("got %v", err)
			}
			if sources, err := Sources(t.Context(), js); err != nil || len(sources) != tc.first {
				t.Errorf("%d sources, %v", len(sources), err)
			}
		})
	}
}

func TestAddSource(t *testing.T) {
	for name, tc := range map[string]struct {
		subjects []string
		prefix   string
		change   func(*jetstream.StreamConfig)
		want     string // the prefix, or
		says     string // the refusal
	}{
		"one subject":           {[]string{"orders.>"}, "", nil, "orders", ""},
		"a deeper subject":      {[]string{"edge.metrics.>"}, "", nil, "edge.metrics", ""},
		"the prefix is given":   {[]string{"a.>", "b.>"}, "b", nil, "b", ""},
		"the prefix is missing": {[]string{"a.>", "b.>"}, "", nil, "", "--add-stream USERS="},
		"a prefix of others":    {[]string{"orders.>"}, "order", nil, "", "none is below order"},
		"a deeper prefix":       {[]string{"edge.*.>"}, "edge.metrics", nil, "edge.metrics", ""},
		"a shallower prefix":    {[]string{"edge.metrics.>"}, "edge", nil, "edge", ""},
		"nothing below":         {[]string{"a.b"}, "a.b", nil, "", "none is below a.b"},
		"no wildcard":           {[]string{"a.*"}, "", nil, "", "--add-stream USERS="},
		"not durable": {[]string{"a.>"}, "", func(c *jetstream.StreamConfig) {
			c.Storage = jetstream.MemoryStorage
		}, "", "storage"},
		"a work queue": {[]string{"a.>"}, "", func(c *jetstream.StreamConfig) {
			c.Retention = jetstream.WorkQueuePolicy
		}, "", "retention"},
	} {
		t.Run(name, func(t *testing.T) {
			js := dial(t, natstest.Start(t))
			stream := jetstream.StreamConfig{Name: "USERS", Subjects: tc.subjects, MaxAge: time.Hour}
			if tc.change != nil {
				tc.change(&stream)
			}
			if _, err := js.CreateStream(t.Context(), stream); err != nil {
				t.Fatal(err)
			}
			for range 2 { // the second time changes nothing
				err := AddSource(t.Context(), js, "USERS", tc.prefix, testConfig)
				if tc.says == "" && err != nil || tc.says != "" &&
					(!errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), tc.says)) {
					t.Fatalf("got %v, want %q", err, tc.says)
				}
			}
			sources, err := Sources(t.Context(), js)
			if err != nil || (tc.says == "") != (len(sources) == 1) {
				t.Fatalf("sources %+v, %v", sources, err)
			}
			if tc.says != "" {
				return
			}
			if s := sources[0]; s.Shard != 0 || s.Prefix != tc.want || s.Managed {
				t.Errorf("source %+v", s)
			}
			if err := AddSource(t.Context(), js, "USERS", "another", testConfig); !errors.Is(err, ErrRefused) {
				t.Errorf("another prefix: %v", err)
			}
			if _, err := Ensure(t.Context(), js, testConfig); err != nil {
				t.Fatal(err)
			}
			if sources, err := Sources(t.Context(), js); err != nil || len(sources) != 1 {
				t.Errorf("a system of users' streams got one of ours: %+v, %v", sources, err)
			}
		})
	}
	js := dial(t, natstest.Start(t))
	if err := AddSource(t.Context(), js, "NONE", "", testConfig); !errors.Is(err, ErrRefused) ||
		!strings.Contains(err.Error(), "NONE") {
		t.Errorf("a stream that is not there: %v", err)
	}
}

// TestAddedBesidePartitions: users' streams get the numbers after ours, and warn of subjects that hold no logs.
func TestAddedBesidePartitions(t *testing.T) {
	js := dial(t, natstest.Start(t))
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "USERS",
		Subjects: []string{"users.>", "other.*"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := Ensure(t.Context(), js, sharded(2)); err != nil {
		t.Fatal(err)
	}
	if err := AddSource(t.Context(), js, "USERS", "users", testConfig); err != nil {
		t.Fatal(err)
	}
	// Tenants that are spread must not be in a stream of their own too.
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "MINE",
		Subjects: []string{"logs.>"}}); err != nil {
		t.Fatal(err)
	}
	if err := AddSource(t.Context(), js, "MINE", "", testConfig); !errors.Is(err, ErrRefused) ||
		!strings.Contains(err.Error(), "MINE") {
		t.Errorf("a stream for what is spread over shards: %v", err)
	}
	warnings, err := Ensure(t.Context(), js, testConfig)
	if err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], "other.*") {
		t.Errorf("warnings %q, %v", warnings, err)
	}
	sources, err := Sources(t.Context(), js)
	if err != nil || len(sources) != 3 || sources[2].Stream != "USERS" || sources[2].Partitions != 0 {
		t.Errorf("sources %+v, %v", sources, err)
	}
}

// TestMappingSpreadsTenants publishes as tenants do through the mapping, and holds that the server's choice of the
// shard is the one that PartitionOf computes.
func TestMappingSpreadsTenants(t *testing.T) {
	const shards = 4
	srv := natstest.Start(t)
	js := dial(t, srv)
	if _, err := Ensure(t.Context(), js, sharded(shards)); err != nil {
		t.Fatal(err)
	}
	m := PartitionMapping(shards)
	if err := srv.GlobalAccount().AddMapping(m.From, m.To); err != nil {
		t.Fatal(err)
	}
	count := make(map[string]int)
	for i := range 200 {
		tenant := fmt.Sprintf("tenant-%d", i)
		ack, err := js.Publish(t.Context(), "logs."+tenant+".web.nginx", []byte("x"))
		if err != nil {
			t.Fatal(err)
		}
		shard := PartitionOf(tenant, shards)
		if ack.Stream != PartitionStream(shard) {
			t.Fatalf("%s went to %s, not to shard %s", tenant, ack.Stream, shard)
		}
		stream, err := js.Stream(t.Context(), ack.Stream)
		if err != nil {
			t.Fatal(err)
		}
		if msg, err := stream.GetMsg(t.Context(), ack.Sequence); err != nil ||
			msg.Subject != PartitionPrefix(shard)+"."+tenant+".web.nginx" {
			t.Fatalf("stored as %+v, %v", msg, err)
		}
		count[ack.Stream]++
	}
	for stream, n := range count {
		if n < 25 || n > 75 {
			t.Errorf("%s has %d of 200 tenants", stream, n)
		}
	}
}

// TestNumbersWithAnArchiveStayTheirs: the number of a shard whose stream was deleted is not given to a stream of
// somebody else.
func TestNumbersWithAnArchiveStayTheirs(t *testing.T) {
	js := dial(t, natstest.Start(t))
	if _, err := Ensure(t.Context(), js, sharded(2)); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), wire.ManifestSubject(2), []byte("a record")); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), wire.SystemSubject, []byte("no shard's")); err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "USERS",
		Subjects: []string{"orders.>"}}); err != nil {
		t.Fatal(err)
	}
	if err := AddSource(t.Context(), js, "USERS", "", testConfig); err != nil {
		t.Fatal(err)
	}
	sources, err := Sources(t.Context(), js)
	if err != nil {
		t.Fatal(err)
	}
	if last := sources[len(sources)-1]; last.Stream != "USERS" || last.Shard != 3 {
		t.Errorf("stream %s is shard %s, want 3: shard 2 has an archive", last.Stream, last.Shard)
	}
}

// TestPrefixOfWhatIsStored: what counts is what a stream stores, not what it listens to.
func TestPrefixOfWhatIsStored(t *testing.T) {
	arch := &jetstream.SubjectTransformConfig{Source: "edge.>", Destination: "arch.>"}
	sources := []*jetstream.StreamSource{{Name: "ORIGIN",
		SubjectTransforms: []jetstream.SubjectTransformConfig{{Source: "o.>", Destination: "arch.>"}}}}
	for name, tc := range map[string]struct {
		stream jetstream.StreamConfig
		prefix string
		want   string // the prefix, or
		says   string // the refusal
	}{
		"found behind a transform": {jetstream.StreamConfig{Subjects: []string{"edge.>"}, SubjectTransform: arch}, "",
			"arch", ""},
		"said behind a transform": {jetstream.StreamConfig{Subjects: []string{"edge.>"}, SubjectTransform: arch}, "arch",
			"arch", ""},
		"what it listens to": {jetstream.StreamConfig{Subjects: []string{"edge.>"}, SubjectTransform: arch}, "edge",
			"", "none is below edge"},
		"found behind sources":       {jetstream.StreamConfig{Sources: sources}, "", "arch", ""},
		"what the sources listen to": {jetstream.StreamConfig{Sources: sources}, "o", "", "none is below o"},
		"sources that nobody knows": {jetstream.StreamConfig{Sources: []*jetstream.StreamSource{{Name: "NONE"}}}, "edge",
			"edge", ""},
		"unknown, and no prefix": {jetstream.StreamConfig{Sources: []*jetstream.StreamSource{{Name: "NONE"}}}, "", "",
			"--add-stream USERS="},
		"a mirror": {jetstream.StreamConfig{Mirror: &jetstream.StreamSource{Name: "ORIGIN"}}, "o", "",
			"mirror of ORIGIN"},
		"a prefix with a wildcard":    {jetstream.StreamConfig{Subjects: []string{"edge.>"}}, "edge.*", "", "no prefix"},
		"a prefix that is no subject": {jetstream.StreamConfig{Subjects: []string{"edge.>"}}, "edge.", "", "no prefix"},
		"one token is no log": {jetstream.StreamConfig{Subjects: []string{"edge.*"}}, "edge", "",
			"none is below edge"},
	} {
		t.Run(name, func(t *testing.T) {
			js := dial(t, natstest.Start(t))
			tc.stream.Name = "USERS"
			for _, c := range []jetstream.StreamConfig{{Name: "ORIGIN", Subjects: []string{"o.>"}}, tc.stream} {
				if _, err := js.CreateStream(t.Context(), c); err != nil {
					t.Fatal(err)
				}
			}
			err := AddSource(t.Context(), js, "USERS", tc.prefix, testConfig)
			if tc.says == "" && err != nil || tc.says != "" &&
				(!errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), tc.says)) {
				t.Fatalf("got %v, want %q", err, tc.says)
			}
			sources, err := Sources(t.Context(), js)
			if err != nil || tc.says == "" && (len(sources) != 1 || sources[0].Prefix != tc.want) {
				t.Errorf("sources %+v, %v", sources, err)
			}
		})
	}
}

// TestLogsThatAreStoredElsewhere: a stream LOGS whose transform takes its entries away is not taken for one of logs.>.
func TestLogsThatAreStoredElsewhere(t *testing.T) {
	js := dial(t, natstest.Start(t))
	_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: wire.DefaultSource, Subjects: []string{"logs.>"},
		SubjectTransform: &jetstream.SubjectTransformConfig{Source: "logs.>", Destination: "arch.>"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Ensure(t.Context(), js, testConfig); !errors.Is(err, ErrRefused) ||
		!strings.Contains(err.Error(), "arch.>") {
		t.Fatalf("got %v", err)
	}
	if err := AddSource(t.Context(), js, wire.DefaultSource, "", testConfig); err != nil {
		t.Fatal(err)
	}
	if warnings, err := Ensure(t.Context(), js, testConfig); err != nil || len(warnings) > 0 {
		t.Errorf("warnings %q, %v", warnings, err)
	}
}

// TestWrongPrefixIsPutRight: a stream whose messages were all rejected gets another prefix, and a number under which it
// is read from its beginning. One that may have had a log keeps its prefix.
func TestWrongPrefixIsPutRight(t *testing.T) {
	js := dial(t, natstest.Start(t))
	stream := jetstream.StreamConfig{Name: "EDGE", Subjects: []string{"edge.>", "other.>"}}
	if _, err := js.CreateStream(t.Context(), stream); err != nil {
		t.Fatal(err)
	}
	archived := false
	cfg := testConfig
	cfg.HasArchive = func(context.Context, shardid.Shard) (bool, error) { return archived, nil }
	if err := AddSource(t.Context(), js, "EDGE", "other", cfg); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), "edge.acme.web", nil); err != nil {
		t.Fatal(err)
	}
	warnings, err := Ensure(t.Context(), js, cfg)
	if all := strings.Join(warnings, "\n"); err != nil || !strings.Contains(all, "--add-stream EDGE=PREFIX") ||
		!strings.Contains(all, `"edge.acme.web"`) {
		t.Errorf("warnings %q, %v", warnings, err)
	}
	if _, err := js.Publish(t.Context(), wire.ManifestSubject(0), []byte("a claim")); err != nil {
		t.Fatal(err)
	}
	refused := func(what string, cfg Config, prefix string) {
		t.Helper()
		if err := AddSource(t.Context(), js, "EDGE", prefix, cfg); !errors.Is(err, ErrRefused) ||
			!strings.Contains(err.Error(), "prefix "+prefix) {
			t.Errorf("%s: %v", what, err)
		}
	}
	archived = true
	refused("with an archive", cfg, "edge")
	archived = false
	refused("when nobody can tell", testConfig, "edge")
	if err := AddSource(t.Context(), js, "EDGE", "edge", cfg); err != nil {
		t.Fatal(err)
	}
	sources, err := Sources(t.Context(), js)
	if err != nil || len(sources) != 1 || sources[0].Prefix != "edge" || sources[0].Shard != 1 {
		t.Errorf("sources %+v, %v", sources, err)
	}
	refused("with a log in the stream", cfg, "other")
}
