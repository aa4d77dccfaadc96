package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"dormouse/internal/policy"
	"dormouse/internal/wire"
)

// TestPolicyCommands: what is set is shown; settings that are not given stay; what was removed is shown on demand.
func TestPolicyCommands(t *testing.T) {
	s := newSkipping(t)
	set := func(code int, says string, args ...string) {
		t.Helper()
		s.skip(code, says, append([]string{"policy"}, args...)...)
	}
	set(exitOK, "PATTERN", "ls")
	set(exitOK, "iot.*.>: max-delay 1m, max-bytes 4MiB, rate 1000", "set", "iot.*.>", "--max-delay", "60s", "--max-bytes",
		"4MiB", "--rate", "1000")
	set(exitOK, "iot.*.>: keep 30d, max-delay 1m, max-bytes 4MiB, rate 1000", "set", "iot.*.>", "--keep", "30d", "--yes")
	set(exitOK, "iot.*.>: keep 30d, max-delay 1m, max-bytes 4MiB", "set", "iot.*.>", "--rate", "default")
	set(exitOK, ">: keep forever", "set", ">", "--keep", "forever")
	for args, says := range map[string]string{
		"set iot.*.>": "nothing to settle", "set iot --rate 1": "is iot.> meant?", "set a.b --keep 30": `"30" is no duration`,
		"set a.b --keep 0s": "no duration", "set a.b --max-delay forever": "no duration", "set a.b --max-bytes x": "no size",
		"set a.b --rate -1": "no number", "set a.b --rate 0": "positive", "set a.b --max-delay 32d": "10ms to 31d",
		"set a.b --max-delay 1ms": "10ms to 31d", "set a.b --keep default": "policy rm", "rm a": "is a.> meant?",
		"ls a": "no log token", "set a.b --keep-bytes 1GiB": "unknown flag", "rm": "arg", "set": "arg",
	} {
		set(exitUsage, says, strings.Fields(args)...)
	}
	set(exitFailed, "there is no policy of a.b", "rm", "a.b")

	got := command(t.Context(), nil, "policy", "ls", "--output", "json", "iot.a.b", "--nats-url", s.srv.ClientURL())
	var report policyReport
	if err := json.Unmarshal([]byte(got.out), &report); err != nil || strings.Contains(got.out, `\u003e`) {
		t.Fatalf("%v: %s", err, got.out)
	}
	want := policyWords{Keep: "30d", MaxDelay: "1m", MaxBytes: 4 << 20}
	if len(report.Policies) != 2 || report.Policies[0].policyWords != want || report.Policies[0].By != whoAsks() ||
		*report.Effective != want || report.Policies[1].Pattern != ">" {
		t.Errorf("%+v", report)
	}
	set(exitOK, "iot.a.b: keep 30d, max-delay 1m, max-bytes 4MiB", "ls", "iot.a.b")
	set(exitOK, "a.b: keep forever", "ls", "a.b")
	set(exitOK, "removed", "rm", "iot.*.>")
	got = command(t.Context(), nil, "policy", "ls", "--nats-url", s.srv.ClientURL())
	if strings.Contains(got.out, "iot") {
		t.Errorf("removed and listed: %s", got.out)
	}
	set(exitOK, "removed", "ls", "--history")
}

// TestPolicyThatExpiresAsks: without --yes nothing is done that lets entries expire which are there now.
func TestPolicyThatExpiresAsks(t *testing.T) {
	s := newSkipping(t)
	all := func() string {
		got := command(t.Context(), nil, "policy", "ls", "--output", "json", "--nats-url", s.srv.ClientURL())
		var report policyReport
		if err := json.Unmarshal([]byte(got.out), &report); err != nil {
			t.Fatal(err, got)
		}
		var lines []string
		for _, p := range report.Policies {
			lines = append(lines, p.Pattern+" "+p.Keep)
		}
		return strings.Join(lines, ", ")
	}
	steps := []struct {
		args string
		asks string // what the question has
		then string // the policies
	}{
		{"set > --max-delay 1m", "", "> "},
		{"set > --keep 60d", "entries older than 60d expire", "> 60d"},
		{"set > --keep 90d", "", "> 90d"},
		{"set > --keep 30d", "entries older than 30d expire", "> 30d"},
		{"set acme.> --keep forever", "", "acme.> forever, > 30d"},
		{"set acme.> --rate 5", "", "acme.> forever, > 30d"},
		{"set *.* --keep 20d", "entries older than 20d expire", "acme.> forever, *.* 20d, > 30d"},
		{"set acme.> --keep default", "as *.* says", "acme.> , *.* 20d, > 30d"},
		{"set acme.> --rate 6", "", "acme.> , *.* 20d, > 30d"},
		{"rm acme.>", "", "*.* 20d, > 30d"},
		{"rm *.*", "", "> 30d"},
		{"set b.c --keep 40d", "entries older than 40d expire", "b.c 40d, > 30d"},
		{"rm b.c", "entries older than 30d expire, as > says", "> 30d"},
		{"set b.c --keep 5d", "entries older than 5d expire", "b.c 5d, > 30d"},
		{"rm >", "", "b.c 5d"},
		{"rm b.c", "", ""},
	}
	for _, step := range steps {
		before, args := all(), append([]string{"policy"}, strings.Fields(step.args)...)
		if step.asks != "" {
			s.skip(exitFailed, step.asks, args...)
			s.skip(exitFailed, "give --yes", args...)
			if now := all(); now != before {
				t.Errorf("%s, not confirmed: %s became %s", step.args, before, now)
			}
			args = append(args, "--yes")
		}
		if s.skip(exitOK, "", args...); all() != step.then {
			t.Errorf("after %s there are %q, want %q", step.args, all(), step.then)
		}
	}
}

