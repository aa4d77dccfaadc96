package policy

import (
	"fmt"
	"slices"
	"time"
)

// MaxPatterns is how many patterns a Set has at most, and MaxKeeps how many of them have a Keep: for each of those the
// owner of a shard makes cuts, which are looked at for each read.
const (
	MaxPatterns = 10_000
	MaxKeeps    = 500
)

// Set is the policies in force. It does not change, so that it may be used from any goroutine; nil is an empty one.
//
// Each setting of a log is that of the best matching pattern which has it, see Compare: what `acme.>` does not settle
// is as `>` has it.
type Set struct {
	rules []Rule // the one that fits best first
	keeps []Keep // likewise
	root  node
}

// Rule is a policy and the logs that it is for.
type Rule struct {
	Pattern Pattern
	Policy  Policy
}

// NewSet makes a set of valid policies under their patterns.
func NewSet(policies map[Pattern]Policy) (*Set, error) {
	if len(policies) > MaxPatterns {
		return nil, fmt.Errorf("%w: %d policies, the limit is %d", ErrInvalid, len(policies), MaxPatterns)
	}
	s := &Set{rules: make([]Rule, 0, len(policies))}
	for pattern, p := range policies {
		if _, err := ParsePattern(string(pattern)); err != nil {
			return nil, err
		}
		if err := p.Validate(); err != nil {
			return nil, fmt.Errorf("the policy of %s: %w", pattern, err)
		}
		s.rules = append(s.rules, Rule{pattern, p})
	}
	slices.SortFunc(s.rules, func(a, b Rule) int { return Compare(a.Pattern, b.Pattern) })
	for i := range s.rules {
		s.root.add(string(s.rules[i].Pattern), &s.rules[i].Policy)
	}
	if err := s.findKeeps(); err != nil {
		return nil, err
	}
	return s, nil
}

// Len returns the number of patterns.
func (s *Set) Len() int {
	if s == nil {
		return 0
	}
	return len(s.rules)
}

// Rules returns all policies, the one that fits best first: of those that match a log, the first that has a setting is
// the one whose setting holds. The slice is the set's own.
func (s *Set) Rules() []Rule {
	if s == nil {
		return nil
	}
	return s.rules
}

// Keep is how long the entries of the logs that a pattern matches are kept.
type Keep struct {
	Pattern Pattern
	Keep    time.Duration // may be Forever
	Except  []Pattern     // of the logs that these match another Keep holds
}

// Keeps returns the policies that have a Keep, the one that fits best first: the first that matches a log holds. The
// order depends on the patterns alone. The slice is the set's own.
func (s *Set) Keeps() []Keep {
	if s == nil {
		return nil
	}
	return s.keeps
}

func (s *Set) findKeeps() error {
	for _, r := range s.rules {
		if r.Policy.Keep == 0 {
			continue
		}
		k := Keep{Pattern: r.Pattern, Keep: r.Policy.Keep}
		for _, better := range s.keeps {
			if Overlaps(better.Pattern, k.Pattern) {
				k.Except = append(k.Except, better.Pattern)
			}
		}
		s.keeps = append(s.keeps, k)
		if len(s.keeps) > MaxKeeps {
			return fmt.Errorf("%w: more than %d policies have a keep", ErrInvalid, MaxKeeps)
		}
	}
	return nil
}

// Lookup returns what is settled for a log. It allocates nothing. It follows the log's tokens, and looks at several
// branches only where patterns have wildcards and settings are still missing.
func (s *Set) Lookup(log string) (p Policy) {
	if s == nil {
		return p
	}
	s.root.find(log, &p, s.root.settled)
	return p
}

// Equal reports whether two sets settle the same.
func (s *Set) Equal(t *Set) bool { return slices.Equal(s.Rules(), t.Rules()) }

// With returns the set with another policy for one pattern, and without one if it is the zero Policy.
func (s *Set) With(pattern Pattern, p Policy) (*Set, error) {
	all := make(map[Pattern]Policy, s.Len()+1)
	for _, r := range s.Rules() {
		all[r.Pattern] = r.Policy
	}
	if all[pattern] = p; p == (Policy{}) {
		delete(all, pattern)
	}
	return NewSet(all)
}

// node is where the patterns have come to that begin with the same tokens.
type node struct {
	settled settings // by a policy here or below

	// children by literal tokens: the only one, or more. Most nodes have one, and a map costs more than all the rest.
	token string
	only  *node
	more  map[string]*node

	star *node   // child by `*`
	rest *Policy // of the pattern that goes on with `>`
	end  *Policy // of the pattern that ends here
}

func (n *node) add(pattern string, p *Policy) {
	n.settled |= p.settles()
	token, tail, more := next(pattern)
	if token == restToken {
		n.rest = p
		return
	}
	child := n.childFor(token)
	if more {
		child.add(tail, p)
		return
	}
	child.settled |= p.settles()
	child.end = p
}

// childFor returns the child for a token of a pattern, which is made if there is none.
func (n *node) childFor(token string) *node {
	if token == anyToken {
		if n.star == nil {
			n.star = &node{}
		}
		return n.star
	}
	child := n.child(token)
	switch {
	case child != nil:
	case n.only == nil && n.more == nil:
		child = &node{}
		n.token, n.only = token, child
	case n.more == nil:
		child = &node{}
		n.more = map[string]*node{n.token: n.only, token: child}
		n.token, n.only = "", nil
	default:
		child = &node{}
		n.more[token] = child
	}
	return child
}

// child returns the child for a literal token, nil if there is none.
func (n *node) child(token string) *node {
	if n.only != nil && n.token == token {
		return n.only
	}
	return n.more[token]
}

// find fills in what is missing in p from the patterns that match log from here on, the best first, and returns what is
// still missing.
func (n *node) find(log string, p *Policy, missing settings) settings {
	token, tail, more := next(log)
	missing = n.child(token).follow(tail, more, p, missing)
	missing = n.star.follow(tail, more, p, missing)
	if n.rest != nil {
		missing = p.take(n.rest, missing)
	}
	return missing
}

// follow goes on in a child, unless there is none or it has nothing of what is missing.
func (n *node) follow(tail string, more bool, p *Policy, missing settings) settings {
	switch {
	case n == nil || n.settled&missing == 0:
	case more:
		return n.find(tail, p, missing)
	case n.end != nil:
		return p.take(n.end, missing)
	}
	return missing
}
