package policy

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func newSet(t testing.TB, policies map[Pattern]Policy) *Set {
	t.Helper()
	s, err := NewSet(policies)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestBestMatch: compared token by token from the left, a literal comes before *, and * before >.
func TestBestMatch(t *testing.T) {
	order := []Pattern{"acme.web.a", "acme.web.*", "acme.web.>", "acme.*.a", "acme.*.*", "acme.*.>", "acme.>",
		"*.web.a", "*.web.>", "*.*.a", "*.*.*", "*.>", ">"}
	if !slices.IsSortedFunc(order, Compare) {
		t.Error("the order is another one")
	}
	for i := range order {
		policies := make(map[Pattern]Policy)
		for j, p := range order[i:] {
			policies[p] = Policy{Rate: uint64(i + j + 1)}
		}
		if got := newSet(t, policies).Lookup("acme.web.a").Rate; got != uint64(i+1) {
			t.Errorf("of %v, number %d is taken", order[i:], got)
		}
	}
}

// TestSettingsComeFromTheBestMatchThatHasThem: what a narrow pattern leaves open is as a wider one has it, and Forever
// is how it says no.
func TestSettingsComeFromTheBestMatchThatHasThem(t *testing.T) {
	s := newSet(t, map[Pattern]Policy{
		">": {Keep: 365 * day, MaxDelay: time.Minute, MaxBytes: 7}, "iot.>": {MaxDelay: time.Hour, Rate: 5},
		"iot.*.audit": {Keep: Forever, KeepBytes: 9}, "acme.*": {MaxBytes: 8},
	})
	for log, want := range map[string]Policy{
		"iot.a.audit": {Keep: Forever, KeepBytes: 9, MaxDelay: time.Hour, MaxBytes: 7, Rate: 5},
		"iot.a.temp":  {Keep: 365 * day, MaxDelay: time.Hour, MaxBytes: 7, Rate: 5},
		"acme.web":    {Keep: 365 * day, MaxDelay: time.Minute, MaxBytes: 8},
		"acme.web.x":  {Keep: 365 * day, MaxDelay: time.Minute, MaxBytes: 7},
	} {
		if got := s.Lookup(log); got != want {
			t.Errorf("%s has %+v, want %+v", log, got, want)
		}
	}
	want := []Keep{{"iot.*.audit", Forever, nil}, {">", 365 * day, []Pattern{"iot.*.audit"}}}
	if got := s.Keeps(); !reflect.DeepEqual(got, want) {
		t.Errorf("the keeps are %v, want %v", got, want)
	}
}

// randomTokens are few, so that patterns meet.
func randomTokens(r *rand.Rand, n int, wild bool) string {
	tokens := make([]string, n)
	for i := range tokens {
		switch k := r.IntN(8); {
		case wild && k < 3:
			tokens[i] = anyToken
		case wild && k == 3 && i == n-1:
			tokens[i] = restToken
		default:
			tokens[i] = string(rune('a' + r.IntN(3)))
		}
	}
	return strings.Join(tokens, ".")
}

// TestModel compares a set with a plain loop over its rules, and the order of patterns with what an order must be.
func TestModel(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 3))
		policies := make(map[Pattern]Policy)
		for range r.IntN(60) {
			p, err := ParsePattern(randomTokens(r, 1+r.IntN(5), true))
			if err != nil {
				continue
			}
			one := Policy{}
			for one == (Policy{}) {
				one = Policy{Keep: time.Duration(r.IntN(3)) * time.Hour, KeepBytes: uint64(r.IntN(3)),
					MaxDelay: time.Duration(r.IntN(3)) * time.Minute, MaxBytes: uint64(r.IntN(3)), Rate: uint64(r.IntN(3))}
			}
			policies[p] = one
		}
		s := newSet(t, policies)
		for range 100 {
			log := randomTokens(r, 2+r.IntN(4), false)
			if got, want := s.Lookup(log), byLoop(t, policies, log); got != want {
				t.Fatalf("seed %d: %s has %+v, want %+v, of %v", seed, log, got, want, policies)
			}
		}
		for range 100 {
			log := randomTokens(r, 2+r.IntN(4), false)
			if got, want := byKeeps(t, s, log), byLoop(t, policies, log).Keep; got != want {
				t.Fatalf("seed %d: by the keeps %s is kept for %s, want %s, of %v", seed, log, got, want, policies)
			}
		}
		for a := range policies {
			for b := range policies {
				if c := Compare(a, b); (c == 0) != (a == b) || c > 0 != (Compare(b, a) < 0) {
					t.Fatalf("%s and %s compare as %d and %d", a, b, c, Compare(b, a))
				}
			}
		}
	}
}

// byKeeps finds the one keep that matches a log and does not except it.
func byKeeps(t *testing.T, s *Set, log string) (keep time.Duration) {
	t.Helper()
	for _, k := range s.Keeps() {
		excepted := slices.ContainsFunc(k.Except, func(p Pattern) bool { return p.Matches(log) })
		if !k.Pattern.Matches(log) || excepted {
			continue
		}
		if keep != 0 {
			t.Fatalf("two keeps hold for %s", log)
		}
		keep = k.Keep
	}
	return keep
}

