package topology

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/natstest"
)

func TestPatterns(t *testing.T) {
	for _, tc := range []struct {
		a, b          string
		meets, within bool // a within b
	}{
		{"a.b", "a.b", true, true}, {"a.b", "a.c", false, false}, {"a.b", "a.>", true, true}, {"a", "a.>", false, false},
		{"a.>", "a.b", true, false},
		{"a.*", "a.>", true, true}, {"a.>", "a.*", true, false}, {"*.b", "a.*", true, false}, {"a.*.c", "a.b.>", true, false},
		{">", ">", true, true},
		{"a.>>.z", "a.b.z", true, false}, {"a.>>.z", "a.b.c.z", true, false}, {"a.>>.z", "a.z", false, false},
		{"a.>>.z", "a.>", true, true},
		{"a.>>.z", "*.*.*.y", false, false}, {">>.x.>>", "a.b.x.>", true, false}, {"a.>>", "b.>", false, false},
		{"*.*", "*.>", true, true},
	} {
		a, b := parsePattern(tc.a), parsePattern(tc.b)
		if a.meets(b) != tc.meets || b.meets(a) != tc.meets || a.within(b) != tc.within {
			t.Errorf("%s and %s: meets %t and %t, within %t", a, b, a.meets(b), b.meets(a), a.within(b))
		}
	}
	// However many tokens may be several, it ends.
	many := parsePattern(strings.Repeat(">>.a.", 60) + "b")
	if many.meets(parsePattern(strings.Repeat(">>.a.", 60) + "c")) {
		t.Error("b meets c")
	}
}

// TestStoredSubjects holds what is computed against what a server stores.
func TestStoredSubjects(t *testing.T) {
	transform := func(from, to string) *jetstream.SubjectTransformConfig {
		return &jetstream.SubjectTransformConfig{Source: from, Destination: to}
	}
	from := func(filters ...*jetstream.SubjectTransformConfig) []*jetstream.StreamSource {
		source := &jetstream.StreamSource{Name: "ORIGIN"}
		for _, f := range filters {
			source.SubjectTransforms = append(source.SubjectTransforms, *f)
		}
		return []*jetstream.StreamSource{source}
	}
	published := []string{"edge.a.b", "edge.abcdef.x.y", "edge.a-b-c.x", "other.q.r", "o.a.b", "o.abcdef.x.y", "o.z",
		"o.left-right.x"}
	for name, tc := range map[string]struct {
		subjects  []string
		transform *jetstream.SubjectTransformConfig
		sources   []*jetstream.StreamSource // ORIGIN takes o.>
		want      string
	}{
		"as it is":       {subjects: []string{"edge.>"}, want: "[edge.>]"},
		"another prefix": {subjects: []string{"edge.>"}, transform: transform("edge.>", "arch.>"), want: "[arch.>]"},
		"everything": {subjects: []string{"edge.>", "other.>"}, transform: transform("", "arch.>"),
			want: "[arch.edge.>, arch.other.>]"},
		"some of it": {subjects: []string{"edge.>", "other.>"}, transform: transform("edge.>", "arch.>"),
			want: "[arch.>, other.>]"},
		"a part of a subject": {subjects: []string{"edge.>"}, transform: transform("edge.a.>", "arch.a.>"),
			want: "[arch.a.>, edge.>]"},
		"wildcards change places": {subjects: []string{"edge.*.*"},
			transform: transform("edge.*.*", "arch.{{wildcard(2)}}.$1"), want: "[arch.*.*]"},
		"a wildcard is known": {subjects: []string{"edge.a.*"},
			transform: transform("edge.*.*", "arch.$2.{{ Wildcard(1) }}"), want: "[arch.*.a]"},
		"one subject": {subjects: []string{"edge.a.b"},
			transform: transform("edge.*.*", "arch.{{left(1,1)}}.x.$2"), want: "[arch.a.x.b]"},
		"partitions": {subjects: []string{"edge.>"},
			transform: transform("edge.*.>", "p.{{partition(4,1)}}.$1.>"), want: "[edge.*, p.*.*.>]"},
		"chance": {subjects: []string{"edge.>"}, transform: transform("edge.*.>", "p.{{random(3)}}.$1.>"),
			want: "[edge.*, p.*.*.>]"},
		"left and right": {subjects: []string{"edge.>"},
			transform: transform("edge.*.>", "p.{{left(1,2)}}.{{right(1,2)}}.>"), want: "[edge.*, p.*.*.>]"},
		"split": {subjects: []string{"edge.>"}, transform: transform("edge.*.>", "p.{{split(1,-)}}.>"),
			want: "[edge.*, p.*[.*...].>]"},
		"split and sliced": {subjects: []string{"edge.>"},
			transform: transform("edge.*.>", "p.{{SplitFromLeft(1,2)}}.{{sliceFromRight(1,2)}}.>"),
			want:      "[edge.*, p.*[.*...].*[.*...].>]"},
		"sources alone":        {sources: from(), want: "[o.>]"},
		"sources, transformed": {sources: from(transform("o.>", "arch.>")), want: "[arch.>]"},
		"sources, filtered":    {sources: from(transform("o.a.>", "")), want: "[o.a.>]"},
		"sources, some": {sources: from(transform("o.a.>", "x.a.>"), transform("o.left-right.>", "")),
			want: "[o.left-right.>, x.a.>]"},
		"sources and subjects": {subjects: []string{"edge.>"}, sources: from(), want: "[edge.>, o.>]"},
		"transformed twice": {subjects: []string{"edge.>"}, sources: from(transform("o.>", "edge.>")),
			transform: transform("edge.>", "arch.>"), want: "[arch.>]"},
		"split, then its own": {sources: from(transform("o.*.>", "edge.{{split(1,-)}}.>")),
			transform: transform("edge.left.>", "arch.>"), want: "[arch.>, edge.*[.*...].>]"},
	} {
		t.Run(name, func(t *testing.T) {
			js := dial(t, natstest.Start(t))
			if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "ORIGIN",
				Subjects: []string{"o.>"}}); err != nil {
				t.Fatal(err)
			}
			stream, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: tc.subjects,
				Sources: tc.sources, SubjectTransform: tc.transform})
			if err != nil {
				t.Fatal(err)
			}
			stores, err := storedBy(t.Context(), js, stream.CachedInfo().Config)
			if err != nil || stores.String() != tc.want || len(stores.unknown) > 0 {
				t.Fatalf("stores %s, %v unknown, %v, want %s", stores, stores.unknown, err, tc.want)
			}
			for _, subject := range published {
				_, _ = js.Publish(t.Context(), subject, nil, jetstream.WithRetryAttempts(0)) // not all streams take all
			}
			for _, subject := range storedIn(t, js, stream) {
				if !stores.meets([]pattern{parsePattern(subject)}) {
					t.Errorf("%s is stored, and not in %s", subject, stores)
				}
			}
		})
	}
}

