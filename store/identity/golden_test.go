package identity

import (
	"strings"
	"testing"
	"time"

	"dormouse/internal/golden"
)

// TestGoldenIdentity: the archive of any version is known again, and one of an unknown version is refused.
func TestGoldenIdentity(t *testing.T) {
	want := Identity{Kind: kind, Version: version, System: "0f1e2d3c-4b5a-4678-9abc-def012345678",
		Bucket:  "89abcdef-0123-4567-89ab-cdef01234567",
		Archive: "s3://logs/prod?region=eu-central-1", Made: time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)}
	kept := golden.Bytes(t, "identity", want.encode())
	if got, err := decode(kept); err != nil || got != want {
		t.Errorf("read as %+v, %v, want %+v", got, err, want)
	}
	if _, err := decode([]byte(strings.Replace(string(kept), `"version":1`, `"version":2`, 1))); err == nil ||
		!strings.Contains(err.Error(), "version is 2") {
		t.Errorf("of another version: %v", err)
	}
}
