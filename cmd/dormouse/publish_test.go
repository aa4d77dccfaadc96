package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"dormouse/internal/natstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestReadLine(t *testing.T) {
	const limit = 10
	long := strings.Repeat("x", limit)
	for _, tc := range []struct {
		input string
		want  []string
		fails bool
	}{
		{"", nil, false},
		{"a\nb\n", []string{"a", "b"}, false},
		{"a\nb", []string{"a", "b"}, false},
		{"\n\n", []string{"", ""}, false},
		{"a\r\nb\n", []string{"a\r", "b"}, false},
		{long + "\n" + long, []string{long, long}, false},
		{"a\n" + long + "x\n", []string{"a"}, true},
		{long + "x", nil, true},
		{strings.Repeat("y", 100), nil, true},
	} {
		in := bufio.NewReaderSize(strings.NewReader(tc.input), 16)
		var got []string
		line, err := readLine(in, limit)
		for ; err == nil; line, err = readLine(in, limit) {
			got = append(got, string(line))
		}
		if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", tc.want) || errors.Is(err, io.EOF) == tc.fails {
			t.Errorf("%q: got %q and %v, want %q", tc.input, got, err, tc.want)
		}
	}
}

// startNATS starts a server on a free port and returns a JetStream client of it, and its URL.
func startNATS(t *testing.T) (jetstream.JetStream, string) {
	t.Helper()
	srv := natstest.Start(t, func(o *natsserver.Options) {
		o.DontListen, o.Host, o.Port = false, "127.0.0.1",
			natsserver.RANDOM_PORT
	})
	if !srv.ReadyForConnections(10 * time.Second) {
		t.Fatal("the NATS server did not start")
	}
	_, js := natstest.Dial(t, srv)
	return js, srv.ClientURL()
}

type result struct {
	code        int
	out, errors string
}

func command(ctx context.Context, stdin io.Reader, args ...string) result {
	var out, errs lockedBuffer // the library may log when a command is over
	code := run(ctx, args, stdin, &out, &errs)
	return result{code, out.String(), errs.String()}
}

func TestPublish(t *testing.T) {
	js, url := startNATS(t)
	stream, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "LOGS", Subjects: []string{"logs.>"}})
	if err != nil {
		t.Fatal(err)
	}
	var input strings.Builder
	for i := range 3 * publishWindow {
		fmt.Fprintf(&input, "line %d\n", i+1)
	}
	got := command(t.Context(), strings.NewReader(input.String()+"no newline"), "publish", "a.b", "--nats-url", url)
	n := uint64(3*publishWindow + 1)
	if want := fmt.Sprintf("%d entries, last sequence %d\n", n, n); got.code != exitOK || got.out != want ||
		got.errors != "" {
		t.Fatalf("got %+v, want %q", got, want)
	}
	for seq := uint64(1); seq <= n; seq++ {
		want := fmt.Sprintf("line %d", seq)
		if seq == n {
			want = "no newline"
		}
		msg, err := stream.GetMsg(t.Context(), seq)
		if err != nil || string(msg.Data) != want || msg.Subject != "logs.a.b" {
			t.Fatalf("entry %d is %v, %v", seq, msg, err)
		}
	}
}

func TestPublishFails(t *testing.T) {
	js, url := startNATS(t)
	_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "LOGS", Subjects: []string{"logs.>"}, MaxMsgs: 10,
		Discard: jetstream.DiscardNew})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name  string
		input string
		args  []string
		code  int
		out   string
		says  []string
	}{
		{"no log", "x", []string{"publish", "nolog"}, exitUsage, "", []string{"nolog"}},
		{"no stream", "x\ny\n", []string{"publish", "a.b", "--prefix", "other"}, exitFailed, "0 entries",
			[]string{"line 1 ", "other.a.b"}},
		{"long line", "x\n" + strings.Repeat("y", 2<<20), []string{"publish", "a.b"}, exitFailed, "1 entries",
			[]string{"line 2:", "1048576"}},
		{"stream full", strings.Repeat("x\n", 20), []string{"publish", "a.c"}, exitFailed, " entries",
			[]string{"not stored", "full"}},
		{"nobody there", "x", []string{"publish", "a.b", "--nats-url", "nats://127.0.0.1:1"}, exitFailed, "",
			[]string{"--nats-url"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			args := tc.args
			if tc.name != "nobody there" {
				args = append(args, "--nats-url", url)
			}
			got := command(t.Context(), strings.NewReader(tc.input), args...)
			if got.code != tc.code || !strings.Contains(got.out, tc.out) {
				t.Errorf("got %+v", got)
			}
			for _, s := range tc.says {
				if !strings.Contains(got.errors, s) {
					t.Errorf("the error does not say %q: %s", s, got.errors)
				}
			}
		})
	}
}

// TestPublishInterrupted: an input that never ends does not keep an interrupted command, and what was sent is counted.
func TestPublishInterrupted(t *testing.T) {
	js, url := startNATS(t)
	stream, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "LOGS", Subjects: []string{"logs.>"}})
	if err != nil {
		t.Fatal(err)
	}
	silent, writer := io.Pipe()
	ctx, interrupt := context.WithCancel(t.Context())
	done := make(chan result, 1)
	go func() { done <- command(ctx, silent, "publish", "a.b", "--nats-url", url) }()
	if _, err := io.WriteString(writer, "one\ntwo\nhalf a line"); err != nil {
		t.Fatal(err)
	}
	until(t, "both lines are stored, though the input is silent", func() bool {
		info, err := stream.Info(t.Context())
		return err == nil && info.State.Msgs == 2
	})
	interrupt()
	got := <-done
	if got.code != exitFailed || got.out != "2 entries, last sequence 2\n" ||
		!strings.Contains(got.errors, "interrupted") {
		t.Errorf("got %+v", got)
	}
	if err := writer.Close(); err != nil { // lets the reading goroutine go
		t.Fatal(err)
	}
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if <-tick.C; time.Now().After(deadline) {
			t.Fatalf("it did not happen that %s", what)
		}
	}
}
