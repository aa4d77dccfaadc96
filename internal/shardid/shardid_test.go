package shardid

import "testing"

// TestParse reads what String writes, and no other number.
func TestParse(t *testing.T) {
	for _, s := range []Shard{0, 4294967295} {
		if got, err := Parse(s.String()); err != nil || got != s {
			t.Errorf("Parse(%s) = %s, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "-1", "4294967296", "x"} {
		if _, err := Parse(s); err == nil {
			t.Errorf("Parse(%q) did not fail", s)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{"0", "4294967295", "4294967296", "-1", "", "01"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		shard, err := Parse(text)
		if again, err2 := Parse(shard.String()); err == nil && (err2 != nil || again != shard) {
			t.Fatalf("%q is %d, and %q is %d, %v", text, shard, shard, again, err2)
		}
	})
}
