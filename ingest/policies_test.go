package ingest

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"dormouse/ingest/shard"
	"dormouse/internal/policy"
	"dormouse/internal/wire"
	"dormouse/store/policies"
)

// TestPoliciesReachTheOwners: what is settled while a node runs says how long its logs wait, and what they are kept.
func TestPoliciesReachTheOwners(t *testing.T) {
	s := newSystem(t)
	n := s.start("a", t.TempDir(), func(c *Config) { c.MaxDelay = time.Hour })
	bucket, err := policies.Open(t.Context(), s.JS)
	if err != nil {
		t.Fatal(err)
	}
	set := func(pattern policy.Pattern, p policy.Policy) {
		t.Helper()
		if err := bucket.Set(t.Context(), policy.Rule{Pattern: pattern, Policy: p}, "", 0); err != nil {
			t.Fatal(err)
		}
	}
	s.Publish("logs.acme.web", "x")
	s.Publish("logs.globex.web", "x")
	s.Until("the entries", func() bool { return n.metric("dormouse_logs_active") == 2 })
	set("acme.>", policy.Policy{MaxDelay: 100 * time.Millisecond, Keep: policy.Forever})
	set("*.web", policy.Policy{Keep: time.Hour})
	set(">", policy.Policy{Keep: 2 * time.Hour})
	want := []shard.Keep{{Logs: "*.web", For: time.Hour, Except: []string{"acme.>"}},
		{Logs: ">", For: 2 * time.Hour, Except: []string{"acme.>", "*.web"}}}
	s.Until("the keeps", func() bool { return reflect.DeepEqual(n.node.keeps(), want) })
	s.Until("the log of the policy to be queued", func() bool { return n.metric("dormouse_logs_queued") == 1 })
	if got := n.metric("dormouse_policies"); got != 3 {
		t.Errorf("dormouse_policies is %v", got)
	}
}

// TestWhatDoesNotExpireIsRemarked, by who owns the shard.
func TestWhatDoesNotExpireIsRemarked(t *testing.T) {
	s := newShardStates()
	s.set(3, shardStatus{state: wire.ShardOwned, progress: &shard.Progress{}})
	s.advance(3).Expires(errors.New("no room"))
	if lines := s.remarks(); len(lines) != 1 || !strings.Contains(lines[0], "shard 3") ||
		!strings.Contains(lines[0], "no room") {
		t.Errorf("it remarks %q", lines)
	}
	s.set(3, shardStatus{state: wire.ShardClaiming, progress: &shard.Progress{}})
	if lines := s.remarks(); len(lines) > 0 {
		t.Errorf("of a shard that it does not own it remarks %q", lines)
	}
}