// storedIn waits until a stream has what ORIGIN has for it, and returns the subjects.
func storedIn(t *testing.T, js jetstream.JetStream, stream jetstream.Stream) []string {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for ; t.Context().Err() == nil; <-tick.C {
		info, err := stream.Info(t.Context(), jetstream.WithSubjectFilter(">"))
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(info.Sources, func(s *jetstream.StreamSourceInfo) bool { return s.Lag > 0 || s.Active < 0 }) {
			continue
		}
		if info.State.Msgs > 0 {
			return slices.Collect(maps.Keys(info.State.Subjects))
		}
	}
	return nil
}

func TestKeepsSubjects(t *testing.T) {
	plain := jetstream.StreamConfig{Subjects: []string{"a.>", "b.*"}}
	moved := jetstream.StreamConfig{Subjects: []string{"a.>", "b.>"},
		SubjectTransform: &jetstream.SubjectTransformConfig{Source: "a.>", Destination: "b.>"}}
	for _, tc := range []struct {
		stream  jetstream.StreamConfig
		subject string
		keeps   bool
	}{
		{plain, "a.b.c", true}, {plain, "b.c", true}, {plain, "b.c.d", false}, {plain, "c.d", false},
		{moved, "a.b", false}, {moved, "b.c", true}, {jetstream.StreamConfig{}, "a.b", false},
	} {
		if KeepsSubjects(tc.stream, tc.subject) != tc.keeps {
			t.Errorf("%v, %s: want %t", tc.stream.Subjects, tc.subject, tc.keeps)
		}
	}
}

// TestOriginsWithoutEnd: streams that take from each other in a circle, and from streams that are not there.
func TestOriginsWithoutEnd(t *testing.T) {
	js := dial(t, natstest.Start(t))
	for i := range 3 {
		_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: fmt.Sprintf("S%d", i),
			Subjects: []string{fmt.Sprintf("s%d.>", i)}, Sources: []*jetstream.StreamSource{{Name: fmt.Sprintf("S%d", (i+1)%3),
				FilterSubject: fmt.Sprintf("s%d.>", (i+1)%3)}, {Name: "NONE"}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	stream, err := js.Stream(t.Context(), "S0")
	if err != nil {
		t.Fatal(err)
	}
	stores, err := storedBy(t.Context(), js, stream.CachedInfo().Config)
	if err != nil || !slices.Contains(stores.unknown, "NONE") || stores.under("s0") != someLogs {
		t.Errorf("stores %s, unknown %v, %v", stores, stores.unknown, err)
	}
}
