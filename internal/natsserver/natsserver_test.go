package natsserver

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

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
	if _, err := Start(Config{Dir: dir, Listen: "127.0.0.1:0"}); !errors.Is(err, ErrInUse) ||
		!strings.Contains(err.Error(), "--data") {
		t.Errorf("a second server on the directory: %v", err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	other := t.TempDir()
	if _, err := Start(Config{Dir: other, Listen: taken.Addr().String()}); !errors.Is(err, ErrInUse) ||
		!strings.Contains(err.Error(), "--nats-listen") {
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
		if _, err := Start(Config{Dir: t.TempDir(), Listen: addr}); err == nil ||
			!strings.Contains(err.Error(), "host:port") {
			t.Errorf("%q: %v", addr, err)
		}
	}
}

// TestFilesThatCannotBeWritten: with the folder of a stream's files gone, the next file of it cannot be made.
func TestFilesThatCannotBeWritten(t *testing.T) {
	dir := t.TempDir()
	s, err := Start(Config{Dir: dir, Listen: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Shutdown(); err != nil {
			t.Error(err)
		}
	}()
	nc, err := nats.Connect("", s.InProcess())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}}); err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(dir, "jetstream", "$G", "streams", "S", "msgs")
	if err := errors.Join(os.RemoveAll(folder), os.WriteFile(folder, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for range 40 { // several files' worth
		if err := nc.Publish("s", make([]byte, 512<<10)); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case err := <-s.Failed():
		if !errors.Is(err, ErrFailed) || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "msgs") {
			t.Errorf("got %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("nobody noticed")
	}
}

// TestWhatIsAFailure takes the formats from the server.
func TestWhatIsAFailure(t *testing.T) {
	for _, tc := range []struct{ format, says, remedy string }{
		{"Filestore [LOGS] Critical write error: %v", "write 1.blk: no space left on device", "make room"},
		{"RAFT [x - _meta_] Critical write error: %v", "disk quota exceeded", "make room"},
		{"JetStream stream '%s > LOGS' critical write error: %v", "open 2.blk: too many open files", "open files"},
		{"JetStream consumer '%s > LOGS > workers' critical write error: %v", "sync: input/output error",
			"look after the disk"},
		{"Filestore [LOGS] File system permission denied when flushing stream state, disabling JetStream: %v",
			"permission denied", "writable"},
		{"Filesystem permission denied while writing msg, disabling JetStream: %v", "permission denied", "writable"},
		{"File system permission denied while writing, disabling JetStream", "", "writable"},
		{"JetStream out of resources, will be DISABLED", "", "make room"},
		{"JetStream out of space, will be DISABLED", "", "make room"},
	} {
		failed := make(chan error, 1)
		l := newLogger(slog.New(slog.DiscardHandler), "/data", failed)
		for range 3 { // the log repeats itself, and nobody may be listening
			l.Errorf(tc.format, "$G", tc.says)
		}
		if err := <-failed; !errors.Is(err, ErrFailed) || !strings.Contains(err.Error(), "/data") ||
			!strings.Contains(err.Error(), tc.remedy) {
			t.Errorf("%s: %v", tc.format, err)
		}
	}
}

// TestWhatIsNoFailure: what a client says of itself is in the format of what is said about it.
func TestWhatIsNoFailure(t *testing.T) {
	failed := make(chan error, 1)
	l := newLogger(slog.New(slog.DiscardHandler), "/data", failed)
	l.Warnf("stream %q is slow", "S")
	l.Debugf("Filestore [S] Critical write error: %v", "no space left on device")
	l.Errorf(`127.0.0.1:5 - cid:7 - "JetStream out of space, will be DISABLED" - client parser ERROR, proto='%s...'`,
		"no space left on device")
	l.Errorf("Temporary %s Accept Error(%v), sleeping %dms", "Client", "too many open files", 10)
	l.Errorf("%s", "JetStream failed to store a msg on stream '$G > S': no space left on device")
	if len(failed) != 0 {
		t.Error(<-failed)
	}
}

// TestClientsSayNoFailure: bytes of a client that the server logs do not end the process.
func TestClientsSayNoFailure(t *testing.T) {
	var log lockedBuffer
	s, err := Start(Config{Dir: t.TempDir(), Listen: "127.0.0.1:0", Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Shutdown(); err != nil {
			t.Error(err)
		}
	}()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.URL(), "nats://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	says := `CONNECT {"lang":"Filestore [x] Critical write error: %v",` +
		`"version":"JetStream out of space, will be DISABLED"}` + "\r\nx: no space left on device, will be DISABLED\r\n"
	if _, err := io.WriteString(conn, says); err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); !strings.Contains(log.String(), "no space left"); time.Sleep(time.Millisecond) {
		if time.Since(began) > 20*time.Second {
			t.Fatalf("the server did not log what the client said:\n%s", log.String())
		}
	}
	select {
	case err := <-s.Failed():
		t.Error(err)
	default:
	}
}

// lockedBuffer may be read while a logger writes to it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestServerThatCannotStart says why, and does not wait for what will not come.
func TestServerThatCannotStart(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "jetstream"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	_, err := Start(Config{Dir: dir, Listen: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), "JetStream") || !strings.Contains(err.Error(), dir) ||
		time.Since(began) > startTimeout/2 {
		t.Errorf("after %s: %v", time.Since(began), err)
	}
}

// hanging is a server that does not stop until it is let go.
type hanging struct{ letGo chan struct{} }

func (h hanging) Shutdown()        { <-h.letGo }
func (h hanging) WaitForShutdown() {}

// TestServerThatDoesNotStop: the process must end all the same.
func TestServerThatDoesNotStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hanging{make(chan struct{})}
		began := time.Now()
		err := stop(h)
		if err == nil || !strings.Contains(err.Error(), "has not closed") || time.Since(began) != stopTimeout {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
		close(h.letGo)
		if err := stop(h); err != nil {
			t.Error(err)
		}
	})
}
