package cache

import (
	"reflect"
	"testing"

	"dormouse/internal/codec"
	"dormouse/internal/golden"
)

// TestGoldenPosition: a cache that an earlier version left is gone on with.
func TestGoldenPosition(t *testing.T) {
	var want, got Position
	golden.Fill(&want)
	today, err := codec.Encode(want)
	if err != nil {
		t.Fatal(err)
	}
	if err := codec.Decode(golden.Bytes(t, "position", today), &got); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("read as %+v, %v, want %+v", got, err, want)
	}
}
