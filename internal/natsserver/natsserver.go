// Package natsserver runs the NATS server that `dormouse serve` embeds when it is given no other: JetStream on local
// files, with a listener for clients.
//
// It knows nothing of Dormouse's streams; open topology for those.
package natsserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// Config is what a server needs.
type Config struct {
	Dir          string        // JetStream's files; one server at a time holds it
	Listen       string        // host:port for clients; port 0 takes a free one
	SyncInterval time.Duration // how often files are synced: what a power failure can take of acked entries; 0 is 1 s
	SyncAlways   bool          // sync before every ack instead
	Logger       *slog.Logger  // nil: slog.Default()
}

// DefaultSyncInterval is far below the server's own default of two minutes, since nothing else holds the entries.
const DefaultSyncInterval = time.Second

// startTimeout bounds the wait for a server that recovers its streams.
const startTimeout = 2 * time.Minute

// ErrInUse is wrapped when another process has the directory or the address.
var ErrInUse = errors.New("in use by another process")

// ErrDiskFull is what Failed delivers when JetStream's files could not be written.
var ErrDiskFull = errors.New("the disk is full")

// Server is a running server.
type Server struct {
	server *server.Server
	lock   *os.File
	failed chan error
}

// Start starts a server and returns when clients can connect. The directory is locked before anything in it is touched.
func Start(cfg Config) (*Server, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.SyncInterval <= 0 {
		cfg.SyncInterval = DefaultSyncInterval
	}
	host, port, err := splitAddr(cfg.Listen)
	if err != nil {
		return nil, err
	}
	lock, err := lockDir(cfg.Dir)
	if err != nil {
		return nil, err
	}
	failed := make(chan error, 1)
	s, err := start(cfg, host, port, failed)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return &Server{server: s, lock: lock, failed: failed}, nil
}

func start(cfg Config, host string, port int, failed chan<- error) (*server.Server, error) {
	if port != server.RANDOM_PORT { // the server itself would end the process on a taken port
		l, err := net.Listen("tcp", cfg.Listen)
		if err != nil {
			return nil, fmt.Errorf("listening for NATS clients on %s: %w: %w (choose another --nats-listen, or use that server with --nats-url)", cfg.Listen, ErrInUse, err)
		}
		if err := l.Close(); err != nil {
			return nil, err
		}
	}
	s, err := server.NewServer(&server.Options{
		ServerName: "dormouse", Host: host, Port: port,
		JetStream: true, StoreDir: cfg.Dir, SyncInterval: cfg.SyncInterval, SyncAlways: cfg.SyncAlways,
		NoSigs: true, DisableShortFirstPing: true,
	})
	if err != nil {
		return nil, fmt.Errorf("configuring the embedded NATS server: %w", err)
	}
	s.SetLoggerV2(natsLogger{cfg.Logger, cfg.Dir, failed}, false, false, false)
	s.Start()
	if !s.ReadyForConnections(startTimeout) || !s.JetStreamEnabled() {
		s.Shutdown()
		s.WaitForShutdown()
		return nil, fmt.Errorf("the embedded NATS server did not become ready in %s: see its messages above; is the disk of %s full?", startTimeout, cfg.Dir)
	}
	return s, nil
}

func splitAddr(addr string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(addr)
	if err == nil {
		port, err = strconv.Atoi(text)
	}
	if err != nil {
		return "", 0, fmt.Errorf("address %q for NATS clients: %w, want host:port", addr, err)
	}
	if port == 0 {
		port = server.RANDOM_PORT
	}
	return host, port, nil
}

// lockDir takes the directory for this process. The lock goes with the process, also when it is killed.
func lockDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("making the state directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "LOCK"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the state directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("the state directory %s is %w: stop that one, or choose another --data", dir, ErrInUse), f.Close())
	}
	return f, nil
}

// URL is where clients connect.
func (s *Server) URL() string { return s.server.ClientURL() }

// Map sends what clients publish to subjects that match from to another subject, in the account of all clients. It takes
// effect at once.
func (s *Server) Map(from, to string) error {
	if err := s.server.GlobalAccount().AddMapping(from, to); err != nil {
		return fmt.Errorf("mapping %s to %s: %w", from, to, err)
	}
	return nil
}

// InProcess makes a client connect without a socket.
func (s *Server) InProcess() nats.Option { return nats.InProcessServer(s.server) }

// Shutdown stops the server and returns when it has closed its files.
func (s *Server) Shutdown() error {
	s.server.Shutdown()
	s.server.WaitForShutdown()
	return s.lock.Close()
}

// Failed delivers one error when the server can no longer do its work: after a write fails for want of space, JetStream
// goes on refusing what it is told, also when there is space again. Only a new start helps.
func (s *Server) Failed() <-chan error { return s.failed }

// natsLogger passes the server's messages on; its notices are chatter to us. The messages are also the only sign that
// JetStream gives of a disk that is full.
type natsLogger struct {
	log    *slog.Logger
	dir    string
	failed chan<- error // cap 1
}

func (l natsLogger) pass(level slog.Level, format string, v []any) {
	text := fmt.Sprintf(format, v...)
	l.log.Log(context.Background(), level, "nats: "+text)
	if level < slog.LevelWarn || !strings.Contains(text, "no space left") && !strings.Contains(text, "will be DISABLED") {
		return
	}
	select {
	case l.failed <- fmt.Errorf("%w: JetStream cannot write to %s; make room and start again, no acked entry is lost: %s", ErrDiskFull, l.dir, text):
	default:
	}
}

func (l natsLogger) Noticef(format string, v ...any) { l.pass(slog.LevelDebug, format, v) }
func (l natsLogger) Warnf(format string, v ...any)   { l.pass(slog.LevelWarn, format, v) }
func (l natsLogger) Errorf(format string, v ...any)  { l.pass(slog.LevelError, format, v) }
func (l natsLogger) Fatalf(format string, v ...any)  { l.pass(slog.LevelError, format, v) }
func (l natsLogger) Debugf(format string, v ...any)  { l.pass(slog.LevelDebug, format, v) }
func (l natsLogger) Tracef(format string, v ...any)  { l.pass(slog.LevelDebug, format, v) }