// byLoop looks at every pattern, and has no order but what the words say of it.
func byLoop(t *testing.T, policies map[Pattern]Policy, log string) (want Policy) {
	better := func(a, b Pattern) bool { // of two that match
		x, y := strings.Split(string(a), "."), strings.Split(string(b), ".")
		for i := range min(len(x), len(y)) {
			if x[i] != y[i] {
				return y[i] == restToken || y[i] == anyToken && x[i] != restToken
			}
		}
		t.Fatalf("%s and %s are alike for %s", a, b, log)
		return false
	}
	best := func(has func(Policy) bool) (found Policy) {
		var of Pattern
		for pattern, p := range policies {
			if pattern.Matches(log) && has(p) && (of == "" || better(pattern, of)) {
				of, found = pattern, p
			}
		}
		return found
	}
	want.Keep = best(func(p Policy) bool { return p.Keep != 0 }).Keep
	want.KeepBytes = best(func(p Policy) bool { return p.KeepBytes != 0 }).KeepBytes
	want.MaxDelay = best(func(p Policy) bool { return p.MaxDelay != 0 }).MaxDelay
	want.MaxBytes = best(func(p Policy) bool { return p.MaxBytes != 0 }).MaxBytes
	want.Rate = best(func(p Policy) bool { return p.Rate != 0 }).Rate
	return want
}

// TestOverlaps against all logs there may be of few tokens.
func TestOverlaps(t *testing.T) {
	var logs []string
	for n := 2; n <= 4; n++ {
		for i := range 1 << n {
			var tokens []string
			for b := range n {
				tokens = append(tokens, string(rune('a'+i>>b&1)))
			}
			logs = append(logs, strings.Join(tokens, "."))
		}
	}
	r := rand.New(rand.NewPCG(5, 6))
	for range 5000 {
		a, errA := ParsePattern(strings.ReplaceAll(randomTokens(r, 1+r.IntN(4), true), "c", "b"))
		b, errB := ParsePattern(strings.ReplaceAll(randomTokens(r, 1+r.IntN(4), true), "c", "b"))
		if errA != nil || errB != nil {
			continue
		}
		want := slices.ContainsFunc(logs, func(l string) bool { return a.Matches(l) && b.Matches(l) })
		if Overlaps(a, b) != want || Overlaps(b, a) != want {
			t.Fatalf("%s and %s overlap: want %v", a, b, want)
		}
	}
}

func TestSetIsBounded(t *testing.T) {
	policies := make(map[Pattern]Policy)
	for i := range MaxPatterns {
		policies[Pattern(fmt.Sprintf("t%d.>", i))] = Policy{Rate: 1}
	}
	s := newSet(t, policies)
	if s.Len() != MaxPatterns {
		t.Errorf("%d patterns", s.Len())
	}
	if _, err := s.With("one.more", Policy{Rate: 1}); err == nil {
		t.Error("one more than the limit was taken")
	}
	if _, err := s.With("t1.>", Policy{Rate: 2}); err != nil {
		t.Error(err)
	}
	keeps := map[Pattern]Policy{">": {Rate: 1}}
	for i := range MaxKeeps {
		keeps[Pattern(fmt.Sprintf("t%d.>", i))] = Policy{Keep: day}
	}
	if _, err := newSet(t, keeps).With(">", Policy{Keep: Forever}); err == nil || !strings.Contains(err.Error(), "keep") {
		t.Errorf("one more keep than the limit: %v", err)
	}
	if _, err := NewSet(map[Pattern]Policy{"acme": {Rate: 1}}); err == nil {
		t.Error("a pattern that is none was taken")
	}
	if _, err := NewSet(map[Pattern]Policy{"acme.>": {}}); err == nil {
		t.Error("a policy that is none was taken")
	}
}

func TestWith(t *testing.T) {
	s, err := (*Set)(nil).With("a.>", Policy{Rate: 1})
	if err != nil {
		t.Fatal(err)
	}
	more, err := s.With("b.>", Policy{Rate: 2})
	if err != nil || more.Len() != 2 || s.Len() != 1 {
		t.Errorf("%v, %v, %v", more.Rules(), s.Rules(), err)
	}
	less, err := more.With("b.>", Policy{})
	if err != nil || !less.Equal(s) || more.Equal(s) || (*Set)(nil).Equal(s) {
		t.Errorf("%v, %v", less.Rules(), err)
	}
}

// manyPatterns is a set of as many patterns as there may be, half of them with wildcards, some of them for one log.
func manyPatterns(t testing.TB) *Set {
	policies := map[Pattern]Policy{">": {Keep: day}, "*.web.>": {MaxBytes: 5}, "*.*.nginx": {Rate: 4}}
	for i := 0; len(policies) < MaxPatterns-1; i++ {
		policies[Pattern(fmt.Sprintf("tenant%d.>", i))] = Policy{MaxDelay: time.Minute}
		policies[Pattern(fmt.Sprintf("tenant%d.*.nginx", i))] = Policy{KeepBytes: 3}
	}
	return newSet(t, policies)
}

func TestLookupAllocatesNothing(t *testing.T) {
	s := manyPatterns(t)
	want := Policy{Keep: day, KeepBytes: 3, MaxDelay: time.Minute, MaxBytes: 5, Rate: 4}
	if got := s.Lookup("tenant77.web.nginx"); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if n := testing.AllocsPerRun(100, func() { s.Lookup("tenant77.web.nginx"); s.Lookup("nobody.x") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkLookup(b *testing.B) {
	s := manyPatterns(b)
	for _, log := range []string{"tenant77.web.nginx", "tenant4000.db", "nobody.x"} {
		b.Run(log, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s.Lookup(log)
			}
		})
	}
	b.Run("no policies", func(b *testing.B) {
		for b.Loop() {
			(*Set)(nil).Lookup("tenant77.web.nginx")
		}
	})
}
