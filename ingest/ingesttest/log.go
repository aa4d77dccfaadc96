package ingesttest

import (
	"bytes"
	"encoding/json"
	"sync"
	"testing"
)

// Log is a JSON log that a test reads while it is written.
type Log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write takes lines of the log in.
func (b *Log) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

// Lines returns those with that message, or all if it is empty.
func (b *Log) Lines(t testing.TB, msg string) (found []map[string]any) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for line := range bytes.Lines(b.text.Bytes()) {
		var one map[string]any
		if err := json.Unmarshal(line, &one); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if msg == "" || one["msg"] == msg {
			found = append(found, one)
		}
	}
	return found
}
