package entry

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"dormouse/internal/golden"
)

// TestGoldenEntry: keys and values of entries, in the buffer and in segments, are what they were; an unknown version is
// refused.
func TestGoldenEntry(t *testing.T) {
	key := golden.Bytes(t, "key", AppendKey(nil, "tenant.log", 1<<40+7))
	if log, seq, err := SplitKey(key); err != nil || string(log) != "tenant.log" || seq != 1<<40+7 {
		t.Errorf("a key is read as %q, %d, %v", log, seq, err)
	}
	want := Value{Time: time.Unix(1_700_000_000, 123456789).UTC(),
		Headers: map[string][]string{"A": {"1", ""}, "b": {"\xff"}}, Data: []byte("data\x00"), Bytes: 10}
	value := golden.Bytes(t, "value", AppendValue(nil, want.Time, want.Headers, want.Data))
	if got, err := DecodeValue(value); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("a value is read as %+v, %v, want %+v", got, err, want)
	}
	value[0]++
	if _, err := DecodeValue(value); err == nil || !strings.Contains(err.Error(), "version") {
		t.Errorf("a value of another version: %v", err)
	}
}
