package shard

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// TestLossCause: who lost entries is told what can have taken them, and not to raise limits that are not set.
func TestLossCause(t *testing.T) {
	cause := lossCause(jetstream.StreamConfig{MaxMsgs: -1, MaxBytes: -1})
	if !strings.HasPrefix(cause, "a purge or delete by somebody") {
		t.Errorf("without limits: %s", cause)
	}
	cause = lossCause(jetstream.StreamConfig{MaxMsgs: -1, MaxBytes: -1, AllowMsgTTL: true, MaxAge: time.Hour})
	if !strings.Contains(cause, "(max_age 1h0m0s, allow_msg_ttl true)") ||
		!strings.Contains(cause, "purge or delete by somebody") {
		t.Errorf("with limits: %s", cause)
	}
}
