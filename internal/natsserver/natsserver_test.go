package natsserver

import (
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestEntriesSurviveARestart(t *testing.T) {
	dir := t.TempDir()
	for round := range 2 {
		s, err := Start(Config{Dir: dir, Listen: "127.0.0.1:0", SyncAlways: round == 0})
		if err != nil {
			t.Fatal(err)
		}
		for _, option := range []nats.Option{nats.Name("by socket"), s.InProcess()} {
			nc, err := nats.Connect(s.URL(), option)
			if err != nil {
				t.Fatal(err)
			}
			js, err := jetstream.New(nc)
			if err != nil {
				t.Fatal(err)
			}
			stream, err := js.CreateOrUpdateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := js.Publish(t.Context(), "s", nil); err != nil {
				t.Fatal(err)
			}
			if info, err := stream.Info(t.Context()); err != nil || round == 1 && info.State.Msgs < 3 {
				t.Errorf("round %d: %+v, %v", round, info.State, err)
			}
			nc.Close()
		}
		if err := s.Shutdown(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDirectoryAndAddressBelongToOne(t *testing.T) {
	dir := t.TempDir()
	first, err := Start(Config{Dir: dir, Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := first.Shutdown(); err != nil {
			t.Error(err)
		}
	}()
	if _, err := Start(Config{Dir: dir, Listen: "127.0.0.1:0"}); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "--data") {
		t.Errorf("a second server on the directory: %v", err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	other := t.TempDir()
	if _, err := Start(Config{Dir: other, Listen: taken.Addr().String()}); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "--nats-listen") {
		t.Errorf("a taken address: %v", err)
	}
	again, err := Start(Config{Dir: other, Listen: "127.0.0.1:0"}) // the failed start must have let go of it
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Shutdown(); err != nil {
		t.Error(err)
	}
}

func TestBadAddresses(t *testing.T) {
	for _, addr := range []string{"", "4222", "localhost", "127.0.0.1:x"} {
		if _, err := Start(Config{Dir: t.TempDir(), Listen: addr}); err == nil || !strings.Contains(err.Error(), "host:port") {
			t.Errorf("%q: %v", addr, err)
		}
	}
}

func TestFullDiskIsAFailure(t *testing.T) {
	failed := make(chan error, 1)
	l := natsLogger{slog.New(slog.DiscardHandler), "/data", failed}
	l.Warnf("stream %q is slow", "S")
	l.Debugf("no space left")
	if len(failed) != 0 {
		t.Fatal("chatter counted as a failure")
	}
	for range 3 { // the log repeats itself, and nobody may be listening
		l.Errorf("JetStream failed to store a msg: write %s: no space left on device", "1.blk")
	}
	if err := <-failed; !errors.Is(err, ErrDiskFull) || !strings.Contains(err.Error(), "/data") {
		t.Fatalf("got %v", err)
	}
}