// TestPolicyOfANewerVersion is shown, and replaced on demand only.
func TestPolicyOfANewerVersion(t *testing.T) {
	s := newSkipping(t)
	kv, err := s.js.KeyValue(t.Context(), wire.PolicyBucket)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.PutString(t.Context(), policy.Pattern("a.>").Key(), `{"version":2}`); err != nil {
		t.Fatal(err)
	}
	s.skip(exitOK, "newer version", "policy", "ls")
	s.skip(exitFailed, "all that it says is lost", "policy", "set", "a.>", "--rate", "1")
	s.skip(exitFailed, "all that it says is lost", "policy", "rm", "a.>")
	s.skip(exitOK, "a.>: rate 1", "policy", "set", "a.>", "--rate", "1", "--yes")
}

// TestPolicyWithoutSystem says what to do.
func TestPolicyWithoutSystem(t *testing.T) {
	_, url := startNATS(t)
	if got := command(t.Context(), nil, "policy", "ls", "--nats-url", url); got.code != exitFailed ||
		!strings.Contains(got.errors, "dormouse provision") {
		t.Errorf("%+v", got)
	}
}

// TestPolicySettingsAreOfTheLine: what serve has from the environment or the file is no policy.
func TestPolicySettingsAreOfTheLine(t *testing.T) {
	s := newSkipping(t)
	file := filepath.Join(t.TempDir(), "dormouse.yaml")
	if err := os.WriteFile(file, []byte("max-delay: 1s\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("DORMOUSE_CONFIG", file)
	t.Setenv("DORMOUSE_MAX_BYTES", "4MiB")
	s.skip(exitOK, "a.>: rate 1\n", "policy", "set", "a.>", "--rate", "1")
	if err := os.WriteFile(file, []byte("rate: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.skip(exitUsage, `unknown key "rate"`, "policy", "ls")
}

func TestPatternsAreCompleted(t *testing.T) {
	s := newSkipping(t)
	for _, pattern := range []string{"iot.*.>", "iot.a.b", ">"} {
		s.skip(exitOK, "", "policy", "set", pattern, "--rate", "1")
	}
	t.Setenv("DORMOUSE_NATS_URL", s.srv.ClientURL())
	for begun, want := range map[string][]string{"": {"iot.a.b", "iot.*.>", ">"}, "iot.*": {"iot.*.>"}, "x": nil} {
		got := command(t.Context(), nil, "__complete", "policy", "rm", begun)
		lines := strings.Split(got.out, "\n:")
		if text := strings.Join(want, "\n"); got.code != exitOK || strings.TrimPrefix(lines[0], ":4\n") != text &&
			!(len(want) == 0 && strings.HasPrefix(got.out, ":")) {
			t.Errorf("%q is completed to %q, want %q", begun, got.out, want)
		}
	}
	t.Setenv("DORMOUSE_NATS_URL", "nats://127.0.0.1:1")
	if got := command(t.Context(), nil, "__complete", "policy", "rm", ""); got.code != exitOK ||
		!strings.HasPrefix(got.out, ":") {
		t.Errorf("without NATS: %+v", got)
	}
}

// TestPoliciesAreBounded: one more than there may be is refused, and the others can be changed.
func TestPoliciesAreBounded(t *testing.T) {
	s := newSkipping(t)
	for i := range policy.MaxPatterns {
		pattern := policy.Pattern(fmt.Sprintf("t%d.x", i))
		data, err := policy.Encode(policy.Rule{Pattern: pattern, Policy: policy.Policy{Rate: 1}}, "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.js.PublishAsync("$KV."+wire.PolicyBucket+"."+pattern.Key(), data); err != nil {
			t.Fatal(err)
		}
		if i%1000 == 999 {
			<-s.js.PublishAsyncComplete()
		}
	}
	s.skip(exitFailed, "the limit is 10000", "policy", "set", "one.more", "--rate", "1")
	s.skip(exitOK, "t7.x: rate 2", "policy", "set", "t7.x", "--rate", "2")
	got := command(t.Context(), nil, "policy", "ls", "t7.x", "--nats-url", s.srv.ClientURL())
	if got.code != exitOK || !slices.Contains(strings.Split(got.out, "\n"), "t7.x: rate 2") {
		t.Errorf("%+v", got)
	}
}
