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
	} {
		if got := (Cuts{tc.cut}).Have(tc.log, tc.seq, tc.at); got != tc.want {
			t.Errorf("%+v has %s at %d of %d: %v", tc.cut, tc.log, tc.seq, tc.at, got)
		}
		one := Summarize(Segment{Key: "k", Size: 1},
			[]Extent{{Log: tc.log, First: tc.seq, Last: tc.seq, Count: 1, MinTime: tc.at, MaxTime: tc.at}})
		if tc.cut.MayTouch(one) != tc.want || tc.cut.Whole(one) != tc.want {
			t.Errorf("%+v touches %+v: %v, %v", tc.cut, one, tc.cut.MayTouch(one), tc.cut.Whole(one))
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
