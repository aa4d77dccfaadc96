package main

import (
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// fullOutput takes some bytes and then fails.
type fullOutput struct {
	room int
	err  error
}

func (f *fullOutput) Write(p []byte) (int, error) {
	if len(p) > f.room {
		return 0, f.err
	}
	f.room -= len(p)
	return len(p), nil
}

// TestLostOutputIsAFailure: every command whose output cannot be written says so once and exits with 1.
func TestLostOutputIsAFailure(t *testing.T) {
	served := background(
		t,
		"serve",
		"--data",
		t.TempDir(),
		"--max-delay",
		"50ms",
		"--http",
		"127.0.0.1:0",
		"--nats-listen",
		"127.0.0.1:0",
	)
	served.until("readiness", served.ready)
	found := natsAddress.FindStringSubmatch(served.errors.String())
	if found == nil {
		t.Fatalf("no address in %s", served.errors.String())
	}
	t.Setenv("DORMOUSE_NATS_URL", found[1])
	if got := command(t.Context(), strings.NewReader("one\ntwo\n"), "publish", "a.b"); got.code != exitOK {
		t.Fatalf("publish: %+v", got)
	}
	lost := errors.New("the output has no room")
	for _, line := range []string{
		"--help", "serve --help", "version", "--version", "help read", "completion bash", "completion zsh", "completion fish",
		"completion powershell",
		"ls", "ls --output jsonl", "ls nothing", "stat a.b", "stat a.b --output json", "status", "status --output json",
		"read a.b",
		"read a.b --output jsonl", "read a.b --follow", "verify", "publish a.c", "provision", "provision --output json",
	} {
		words := strings.Split(line, " ")
		if line == "ls nothing" { // prints nothing: there is nothing to lose
			if got := command(t.Context(), nil, words...); got.out != "" {
				t.Errorf("%s: %+v", line, got)
			}
			continue
		}
		for _, room := range []int{0, 1} {
			var said strings.Builder
			began := time.Now()
			code := run(t.Context(), words, strings.NewReader("x\n"), &fullOutput{room, lost}, &said)
			if took := time.Since(began); code != exitFailed || strings.Count(said.String(), lost.Error()) != 1 ||
				strings.Count(said.String(), "\n") != 1 ||
				took > natsPatience {
				t.Errorf("%s with room for %d after %s: exit %d, %q", line, room, took, code, said.String())
			}
			said.Reset()
			if code := run(t.Context(), words, strings.NewReader("x\n"), &fullOutput{room, syscall.EPIPE},
				&said); code != exitOK ||
				said.String() != "" {
				t.Errorf("%s read by nobody: exit %d, %q", line, code, said.String())
			}
		}
	}
}

// TestPublishSaysWhatFailedFirst: that its output is lost as well does not hide why nothing was stored.
func TestPublishSaysWhatFailedFirst(t *testing.T) {
	js, url := startNATS(t)
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "OTHER",
		Subjects: []string{"other"}}); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	code := run(
		t.Context(),
		[]string{"publish", "a.b", "--nats-url", url},
		strings.NewReader("x\n"),
		&fullOutput{0, errors.New("no room")},
		&said,
	)
	if code != exitFailed || !strings.Contains(said.String(), "line 1 was not stored") {
		t.Errorf("exit %d, %q", code, said.String())
	}
}
