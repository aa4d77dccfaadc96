package integration

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"dormouse/internal/natstest"
)

// TestPublishersWithTheServersWords: entries that look like JetStream's own words, or like what it says of a message,
// are entries. The shard gets past each of them, and they are read and followed from the stream, after a crash, and
// from the archive.
func TestPublishersWithTheServersWords(t *testing.T) {
	t.Parallel()
	slow := append([]string{"--max-delay", "1h"}, fast[2:]...)
	in := newInstance(t, slow...).start()
	conn, err := net.Dial("tcp", in.nats)
	if err != nil {
		t.Fatal(err)
	}
	raw := natstest.NewRaw(t, conn)
	raw.Publish("logs.acme.web", "", []byte("first"))
	followed := in.follow("acme.web")
	if line := followed(); line.Data != "first" {
		t.Fatalf("followed %+v", line)
	}
	want := []string{"1 first"}
	for _, block := range natstest.ControlLike {
		for _, payload := range []string{"", "x"} {
			seq := raw.Publish("logs.acme.web", block, []byte(payload))
			want = append(want, fmt.Sprint(seq, " ", payload))
			if line := followed(); line.String() != want[len(want)-1] {
				t.Fatalf("followed %s after %q, want %s", line, block, want[len(want)-1])
			}
		}
	}
	last := raw.Publish("logs.acme.web",
		"NATS/1.0\r\nNats-Time-Stamp: yesterday\r\nNats-Sequence: -1\r\nStatus: 404\r\n\r\n", nil)
	want = append(want, fmt.Sprint(last, " "))
	in.awaitMetric("dormouse_entries_ingested_total", float64(last))
	in.kill()
	in.start()
	in.checkRead("acme.web", want)
	shard := in.status().Shards[0]
	if shard.State != "owned" || shard.Applied != last || shard.OldestAge < 0 || shard.OldestAge > 600 {
		t.Errorf("the shard is %+v", shard)
	}
	if code := in.stop(); code != 0 {
		t.Errorf("stopped with %d", code)
	}
	in.args = fast
	in.start()
	in.awaitQuiet(last)
	in.checkRead("acme.web", want)
}

// jsonLine is what the tests look at of a line of `dormouse read --output jsonl`.
type jsonLine struct {
	Seq  uint64
	Data string
}

func (l jsonLine) String() string { return fmt.Sprint(l.Seq, " ", l.Data) }

// follow runs `dormouse read --follow` until the test ends, and returns what waits for its next line.
func (in *instance) follow(log string) (next func() jsonLine) {
	in.t.Helper()
	ctx, cancel := context.WithCancel(in.t.Context())
	cmd := in.cli().Command(ctx, "read", log, "--follow", "--output", "jsonl")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		in.t.Fatal(err)
	}
	lines, joined := make(chan string, 1), make(chan struct{})
	go func() {
		defer close(joined)
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			select {
			case lines <- scanner.Text():
			case <-ctx.Done():
			}
		}
		_, _ = io.Copy(io.Discard, out)
	}()
	in.t.Cleanup(func() { cancel(); <-joined; _ = cmd.Wait() }) // killed
	return func() (line jsonLine) {
		in.t.Helper()
		select {
		case text := <-lines:
			if err := json.Unmarshal([]byte(text), &line); err != nil {
				in.t.Fatal(err)
			}
		case <-time.After(patience):
			in.t.Fatalf("waited %s for a line:\n%s", patience, in.Tail())
		}
		return line
	}
}

func (in *instance) checkRead(log string, want []string) {
	in.t.Helper()
	var got []string
	for text := range strings.Lines(in.must("", "read", log, "--output", "jsonl")) {
		var line jsonLine
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			in.t.Fatal(err)
		}
		got = append(got, line.String())
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		in.t.Errorf("read of %s: got\n%s\nwant\n%s", log, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
