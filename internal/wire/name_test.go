package wire

import "testing"

func TestProcessName(t *testing.T) {
	for _, tc := range []struct{ host, id, want string }{
		{"web-1", "3fa9c2d1-0000-4000-8000-000000000000", "web-1/3fa9c2d1"},
		{"", "3fa9c2d1-0000", "3fa9c2d1"},
		{"web-1", "a", "web-1/a"},
		{"web\x1b[2J", "\x07\xff", "web?[2J/?\ufffd"},
	} {
		if got := ProcessName(tc.host, tc.id); got != tc.want {
			t.Errorf("host %q, id %q: %q, want %q", tc.host, tc.id, got, tc.want)
		}
	}
}
