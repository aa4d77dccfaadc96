package topology

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
)

// stored is what a stream can store, as far as its configuration and that of the streams that it takes from tell. Which
// subjects it listens to does not: a transform changes them, and what it takes from other streams has theirs.
type stored struct {
	patterns []pattern
	unknown  []string // streams that it takes from, of which nobody here can tell what they have
}

// maxOrigins bounds how far streams that take from each other are followed, and how many patterns that may come to.
const (
	maxOrigins  = 8
	maxPatterns = 1024
)

// storedBy looks at a stream's configuration, and at the streams that it takes from.
func storedBy(ctx context.Context, js jetstream.JetStream, cfg jetstream.StreamConfig) (stored, error) {
	return storedAt(ctx, js, cfg, 0)
}

func storedAt(ctx context.Context, js jetstream.JetStream, cfg jetstream.StreamConfig, depth int) (stored, error) {
	var s stored
	for _, subject := range cfg.Subjects {
		s.patterns = append(s.patterns, parsePattern(subject))
	}
	origins := cfg.Sources
	if cfg.Mirror != nil {
		origins = append(slices.Clone(origins), cfg.Mirror)
	}
	for _, origin := range origins {
		of, err := takenFrom(ctx, js, origin, depth)
		if err != nil {
			return s, err
		}
		s.patterns, s.unknown = append(s.patterns, of.patterns...), append(s.unknown, of.unknown...)
	}
	// of all that comes in, also from other streams; what it does not match stays as it is
	if cfg.SubjectTransform != nil {
		s.patterns = through(s.patterns, *cfg.SubjectTransform)
	}
	s.patterns = distinct(s.patterns)
	return s, nil
}

// takenFrom returns what a stream takes from another one.
func takenFrom(ctx context.Context, js jetstream.JetStream, origin *jetstream.StreamSource, depth int) (stored, error) {
	from := stored{patterns: []pattern{{">"}}, unknown: []string{origin.Name}}
	if origin.External == nil && origin.Domain == "" && depth < maxOrigins {
		stream, err := js.Stream(ctx, origin.Name)
		switch {
		case errors.Is(err, jetstream.ErrStreamNotFound): // a stream may be made before the one that it takes from
		case err != nil:
			return from, fmt.Errorf("reading stream %s: %w", origin.Name, err)
		default:
			if from, err = storedAt(ctx, js, stream.CachedInfo().Config, depth+1); err != nil {
				return from, err
			}
		}
	}
	filters := origin.SubjectTransforms // each is a filter too, and they do not overlap
	if len(filters) == 0 && origin.FilterSubject != "" {
		filters = []jetstream.SubjectTransformConfig{{Source: origin.FilterSubject}}
	}
	if len(filters) == 0 {
		return from, nil
	}
	var taken []pattern
	for _, p := range from.patterns {
		for _, filter := range filters {
			if filter.Destination == "" {
				if both, ok := p.and(parsePattern(sourceOfTransform(filter))); ok {
					taken = append(taken, both)
				}
			} else if to, ok := image(p, filter); ok {
				taken = append(taken, to)
			}
		}
	}
	from.patterns = distinct(taken)
	if !slices.ContainsFunc(from.patterns, func(p pattern) bool { return p[0] == ">" || p[0] == several }) {
		from.unknown = nil // the filters tell enough
	}
	return from, nil
}

// through returns what a stream's own transform leaves of the patterns.
func through(patterns []pattern, t jetstream.SubjectTransformConfig) (out []pattern) {
	for _, p := range patterns {
		if to, ok := image(p, t); ok {
			out = append(out, to)
		}
		out = append(out, p.without(parsePattern(sourceOfTransform(t)))...)
	}
	return out
}

// distinct sorts the patterns and drops those that are there twice, and those that are too many for anybody to read.
func distinct(patterns []pattern) []pattern {
	slices.SortFunc(patterns, func(a, b pattern) int { return slices.Compare(a, b) })
	patterns = slices.CompactFunc(patterns, func(a, b pattern) bool { return slices.Equal(a, b) })
	if len(patterns) > maxPatterns {
		patterns = append(patterns[:maxPatterns:maxPatterns], pattern{">"}) // and anything else
	}
	return patterns
}

// shownPatterns is how many of a stream's patterns an error or a warning shows.
const shownPatterns = 8

func (s stored) String() string {
	shown := make([]string, 0, shownPatterns)
	for _, p := range s.patterns[:min(len(s.patterns), shownPatterns)] {
		shown = append(shown, p.String())
	}
	if left := len(s.patterns) - len(shown); left > 0 {
		shown = append(shown, fmt.Sprintf("and %d more", left))
	}
	return "[" + strings.Join(shown, ", ") + "]"
}

// under tells how much of what the stream stores are logs under a prefix.
func (s stored) under(prefix string) share {
	all, none := true, true
	for _, p := range s.patterns {
		switch p.under(prefix) {
		case allLogs:
			none = false
		case someLogs:
			all, none = false, false
		default:
			all = false
		}
	}
	switch {
	case none:
		return noLogs
	case all:
		return allLogs
	}
	return someLogs
}

// meets reports whether the stream can store a subject of one of the patterns.
func (s stored) meets(patterns []pattern) bool {
	return slices.ContainsFunc(s.patterns, func(p pattern) bool { return slices.ContainsFunc(patterns, p.meets) })
}

// prefix returns what stands before the LogIDs if there is but one answer: the subjects that are stored are all of
// those below it.
func (s stored) prefix() (prefix string, ok bool) {
	if len(s.patterns) != 1 {
		return "", false
	}
	prefix, ok = strings.CutSuffix(strings.Join(s.patterns[0], "."), ".>")
	return prefix, ok && parsePattern(prefix).literal()
}

// KeepsSubjects reports whether a stream stores what is published to a subject that it stores under that very subject:
// one that transforms subjects, or takes from other streams, need not.
func KeepsSubjects(cfg jetstream.StreamConfig, subject string) bool {
	p := parsePattern(subject)
	takes := slices.ContainsFunc(cfg.Subjects, func(s string) bool { return p.within(parsePattern(s)) })
	if !takes || cfg.SubjectTransform == nil {
		return takes
	}
	to, ok := image(p, *cfg.SubjectTransform)
	return !ok || slices.Equal(to, p)
}
