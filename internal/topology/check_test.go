package topology

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/natstest"
)

// TestWarnings goes through what of a stream's configuration can surprise somebody.
func TestWarnings(t *testing.T) {
	for name, tc := range map[string]struct {
		stream jetstream.StreamConfig
		says   []string // in one warning each; none: no warning
	}{
		"nothing":       {jetstream.StreamConfig{}, nil},
		"new discarded": {jetstream.StreamConfig{MaxMsgs: 9, MaxBytes: 1 << 20, Discard: jetstream.DiscardNew}, nil},
		"new discarded by subject": {jetstream.StreamConfig{MaxMsgsPerSubject: 9, Discard: jetstream.DiscardNew,
			DiscardNewPerSubject: true}, nil},
		"harmless": {jetstream.StreamConfig{AllowDirect: true, AllowAtomicPublish: true, AllowBatchPublish: true,
			DenyDelete: true, DenyPurge: true, Compression: jetstream.S2Compression, MaxMsgSize: 1 << 20, MaxConsumers: 100,
			FirstSeq: 5}, nil},
		"age": {jetstream.StreamConfig{MaxAge: time.Hour}, []string{"max_age 1h0m0s"}},
		"old discarded": {jetstream.StreamConfig{MaxMsgs: 9, MaxBytes: 1 << 20},
			[]string{"max_msgs 9", "max_bytes 1048576"}},
		"by subject": {jetstream.StreamConfig{MaxMsgsPerSubject: 9}, []string{"max_msgs_per_subject 9"}},
		"rollup":     {jetstream.StreamConfig{AllowRollup: true}, []string{"allow_rollup_hdrs"}},
		"ttl":        {jetstream.StreamConfig{AllowMsgTTL: true}, []string{"allow_msg_ttl"}},
		"markers": {jetstream.StreamConfig{AllowMsgTTL: true, SubjectDeleteMarkerTTL: time.Minute,
			AllowRollup: true}, []string{"allow_msg_ttl", "subject_delete_marker_ttl 1m0s", "allow_rollup"}},
		"schedules": {jetstream.StreamConfig{AllowMsgSchedules: true, AllowRollup: true},
			[]string{"allow_msg_schedules", "allow_rollup"}},
		"counters":         {jetstream.StreamConfig{AllowMsgCounter: true}, []string{"allow_msg_counter"}},
		"few consumers":    {jetstream.StreamConfig{MaxConsumers: 2}, []string{"max_consumers 2"}},
		"enough consumers": {jetstream.StreamConfig{MaxConsumers: 64}, nil},
		"republished into another shard": {jetstream.StreamConfig{RePublish: &jetstream.RePublish{Source: "edge.>",
			Destination: "two.>"}}, []string{"republishes to two.>"}},
		"republished elsewhere": {jetstream.StreamConfig{RePublish: &jetstream.RePublish{Source: "edge.>",
			Destination: "nobody.>"}}, nil},
		"sources elsewhere": {jetstream.StreamConfig{Sources: []*jetstream.StreamSource{{Name: "FAR",
			External: &jetstream.ExternalStream{APIPrefix: "$JS.far.API"}}}}, []string{"stores >:", "stream FAR"}},
		"sources below": {jetstream.StreamConfig{Sources: []*jetstream.StreamSource{{Name: "FAR",
			FilterSubject: "edge.far.>"}}}, nil},
		"the same logs as TWO's": {jetstream.StreamConfig{Metadata: map[string]string{"dormouse.prefix": "two"},
			Sources: []*jetstream.StreamSource{{Name: "FAR", FilterSubject: "two.x.>"}}}, []string{"edge.>", "loses its order"}},
	} {
		t.Run(name, func(t *testing.T) {
			js := dial(t, natstest.Start(t))
			tc.stream.Name, tc.stream.Subjects = "EDGE", []string{"edge.>"}
			prefix := tc.stream.Metadata["dormouse.prefix"]
			tc.stream.Metadata = nil
			for _, c := range []jetstream.StreamConfig{tc.stream, {Name: "TWO", Subjects: []string{"two.>"}}} {
				if _, err := js.CreateStream(t.Context(), c); err != nil {
					t.Fatal(err)
				}
				if prefix == "" {
					prefix = strings.ToLower(c.Name)
				}
				if err := AddSource(t.Context(), js, c.Name, prefix, testConfig); err != nil {
					t.Fatal(err)
				}
				prefix = ""
			}
			warnings, err := Ensure(t.Context(), js, testConfig)
			if err != nil || len(warnings) != len(tc.says) {
				t.Errorf("warned of %q, %v", warnings, err)
			}
			for _, says := range tc.says {
				if !strings.Contains(strings.Join(warnings, "\n"), says) {
					t.Errorf("warned of %q, want %q", warnings, says)
				}
			}
		})
	}
}

// TestDropsAreThoseThatAreSet: who lost entries is told what to change, and not what is not set.
func TestDropsAreThoseThatAreSet(t *testing.T) {
	if drops := Drops(jetstream.StreamConfig{MaxMsgs: -1, MaxBytes: -1, MaxMsgsPerSubject: -1}); len(drops) > 0 {
		t.Errorf("a stream without limits drops by %q", drops)
	}
	drops := Drops(jetstream.StreamConfig{MaxMsgs: -1, MaxBytes: 99, MaxMsgsPerSubject: -1, AllowMsgTTL: true})
	if strings.Join(drops, ", ") != "discard old and max_bytes 99, allow_msg_ttl true" {
		t.Errorf("drops by %q", drops)
	}
}
