package topology

import (
	"slices"
	"strings"
)

// pattern is a set of subjects, token by token: "*" stands for any token, ">" at the end for one or more, as in NATS,
// and several, which no subject has, for one or more in any place.
type pattern []string

// several is what a token becomes that a transform may split into any number of them.
const several = ">>"

func parsePattern(subject string) pattern { return strings.Split(subject, ".") }

func (p pattern) String() string {
	return strings.ReplaceAll(strings.Join(p, "."), several, "*[.*...]")
}

// exact reports whether the pattern is what NATS could have as a subject with wildcards.
func (p pattern) exact() bool { return !slices.Contains(p, several) }

// literal reports whether it is one subject.
func (p pattern) literal() bool {
	return !slices.ContainsFunc(p, func(token string) bool { return token == "*" || token == ">" || token == several })
}

// more stands for any number of tokens, none included; it is part of no pattern.
const more = ">>>"

// spread is a pattern in which only more takes another number of tokens than one.
func (p pattern) spread() (tokens []string) {
	for _, token := range p {
		if token == ">" || token == several {
			tokens = append(tokens, "*", more)
		} else {
			tokens = append(tokens, token)
		}
	}
	return tokens
}

// meets reports whether a subject is in both sets.
func (p pattern) meets(q pattern) bool {
	a, b := p.spread(), q.spread()
	below := make([]bool, len(b)+1) // whether a[i+1:] meets b[j:]
	for i := len(a); i >= 0; i-- {
		row := make([]bool, len(b)+1)
		for j := len(b); j >= 0; j-- {
			switch {
			case i == len(a) && j == len(b):
				row[j] = true
			case i < len(a) && a[i] == more:
				row[j] = below[j] || j < len(b) && row[j+1]
			case j < len(b) && b[j] == more:
				row[j] = row[j+1] || i < len(a) && below[j]
			case i < len(a) && j < len(b):
				row[j] = below[j+1] && (a[i] == "*" || b[j] == "*" || a[i] == b[j])
			}
		}
		below = row
	}
	return below[0]
}

// within reports whether every subject of p is one of q, which has no several.
func (p pattern) within(q pattern) bool {
	for i, token := range q {
		switch {
		case token == ">":
			return len(p) > i
		case i >= len(p) || p[i] == several || p[i] == ">" || p[i] == "*" && token != "*" || token != "*" && p[i] != token:
			return false
		}
	}
	return len(p) == len(q)
}

// and returns the subjects that are in both sets. When p has a several, that may be more than there are: all of q.
func (p pattern) and(q pattern) (both pattern, ok bool) {
	if !p.meets(q) {
		return nil, false
	}
	if !p.exact() {
		return q, true
	}
	for i := 0; ; i++ {
		switch {
		case i == len(p) || i == len(q):
			return both, true
		case p[i] == ">":
			return append(both, q[i:]...), true
		case q[i] == ">":
			return append(both, p[i:]...), true
		case p[i] == "*":
			both = append(both, q[i])
		default:
			both = append(both, p[i])
		}
	}
}

// without returns the subjects of p that are not of q, which has no several; or all of p, if it cannot be said by
// patterns.
func (p pattern) without(q pattern) []pattern {
	if p.within(q) {
		return nil
	}
	n := len(p) - 1
	if p[n] != ">" || len(q) <= n+1 || q[len(q)-1] != ">" || !p[:n].within(q[:n]) {
		return []pattern{p}
	}
	// Of a.> that are not of a.*.*.>: those that end too early.
	var short []pattern
	for i, token := range q[n : len(q)-1] {
		if token != "*" {
			return []pattern{p}
		}
		short = append(short, append(slices.Clone(p[:n]), slices.Repeat([]string{"*"}, i+1)...))
	}
	return short
}

// share is how many of a set's subjects are logs under a prefix.
type share int

const (
	noLogs share = iota
	someLogs
	allLogs // but for those that end too early: nobody can tell a>b.> from its shortest
)

// under tells how many of the pattern's subjects are the prefix and a LogID, which has two tokens at least.
func (p pattern) under(prefix string) share {
	want := parsePattern(prefix)
	switch {
	case !p.meets(append(slices.Clone(want), "*", ">")):
		return noLogs
	case p.within(append(slices.Clone(want), ">")):
		return allLogs
	}
	return someLogs
}
