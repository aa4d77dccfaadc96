package integration

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/nats-io/nats.go"
)

func lines(n int, what string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%s %d the quick brown fox\n", what, i+1)
	}
	return b.String()
}

// TestMainJob is the README's tour: publish a file, find it, read it back whole, before and after it is archived.
func TestMainJob(t *testing.T) { mainJob(t, newInstance(t, fast...).start()) }

func mainJob(t *testing.T, in *instance) {
	file := lines(3000, "web") + "\n" + "carriage return\r\n"
	if got := in.must(file, "publish", "acme.web"); got != "3002 entries, last sequence 3002\n" {
		t.Fatalf("publish printed %q", got)
	}
	if got := in.must("", "read", "acme.web"); got != file {
		t.Fatal("what is read before it is archived is not what was published")
	}
	nc, js := dial(t, in.nats)
	binaryEntry := nats.NewMsg("logs.acme.api")
	binaryEntry.Header.Add("Trace", "a")
	binaryEntry.Header.Add("Trace", "b")
	binaryEntry.Data = []byte{0xff, 0, '\n'}
	if _, err := js.PublishMsg(t.Context(), binaryEntry); err != nil {
		t.Fatal(err)
	}
	nc.Close()
	in.awaitQuiet(3003)
	if got := in.must("", "read", "acme.web"); got != file {
		t.Fatal("what is read from the archive is not what was published")
	}
	all := strings.SplitAfter(file, "\n")
	if got := in.must("", "read", "acme.web", "--from", "10", "--to", "12"); got != strings.Join(all[9:12], "") {
		t.Fatalf("sequences 10 to 12 are %q", got)
	}
	if got := in.must("", "read", "acme.web", "--from", "10m"); got != file {
		t.Fatal("--from 10m must give all of it")
	}
	if got := in.must("", "read", "acme.web", "--to", "10m"); got != "" {
		t.Fatalf("--to 10m must give nothing, gave %q", got)
	}
	checkJSONL(t, in.must("", "read", "acme.api", "--output", "jsonl"))
	checkListings(t, in)
	if got := in.must("", "verify"); !strings.Contains(got, "3003 entries: 0 bad") {
		t.Fatalf("verify printed %q", got)
	}
	for _, tc := range []struct {
		code int
		says string
		args []string
	}{
		{1, "no such log", []string{"read", "acme.nothing"}},
		{1, "no such log", []string{"stat", "acme.we"}},
		{2, "no log token", []string{"read", "acme"}},
		{2, "--from", []string{"read", "acme.web", "--from", "yesterday"}},
		{2, "unknown flag", []string{"ls", "--nonsense"}},
		{2, "arg", []string{"stat"}},
		{2, "unknown command", []string{"nonsense"}},
	} {
		if o := in.run("", tc.args...); o.Code != tc.code || !strings.Contains(o.Err, tc.says) || o.Out != "" {
			t.Errorf("%v: exit %d, %q, want %d and %q", tc.args, o.Code, o.Err, tc.code, tc.says)
		}
	}
}

func checkJSONL(t *testing.T, text string) {
	t.Helper()
	var e struct {
		Log      string
		Seq      uint64
		Headers  map[string][]string
		Data     string
		Encoding string
	}
	if err := json.Unmarshal([]byte(text), &e); err != nil {
		t.Fatal(err)
	}
	data, err := base64.StdEncoding.DecodeString(e.Data)
	if err != nil || string(data) != "\xff\x00\n" || e.Encoding != "base64" ||
		strings.Join(e.Headers["Trace"], "") != "ab" || e.Seq != 3003 {
		t.Fatalf("jsonl is %s", text)
	}
}

func checkListings(t *testing.T, in *instance) {
	t.Helper()
	rows := strings.Split(strings.TrimSpace(in.must("", "ls", "acme.")), "\n")
	if len(rows) != 3 || !strings.HasPrefix(rows[1], "acme.api") || !strings.HasPrefix(rows[2], "acme.web") {
		t.Fatalf("ls printed %q", rows)
	}
	var s struct {
		Entries, Bytes, First, Last uint64
		Archived, Buffered          struct{ Entries uint64 }
	}
	if err := json.Unmarshal([]byte(in.must("", "stat", "acme.web", "--output", "json")), &s); err != nil {
		t.Fatal(err)
	}
	if s.Entries != 3002 || s.First != 1 || s.Last != 3002 || s.Archived.Entries != 3002 || s.Buffered.Entries != 0 {
		t.Fatalf("stat says %+v", s)
	}
}

// TestFollow reads on while entries come, are archived and are trimmed.
func TestFollow(t *testing.T) {
	t.Parallel()
	in := newInstance(t, fast...).start()
	in.must(lines(50, "a"), "publish", "t.follow")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := in.cli().Command(ctx, "read", "t.follow", "--from", "10m", "--follow")
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	printed := bufio.NewScanner(pipe)
	expect := func(text string) {
		t.Helper()
		for want := range strings.Lines(text) {
			if !printed.Scan() || printed.Text() != strings.TrimSuffix(want, "\n") {
				t.Fatalf("followed %q, want %q (%v)", printed.Text(), want, printed.Err())
			}
		}
	}
	expect(lines(50, "a"))
	for _, part := range []string{"b", "c", "d"} {
		in.must(lines(70, part), "publish", "t.follow")
		expect(lines(70, part))
		in.awaitQuiet(0) // archived and trimmed before the next part
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if printed.Scan() {
		t.Fatalf("printed %q after the last entry", printed.Text())
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("following ended with %v", err)
	}
}

// TestVerifyNamesTheBadObject damages one byte of one segment.
func TestVerifyNamesTheBadObject(t *testing.T) {
	t.Parallel()
	in := newInstance(t, fast...).start()
	in.must(lines(500, "x"), "publish", "t.bad")
	in.awaitQuiet(500)
	segments, err := filepath.Glob(filepath.Join(in.data, "archive", "0", "*.sst"))
	if err != nil || len(segments) == 0 {
		t.Fatalf("no segments in the archive: %v", err)
	}
	data, err := os.ReadFile(segments[0])
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/3] ^= 0x10
	if err := os.WriteFile(segments[0], data, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"verify"}, {"verify", "t.bad"}} {
		if o := in.run("", args...); o.Code != 1 || !strings.Contains(o.Err, filepath.Base(segments[0])) {
			t.Errorf("%v: exit %d, %q, want 1 and the name of %s", args, o.Code, o.Err, segments[0])
		}
	}
}

// TestShutdown ends the server in order under load, and finds everything after a restart.
func TestShutdown(t *testing.T) {
	t.Parallel()
	in := newInstance(t, fast...).start()
	o := newOracle()
	load := startPublishers(t, in.nats, o, 1)
	in.until("some commits", func() bool { return in.metrics()["dormouse_segments_committed_total"] > 5 })
	if code := in.stop(); code != 0 {
		t.Fatalf("SIGTERM under load: exit %d\n%s", code, in.Tail())
	}
	in.start()
	load.Stop()
	o.check(in)
	in.awaitQuiet(o.last())
	o.check(in)
}
