package programtest

import (
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
)

// TestCompare: the judge of other tests finds what is lost, twice, out of order or invented, and accepts what it may.
func TestCompare(t *testing.T) {
	o := NewOracle()
	o.Tell("a.b", "one", &jetstream.PubAck{Stream: "LOGS", Sequence: 3})
	o.Tell("a.b", "two", &jetstream.PubAck{Stream: "LOGS", Sequence: 7})
	o.Tell("a.b", "perhaps", nil)
	const one, two, perhaps = `{"log":"a.b","seq":3,"data":"one"}`, `{"log":"a.b","seq":7,"data":"two"}`,
		`{"log":"a.b","seq":8,"data":"perhaps"}`
	for _, tc := range []struct {
		wrong string // "" if nothing is
		final bool
		read  []string
	}{
		{"", true, []string{one, two}},
		{"", true, []string{one, two, perhaps}},
		{"", false, []string{one, two, `{"log":"a.b","seq":9,"data":"not acked yet"}`}},
		{"never published", true, []string{one, two, `{"log":"a.b","seq":9,"data":"invented"}`}},
		{`"two" was acked as 7 and read as 0`, false, []string{one}},
		{`"two" was acked as 7 and read as 8`, true, []string{one, `{"log":"a.b","seq":8,"data":"two"}`}},
		{"read twice", true, []string{one, two, perhaps, `{"log":"a.b","seq":9,"data":"perhaps"}`}},
		{"entry 3 of a.b after 7", true, []string{two, one}},
		{"entry 8 of a.c", true, []string{one, two, `{"log":"a.c","seq":8,"data":"perhaps"}`}},
		{"invalid character", true, []string{"level=ERROR"}},
	} {
		err := o.Compare("a.b", strings.Join(tc.read, "\n"), o.Acked("a.b"), tc.final)
		if (err == nil) != (tc.wrong == "") || err != nil && !strings.Contains(err.Error(), tc.wrong) {
			t.Errorf("%v, final %v: %v, want %q", tc.read, tc.final, err, tc.wrong)
		}
	}
	if err := o.Judgeable(o.Logs()); err != nil {
		t.Error(err)
	}
	o.Tell("a.c", "perhaps too", nil)
	for _, logs := range [][]string{nil, {"a.b", "a.c"}} {
		if o.Judgeable(logs) == nil {
			t.Errorf("%v can be judged, and nothing of it was acked", logs)
		}
	}
	if acked, unknown := o.Counts(); acked != 2 || unknown != 2 || o.Last("LOGS") != 7 {
		t.Errorf("%d acked, %d unknown, the last is %d", acked, unknown, o.Last("LOGS"))
	}
}
