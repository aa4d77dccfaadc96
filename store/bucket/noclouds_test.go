//go:build !clouds

package bucket

import (
	"context"
	"errors"
	"strings"
	"testing"
)

// TestLeanBuildNamesWhatItLacks: gs:// and azblob:// are refused with how to get them, not as unknown.
func TestLeanBuildNamesWhatItLacks(t *testing.T) {
	for _, raw := range []string{"gs://b/p", "azblob://c"} {
		if _, err := Open(context.Background(), raw); !errors.Is(err, ErrURL) ||
			!strings.Contains(err.Error(), "make build") {
			t.Errorf("%s: %v does not say how to get a build that has it", raw, err)
		}
	}
}
