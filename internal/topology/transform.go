package topology

import (
	"regexp"
	"strconv"
	"strings"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
)

// image returns the subjects that a transform makes of those of p that it takes. Which wildcard becomes what is
// computed; what a function makes of a token that is not known is "*", or several for one that it may split.
func image(p pattern, t jetstream.SubjectTransformConfig) (to pattern, ok bool) {
	source := parsePattern(sourceOfTransform(t))
	from, ok := p.and(source)
	if !ok {
		return nil, false
	}
	if from.literal() {
		if subject, ok := transformed(strings.Join(from, "."), t); ok {
			return parsePattern(subject), true
		}
	}
	var wildcards []string // what stands for each of the source's "*"
	rest := from
	for i, token := range source {
		if token == "*" {
			wildcards = append(wildcards, from[i])
		}
		if token == ">" {
			rest = from[i:]
		}
	}
	for _, token := range strings.Split(t.Destination, ".") {
		if token == ">" {
			to = append(to, rest...)
		} else {
			to = append(to, placed(token, wildcards))
		}
	}
	return to, true
}

// sourceOfTransform is what a transform takes; nothing means everything.
func sourceOfTransform(t jetstream.SubjectTransformConfig) string {
	if t.Source == "" {
		return ">"
	}
	return t.Source
}

// transformed asks the server's own code what it makes of one subject. It does not tell what chance decides.
func transformed(subject string, t jetstream.SubjectTransformConfig) (string, bool) {
	if strings.Contains(strings.ToLower(t.Destination), "random") {
		return "", false
	}
	transform, err := server.NewSubjectTransform(t.Source, t.Destination)
	if err != nil || transform == nil {
		return "", false
	}
	subject, err = transform.Match(subject)
	return subject, err == nil
}

var mappingFunction = regexp.MustCompile(`^\{\{\s*(\w+)\s*\((.*)\)\s*\}\}$`)

// placed returns what a token of a destination becomes.
func placed(token string, wildcards []string) string {
	name, args := "wildcard", strings.TrimPrefix(token, "$")
	if match := mappingFunction.FindStringSubmatch(token); match != nil {
		name, args = strings.ToLower(match[1]), match[2]
	} else if args == token {
		return token
	}
	first, _, _ := strings.Cut(args, ",")
	n, err := strconv.Atoi(strings.TrimSpace(first))
	switch {
	case name == "wildcard" && err != nil: // $ and something else is a token like others
		return token
	case name == "wildcard" && n >= 1 && n <= len(wildcards):
		return wildcards[n-1]
	case name == "partition" || name == "random" || name == "left" || name == "right":
		return "*"
	}
	return several
}
