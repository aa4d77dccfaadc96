package policy

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

func TestPolicyIsValidated(t *testing.T) {
	for text, p := range map[string]Policy{
		"settles nothing": {}, "keep is 1ms": {Keep: time.Millisecond}, "forever": {Keep: MaxKeep + 1},
		"max-delay is 1ms": {MaxDelay: time.Millisecond}, "31d": {MaxDelay: MaxMaxDelay + 1},
		"keep is -1s": {Keep: -time.Second}, "max-delay is -1s": {MaxDelay: -time.Second},
		"max-bytes": {MaxBytes: MaxSize + 1}, "keep-bytes": {KeepBytes: MaxSize + 1}, "rate": {Rate: MaxRate + 1},
	} {
		if err := p.Validate(); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), text) {
			t.Errorf("%+v: %v, want %q", p, err, text)
		}
	}
	for _, p := range []Policy{{Keep: Forever}, {Keep: MinKeep}, {Keep: MaxKeep}, {MaxDelay: MinMaxDelay},
		{MaxDelay: MaxMaxDelay}, {MaxBytes: 1}, {KeepBytes: MaxSize}, {Rate: MaxRate}} {
		if err := p.Validate(); err != nil {
			t.Errorf("%+v: %v", p, err)
		}
	}
}

func TestParsePattern(t *testing.T) {
	for _, good := range []string{">", "*.>", "acme.>", "acme.*", "*.*", "acme.web", "acme.*.nginx.>", "ä.ö", "a.=2A",
		strings.Repeat("a.", MaxTokens-1) + ">", "a." + strings.Repeat("x", 254)} {
		if p, err := ParsePattern(good); err != nil || string(p) != good {
			t.Errorf("%q: %q, %v", good, p, err)
		}
	}
	for bad, text := range map[string]string{
		"": "empty", "acme": "is acme.> meant?", "*": "two at least", "acme.": "empty token", ".acme": "empty token",
		"acme..web": "empty token", "acme.>.web": "goes on behind >", ">.>": "goes on behind >", "acme.web*": "whole tokens",
		"acme.a>": "whole tokens", "acme.we b": "white space", "acme.\xff": "UTF-8", "a.\x00": "control",
		strings.Repeat("a.", MaxTokens) + ">": "tokens", "a." + strings.Repeat("x", 255): "bytes long",
	} {
		if p, err := ParsePattern(bad); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), text) || p != "" {
			t.Errorf("%q: %q, %v, want %q", bad, p, err, text)
		}
	}
}

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		pattern, log string
		want         bool
	}{
		{">", "a.b", true}, {"a.>", "a.b", true}, {"a.>", "a.b.c.d", true}, {"a.>", "b.b", false}, {"a.>", "ab.c", false},
		{"a.*", "a.b", true}, {"a.*", "a.b.c", false}, {"*.b", "a.b", true}, {"*.b", "a.b.c", false}, {"a.b", "a.b", true},
		{"a.b", "a.b.c", false}, {"a.b.c", "a.b", false}, {"a.b.>", "a.b", false}, {"*.*.c", "a.b.c", true},
		{"*.*.c", "a.b", false}, {"*.>", "a.b", true},
	} {
		if got := Pattern(c.pattern).Matches(c.log); got != c.want {
			t.Errorf("%s matches %s: %v", c.pattern, c.log, got)
		}
	}
}

func TestDurations(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"30d": 30 * day, "2w": 14 * day, "1w2d3h": 9*day + 3*time.Hour, "90s": 90 * time.Second, "1d1m": day + time.Minute,
		"1m30s": 90 * time.Second, "720h": 30 * day, "0d": 0,
	} {
		if got, err := ParseDuration(text); err != nil || got != want {
			t.Errorf("%q is %s, %v", text, got, err)
		}
	}
	for _, bad := range []string{"", "30", "d", "-1d", "1d-1h", "-1h", "1.5d", "1d2w", "+1d", "99999999999999999999d",
		"4000000000w", "106752d", "106751d999h", "1d 2h", "forever"} {
		if got, err := ParseDuration(bad); err == nil {
			t.Errorf("%q is %s", bad, got)
		}
	}
	for want, d := range map[string]time.Duration{
		"30d": 30 * day, "1d": day, "2d12h": 60 * time.Hour, "1m": time.Minute, "1h": time.Hour, "1m30s": 90 * time.Second,
		"1h0m5s": time.Hour + 5*time.Second, "10ms": 10 * time.Millisecond, "forever": Forever, "0s": 0,
		"2d1m": 2*day + time.Minute,
	} {
		if got := FormatDuration(d); got != want {
			t.Errorf("%s is %q, want %q", d, got, want)
		}
	}
}

// TestFormatParses: what is written is read back, to the nanosecond.
func TestFormatParses(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 10_000 {
		d := time.Duration(r.Int64N(int64(MaxKeep)))
		for _, unit := range []time.Duration{1, time.Second, time.Minute, time.Hour, day} {
			d := d.Truncate(unit)
			if got, err := ParseDuration(FormatDuration(d)); err != nil || got != d {
				t.Fatalf("%d is %s, which is %d, %v", d, FormatDuration(d), got, err)
			}
		}
	}
}

// TestKeys: every pattern has one key, which NATS permits.
func TestKeys(t *testing.T) {
	for pattern, want := range map[string]string{
		">": "=3E", "iot.*.>": "iot.=2A.=3E", "acme.web-1_x": "acme.web-1_x", "a.=2A": "a.=3D2A", "a./": "a.=2F",
		"a.ö": "a.=C3=B6",
	} {
		if got := Pattern(pattern).Key(); got != want {
			t.Errorf("%s has key %s, want %s", pattern, got, want)
		}
		if p, err := ParseKey(want); err != nil || string(p) != pattern {
			t.Errorf("%s is the key of %q, %v", want, p, err)
		}
	}
	for _, bad := range []string{"", "=", "=2", "a.=3", "a.=3e", "a.=61", "acme", "a.b=", "a.*", "=2A", "a.=GG"} {
		if p, err := ParseKey(bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q is the key of %q, %v", bad, p, err)
		}
	}
}
