package policy

import (
	"errors"
	"strings"
	"testing"
	"time"

	"dormouse/internal/golden"
)

var full = Rule{"iot.*.>", Policy{Keep: 30 * day, KeepBytes: 10 << 30, MaxDelay: time.Minute, MaxBytes: 4 << 20,
	Rate: 1000}}

// TestFormIsKept: what a version before this one has written can be read.
func TestFormIsKept(t *testing.T) {
	data, err := Encode(full, "ann@host")
	if err != nil {
		t.Fatal(err)
	}
	data = golden.Bytes(t, "policy", data)
	p, by, err := Decode(full.Pattern, data)
	if err != nil || p != full.Policy || by != "ann@host" {
		t.Errorf("%+v, %q, %v", p, by, err)
	}
}

func TestDecodeRefuses(t *testing.T) {
	for text, data := range map[string]string{
		"invalid character": `{x`, "unexpected end": ``, "never was": `{"pattern":"a.>","rate":1}`,
		"version 2": `{"version":2,"pattern":"a.>","colour":"red"}`, "colour": `{"version":1,"pattern":"a.>","colour":"red"}`,
		`one of "b.>"`: `{"version":1,"pattern":"b.>","rate":1}`, "settles nothing": `{"version":1,"pattern":"a.>"}`,
		`"30"`:             `{"version":1,"pattern":"a.>","keep":"30"}`,
		`"forever"`:        `{"version":1,"pattern":"a.>","max_delay":"forever"}`,
		"max-delay is 60d": `{"version":1,"pattern":"a.>","max_delay":"60d"}`,
		`"0s"`:             `{"version":1,"pattern":"a.>","keep":"0s"}`,
		"limit":            `{"version":1,"pattern":"a.>","by":"` + strings.Repeat("x", MaxValue) + `"}`,
		"after":            `{"version":1,"pattern":"a.>","rate":1}{}`,
	} {
		p, _, err := Decode("a.>", []byte(data))
		if err == nil || !strings.Contains(err.Error(), text) || p != (Policy{}) {
			t.Errorf("%s: %+v, %v, want %q", data, p, err, text)
		}
		if errors.Is(err, ErrNewer) != (text == "version 2") {
			t.Errorf("%s is newer: %v", data, err)
		}
	}
}

func TestEncodeRefusesAndCuts(t *testing.T) {
	if _, err := Encode(Rule{"a.>", Policy{}}, ""); err == nil {
		t.Error("a policy that settles nothing was written")
	}
	data, err := Encode(full, strings.Repeat("ö", 1000))
	if err != nil || len(data) > MaxValue {
		t.Fatalf("%d bytes, %v", len(data), err)
	}
	if _, by, err := Decode(full.Pattern, data); err != nil || len(by) > 2*maxBy {
		t.Errorf("%q, %v", by, err)
	}
}

func FuzzDecode(f *testing.F) {
	data, err := Encode(full, "ann@host")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"version":1,"pattern":"iot.*.>","keep":"forever"}`))
	f.Add([]byte(`{"version":2,"pattern":"iot.*.>"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, by, err := Decode(full.Pattern, data)
		if err != nil {
			return
		}
		again, err := Encode(Rule{full.Pattern, p}, by)
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		if q, _, err := Decode(full.Pattern, again); err != nil || q != p {
			t.Fatalf("%+v became %+v, %v", p, q, err)
		}
	})
}

func FuzzPattern(f *testing.F) {
	for _, s := range []string{">", "iot.*.>", "a.b", "*", "a.b*", "a.=2A", "ä.*", "..", "a.>.b"} {
		f.Add(s, "iot.x.y")
	}
	f.Fuzz(func(t *testing.T, s, log string) {
		p, err := ParsePattern(s)
		if err != nil {
			return
		}
		if q, err := ParseKey(p.Key()); err != nil || q != p {
			t.Fatalf("%q has key %q, which is %q, %v", p, p.Key(), q, err)
		}
		set, err := NewSet(map[Pattern]Policy{p: {Rate: 1}})
		if err != nil {
			t.Fatal(err)
		}
		if found := set.Lookup(log).Rate == 1; found != p.Matches(log) {
			t.Fatalf("%q matches %q: %v, and is found: %v", p, log, p.Matches(log), found)
		}
		if Compare(p, p) != 0 || !Overlaps(p, p) || Compare(p, ">") > 0 {
			t.Fatalf("%q does not compare", p)
		}
	})
}

func FuzzKey(f *testing.F) {
	for _, s := range []string{"=3E", "iot.=2A.=3E", "a.b", "=", "a.=2", "a.=61"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, key string) {
		if p, err := ParseKey(key); err == nil && p.Key() != key {
			t.Fatalf("%q is read as %q, whose key is %q", key, p, p.Key())
		}
	})
}
