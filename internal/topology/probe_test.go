package topology

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/natstest"
)

// TestProbeTenants tries mappings as operators write them, right and wrong. No probe leaves anything behind.
func TestProbeTenants(t *testing.T) {
	const shards = 3
	right := PartitionMapping(shards)
	for name, tc := range map[string]struct {
		to      string // "" is no mapping
		says    []string
		follows bool // only who listens sees it
	}{
		"right":             {to: right.To},
		"none":              {to: "", says: []string{"nothing takes", "lacks the subject mapping", right.From, right.To}},
		"of another number": {to: PartitionMapping(shards - 1).To, says: []string{"has to go to", right.To}},
		"all to one": {to: "dormouse.shard.0.{{wildcard(1)}}.>",
			says: []string{`goes to stream "DORMOUSE_LOGS_0", and has to go to`}},
		"to nowhere": {to: "dormouse.shards.{{partition(3,1)}}.{{wildcard(1)}}.>", says: []string{"nothing takes"}},
		"with another subject": {to: "dormouse.shard.{{partition(3,1)}}.tenant.{{wildcard(1)}}.>",
			says: []string{"arrives", "has to arrive as"}, follows: true},
	} {
		t.Run(name, func(t *testing.T) {
			srv := natstest.Start(t)
			nc, js := natstest.Dial(t, srv)
			if _, err := Ensure(t.Context(), js, Config{Shards: shards, RequeueAfter: time.Minute,
				Lease: 10 * time.Second}); err != nil {
				t.Fatal(err)
			}
			if tc.to != "" {
				if err := srv.GlobalAccount().AddMapping(right.From, tc.to); err != nil {
					t.Fatal(err)
				}
			}
			sources, err := Sources(t.Context(), js)
			if err != nil {
				t.Fatal(err)
			}
			for _, follow := range []bool{true, false} {
				problems, err := ProbeTenants(t.Context(), nc, sources, shards, follow)
				if err != nil {
					t.Fatal(err)
				}
				seen := len(tc.says) > 0 && (follow || !tc.follows)
				if seen != (len(problems) > 0) {
					t.Errorf("follow %t: %q", follow, problems)
				}
				for _, part := range tc.says {
					if seen && !strings.Contains(strings.Join(problems, "\n"), part) {
						t.Errorf("follow %t: %q does not say %q", follow, problems, part)
					}
				}
			}
			for _, s := range sources {
				stream, err := js.Stream(t.Context(), s.Stream)
				if err != nil {
					t.Fatal(err)
				}
				if state := stream.CachedInfo().State; state.LastSeq != 0 {
					t.Errorf("the probes left %d messages in %s", state.LastSeq, s.Stream)
				}
			}
		})
	}
}

// TestProbeOneStream: a system of one stream is probed too, and of users' streams alone nothing is.
func TestProbeOneStream(t *testing.T) {
	srv := natstest.Start(t)
	nc, js := natstest.Dial(t, srv)
	cfg := Config{RequeueAfter: time.Minute, Lease: 10 * time.Second}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "ORDERS",
		Subjects: []string{"orders.>"}}); err != nil {
		t.Fatal(err)
	}
	if err := AddSource(t.Context(), js, "ORDERS", "", cfg); err != nil {
		t.Fatal(err)
	}
	probe := func() []string {
		t.Helper()
		sources, err := Sources(t.Context(), js)
		if err != nil {
			t.Fatal(err)
		}
		problems, err := ProbeTenants(t.Context(), nc, sources, MaxShards, true)
		if err != nil {
			t.Fatal(err)
		}
		return problems
	}
	if problems := probe(); len(problems) > 0 {
		t.Errorf("of a user's stream: %q", problems)
	}
	cfg.Shards = 1
	if _, err := Ensure(t.Context(), js, cfg); err != nil {
		t.Fatal(err)
	}
	if problems := probe(); len(problems) > 0 {
		t.Errorf("of one stream: %q", problems)
	}
	if err := srv.GlobalAccount().AddMapping("logs.*.>", "orders.{{wildcard(1)}}.>"); err != nil {
		t.Fatal(err)
	}
	if problems := probe(); len(problems) != 1 || !strings.Contains(problems[0],
		`goes to stream "ORDERS", and has to go to LOGS`) {
		t.Errorf("of a stream that another one robs: %q", problems)
	}
}

// TestCheckMakesNothing: what is missing is told, and stays missing.
func TestCheckMakesNothing(t *testing.T) {
	srv := natstest.Start(t)
	_, js := natstest.Dial(t, srv)
	names := func() (all []string) {
		list := js.StreamNames(t.Context())
		for name := range list.Name() {
			all = append(all, name)
		}
		return all
	}
	_, _, problems, err := Check(t.Context(), js, Config{})
	if err != nil || len(names()) > 0 {
		t.Fatalf("%v, and made %v", err, names())
	}
	for _, what := range []string{"DORMOUSE_SYNCQUEUE", "DORMOUSE_MERGES", "DORMOUSE_MANIFEST", "DORMOUSE_REJECTED",
		"DORMOUSE_LEASES", "DORMOUSE_POLICIES", "no source stream"} {
		if !strings.Contains(strings.Join(problems, "\n"), what) {
			t.Errorf("%q does not say that %s is missing", problems, what)
		}
	}
	if _, err := Ensure(t.Context(), js, Config{Shards: 3, RequeueAfter: time.Minute,
		Lease: 10 * time.Second}); err != nil {
		t.Fatal(err)
	}
	sources, _, problems, err := Check(t.Context(), js, Config{})
	if err != nil || len(problems) > 0 || len(sources) != 3 {
		t.Fatalf("of a whole system: %v, %q, %v", sources, problems, err)
	}
	if _, _, problems, err = Check(t.Context(), js,
		Config{Shards: 4, RequeueAfter: time.Hour, Lease: time.Hour}); err != nil || len(problems) != 3 {
		t.Errorf("with other flags: %q, %v", problems, err)
	}
	if err := js.DeleteStream(t.Context(), "DORMOUSE_LOGS_1"); err != nil {
		t.Fatal(err)
	}
	if _, _, problems, err = Check(t.Context(), js, Config{}); err != nil || len(problems) != 1 ||
		!strings.Contains(problems[0], "DORMOUSE_LOGS_1") {
		t.Errorf("without a shard: %q, %v", problems, err)
	}
	stream, err := js.Stream(t.Context(), "DORMOUSE_LOGS_2")
	if err != nil {
		t.Fatal(err)
	}
	cfg := stream.CachedInfo().Config
	cfg.MaxAge = time.Hour
	if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if _, warnings, _, err := Check(t.Context(), js, Config{}); err != nil || len(warnings) != 1 ||
		!strings.Contains(warnings[0], "max_age") {
		t.Errorf("of a stream with a limit: %q, %v", warnings, err)
	}
}
