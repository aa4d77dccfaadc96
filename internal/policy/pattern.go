package policy

import (
	"cmp"
	"fmt"
	"strings"

	"dormouse/internal/logid"
)

// Pattern is a LogID in which the token `*` stands for any one token and a last token `>` for one token or more, as in
// NATS. ParsePattern makes one.
type Pattern string

// MaxTokens is how many tokens a pattern has at most; `>` stands for as many as a LogID has. It bounds a Set's memory.
const MaxTokens = 32

const (
	anyToken  = "*"
	restToken = ">"
)

// ParsePattern reports why s is no pattern: a LogID but for its wildcards, of at most MaxTokens tokens.
func ParsePattern(s string) (Pattern, error) {
	if s == restToken {
		return Pattern(s), nil
	}
	if len(s) > logid.MaxBytes {
		return "", fmt.Errorf("%w pattern: it is %d bytes long, the limit is %d", ErrInvalid, len(s), logid.MaxBytes)
	}
	tokens := strings.Split(s, ".")
	if len(tokens) > MaxTokens {
		return "", fmt.Errorf("%w pattern: %q has %d tokens, the limit is %d; > stands for any number of them", ErrInvalid,
			s, len(tokens), MaxTokens)
	}
	for i, token := range tokens {
		switch {
		case token == anyToken:
			tokens[i] = "x"
		case token == restToken && i == len(tokens)-1:
			tokens[i] = "x"
		case token == restToken:
			return "", fmt.Errorf("%w pattern: %q goes on behind >, which stands for all the rest", ErrInvalid, s)
		case strings.ContainsAny(token, "*>"):
			return "", fmt.Errorf("%w pattern: %q has the token %q: * and > stand for whole tokens, as in acme.*.web or acme.>",
				ErrInvalid, s, token)
		}
	}
	if err := logid.Validate(strings.Join(tokens, ".")); err != nil {
		if len(tokens) == 1 && s != "" {
			return "", fmt.Errorf("%w pattern: %q has one token, and LogIDs have two at least: is %s.> meant?", ErrInvalid, s, s)
		}
		return "", fmt.Errorf("%w pattern %q: %w", ErrInvalid, s, err)
	}
	return Pattern(s), nil
}

// next cuts the first token off.
func next(s string) (token, tail string, more bool) { return strings.Cut(s, ".") }

// Matches reports whether a policy with that pattern is for a log.
func (p Pattern) Matches(log string) bool {
	for pattern := string(p); ; {
		want, patternTail, morePattern := next(pattern)
		token, logTail, moreLog := next(log)
		switch {
		case want == restToken:
			return true
		case want != anyToken && want != token:
			return false
		case !morePattern || !moreLog:
			return morePattern == moreLog
		}
		pattern, log = patternTail, logTail
	}
}

// rank orders the kinds of tokens, the most literal first.
func rank(token string) int {
	switch token {
	case anyToken:
		return 1
	case restToken:
		return 2
	}
	return 0
}

// Compare orders patterns. Of several that match a log the first one fits best: they are compared token by token from
// the left, and where they differ first a literal token comes before `*`, and that before `>`. There are no ties: two
// patterns that match the same log and have the same kinds of tokens are the same.
func Compare(a, b Pattern) int {
	for left, right := string(a), string(b); ; {
		t, leftTail, moreLeft := next(left)
		u, rightTail, moreRight := next(right)
		if c := cmp.Or(cmp.Compare(rank(t), rank(u)), strings.Compare(t, u)); c != 0 {
			return c
		}
		if !moreLeft || !moreRight {
			return len(leftTail) - len(rightTail) // at least one of them is empty
		}
		left, right = leftTail, rightTail
	}
}

// Overlaps reports whether there may be a log that both match.
func Overlaps(a, b Pattern) bool {
	for left, right := string(a), string(b); ; {
		t, leftTail, moreLeft := next(left)
		u, rightTail, moreRight := next(right)
		switch {
		case t == restToken || u == restToken:
			return true
		case t != anyToken && u != anyToken && t != u:
			return false
		case !moreLeft || !moreRight:
			return moreLeft == moreRight
		}
		left, right = leftTail, rightTail
	}
}

const hexDigits = "0123456789ABCDEF"

// Key is the pattern as a key of a NATS KV bucket, which permits few characters: letters, digits, dots, dashes and
// underscores stand for themselves, every other byte is =XX.
func (p Pattern) Key() string {
	var b strings.Builder
	for i := range len(p) {
		if c := p[i]; isPlain(c) {
			b.WriteByte(c)
		} else {
			b.WriteByte('=')
			b.WriteByte(hexDigits[c>>4])
			b.WriteByte(hexDigits[c&15])
		}
	}
	return b.String()
}

func isPlain(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '-' || c == '_'
}

// ParseKey reads what Key wrote, and nothing else: a pattern has one key.
func ParseKey(key string) (Pattern, error) {
	var b strings.Builder
	for i := 0; i < len(key); i++ {
		if key[i] != '=' {
			b.WriteByte(key[i])
			continue
		}
		if i+2 >= len(key) {
			return "", fmt.Errorf("%w key %q: it ends within =XX", ErrInvalid, key)
		}
		high, low := strings.IndexByte(hexDigits, key[i+1]), strings.IndexByte(hexDigits, key[i+2])
		if high < 0 || low < 0 {
			return "", fmt.Errorf("%w key %q: = must be followed by two digits 0 to F", ErrInvalid, key)
		}
		b.WriteByte(byte(high<<4 | low))
		i += 2
	}
	p, err := ParsePattern(b.String())
	if err == nil && p.Key() != key {
		err = fmt.Errorf("%w key %q: the key of %s is %s", ErrInvalid, key, p, p.Key())
	}
	return p, err
}
