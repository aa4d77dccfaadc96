package extent

import "testing"

func TestCut(t *testing.T) {
	for _, tc := range []struct {
		cut  Cut
		log  string
		seq  uint64
		at   int64
		want bool
	}{
		{Cut{Logs: "acme.web", UpTo: 7}, "acme.web", 7, 1, true},
		{Cut{Logs: "acme.web", UpTo: 7}, "acme.web", 8, 1, false},
		{Cut{Logs: "acme.web", UpTo: 7}, "acme.web.a", 1, 1, false},
		{Cut{Logs: "acme.web", UpTo: 7}, "acme.we", 1, 1, false},
		{Cut{Logs: "acme.web.>", UpTo: 7}, "acme.web", 1, 1, false},
		{Cut{Logs: "acme.web.>", UpTo: 7}, "acme.web.a", 1, 1, true},
		{Cut{Logs: "acme.>", UpTo: 7}, "acme.a.b", 7, 1, true},
		{Cut{Logs: "acme.>", UpTo: 7}, "acme-2.a", 1, 1, false},
		{Cut{Logs: "acme.>", UpTo: 7}, "acme/x", 1, 1, false},
		{Cut{Logs: "acme.>", UpTo: 7}, "acm.e", 1, 1, false},
		{Cut{Logs: "acme.x>", UpTo: 7}, "acme.x>", 1, 1, true},
		{Cut{Logs: "acme.x>", UpTo: 7}, "acme.xy", 1, 1, false},
		{Cut{Logs: ">", UpTo: 7}, "\u00fc.z", 7, 1, true},
		{Cut{Logs: ">", UpTo: 7}, "a.b", 8, 1, false},
		{Cut{Logs: ">", UpTo: 7, Before: 5}, "a.b", 7, 4, true},
		{Cut{Logs: ">", UpTo: 7, Before: 5}, "a.b", 7, 5, false},
		{Cut{Logs: ">", UpTo: 7, Before: 5}, "a.b", 8, 4, false},
		{Cut{Logs: "*.web", UpTo: 7}, "acme.web", 7, 1, true},
		{Cut{Logs: "*.web", UpTo: 7}, "acme.web.x", 7, 1, false},
		{Cut{Logs: "acme.*.x", UpTo: 7}, "acme.a.x", 7, 1, true},
		{Cut{Logs: "acme.*.>", UpTo: 7}, "acme.a.b.c", 7, 1, true},
	} {
		if got := (Cuts{tc.cut}).Have(tc.log, tc.seq, tc.at); got != tc.want {
			t.Errorf("%+v has %s at %d of %d: %v", tc.cut, tc.log, tc.seq, tc.at, got)
		}
		one := Summarize(Segment{Key: "k", Size: 1},
			[]Extent{{Log: tc.log, First: tc.seq, Last: tc.seq, Count: 1, MinTime: tc.at, MaxTime: tc.at}})
		if tc.want && !tc.cut.MayTouch(one) || tc.cut.Whole(one) != tc.want {
			t.Errorf("%+v touches %+v: %v, %v", tc.cut, one, tc.cut.MayTouch(one), tc.cut.Whole(one))
		}
	}
}

// TestWholeIsOfRanges: what lies between two logs that are cut need not be.
func TestWholeIsOfRanges(t *testing.T) {
	s := Summarize(Segment{Key: "k", Size: 1}, []Extent{{Log: "a.b", First: 1, Last: 1, Count: 1},
		{Log: "a.d", First: 2, Last: 2, Count: 1}})
	for want, cuts := range map[bool]Cuts{
		true:  {{Logs: "a.>", UpTo: 2}, {Logs: ">", UpTo: 2}},
		false: {{Logs: "a.*", UpTo: 2}, {Logs: "*.>", UpTo: 2}, {Logs: "a.>", UpTo: 2, Except: []string{"a.c"}}},
	} {
		for _, c := range cuts {
			if c.Whole(s) != want || !c.MayTouch(s) {
				t.Errorf("%+v has all of it: %v", c, c.Whole(s))
			}
		}
	}
}

func TestMatches(t *testing.T) {
	for pattern, logs := range map[string]map[string]bool{
		"a.b":   {"a.b": true, "a.c": false, "a.b.c": false, "a": false},
		"a.>":   {"a.b": true, "a.b.c": true, "a": false, "b.a": false},
		"*.b":   {"a.b": true, "a.c": false, "a.b.c": false},
		"a.*.>": {"a.b": false, "a.b.c": true, "a.b.c.d": true},
		">":     {"a.b": true, "": false},
		"a.x*":  {"a.x*": true, "a.xy": false},
		"a.>.b": {"a.>.b": true, "a.c.b": false},
	} {
		for log, want := range logs {
			if got := Matches(pattern, log); got != want {
				t.Errorf("%s stands for %q: %v", pattern, log, got)
			}
			c := Cut{Logs: pattern, UpTo: 1}
			if got := c.Covers(log); got != want {
				t.Errorf("%s covers %q: %v", pattern, log, got)
			}
			c.Except = []string{pattern}
			if c.Covers(log) {
				t.Errorf("but for %s covers %q", pattern, log)
			}
		}
	}
}

func TestSplit(t *testing.T) {
	e := Extent{Log: "a.b", First: 3, Last: 9, Count: 4, MinTime: 30, MaxTime: 90}
	for name, tc := range map[string]struct {
		cuts        Cuts
		whole, none bool
	}{
		"no cut":             {nil, true, false},
		"of another":         {Cuts{{Logs: "a.c", UpTo: 20}}, true, false},
		"of what was before": {Cuts{{Logs: "a.b", UpTo: 2}}, true, false},
		"of all":             {Cuts{{Logs: "a.b", UpTo: 2}, {Logs: "a.>", UpTo: 9}}, false, true},
		"of a part":          {Cuts{{Logs: "a.b", UpTo: 8}}, false, false},
		"of what is earlier": {Cuts{{Logs: "a.b", UpTo: 9, Before: 31}}, false, false},
		"of nothing earlier": {Cuts{{Logs: "a.b", UpTo: 9, Before: 30}}, true, false},
		"of all before":      {Cuts{{Logs: "a.b", UpTo: 9, Before: 91}}, false, true},
	} {
		if whole, none := tc.cuts.Split(e); whole != tc.whole || none != tc.none {
			t.Errorf("%s: whole %v, none %v", name, whole, none)
		}
	}
}
