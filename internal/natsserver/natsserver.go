// Package natsserver runs the NATS server that `dormouse serve` embeds when it is given no other: JetStream on local
// files, with a listener for clients.
//
// It knows nothing of Dormouse's streams; open topology for those. log.go has how it notices that JetStream has failed.
package natsserver

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"dormouse/internal/dirlock"
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

// startTimeout bounds the wait for a server that recovers its streams; readyTry is how often it is asked meanwhile.
const (
	startTimeout = 2 * time.Minute
	readyTry     = 200 * time.Millisecond
)

// stopTimeout bounds the wait for a server that closes its files. It takes milliseconds to a second; but after a write
// that failed, such as on a full disk, parts of a server wait for each other for ever.
const stopTimeout = 10 * time.Second

// ErrInUse is wrapped when another process has the directory or the address.
var ErrInUse = dirlock.ErrInUse

// Server is a running server.
type Server struct {
	server *server.Server
	lock   *dirlock.Lock // nil on a file system without locks
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
	s := &Server{failed: make(chan error, 1)}
	if s.lock, err = dirlock.Take(cfg.Dir); err != nil && !errors.Is(err, dirlock.ErrUnsupported) {
		return nil, fmt.Errorf("%w: stop that one, or choose another --data", err)
	}
	if s.server, err = start(cfg, host, port, s.failed); err != nil {
		return nil, errors.Join(err, s.unlock())
	}
	return s, nil
}

func (s *Server) unlock() error {
	if s.lock == nil {
		return nil
	}
	return s.lock.Release()
}

func start(cfg Config, host string, port int, failed chan error) (*server.Server, error) {
	if port != server.RANDOM_PORT { // the server itself would end the process on a taken port
		l, err := net.Listen("tcp", cfg.Listen)
		if err != nil {
			return nil, fmt.Errorf("listening for NATS clients on %s: %w: %w (choose another --nats-listen, or use that "+
				"server with --nats-url)", cfg.Listen, ErrInUse, err)
		}
		if err := l.Close(); err != nil {
			return nil, err
		}
	}
	s, err := server.NewServer(&server.Options{
		ServerName: "dormouse", Host: host, Port: port,
		MaxConn: mostClients(), JetStream: true, StoreDir: cfg.Dir, SyncInterval: cfg.SyncInterval,
		SyncAlways: cfg.SyncAlways,
		NoSigs:     true, DisableShortFirstPing: true,
		// The cache has room for 1,024 subjects: of many logs, each message would only push another one out.
		NoSublistCache: true,
	})
	if err != nil {
		return nil, fmt.Errorf("configuring the embedded NATS server: %w", err)
	}
	s.SetLoggerV2(newLogger(cfg.Logger, cfg.Dir, failed), false, false, false)
	s.Start()
	if err := awaitReady(s, failed); err != nil {
		return nil, fmt.Errorf("the embedded NATS server with its files in %s: %w", cfg.Dir, errors.Join(err, stop(s)))
	}
	return s, nil
}

// awaitReady returns when clients can connect, or at once when the server says that it cannot go on.
func awaitReady(s *server.Server, failed <-chan error) error {
	for began := time.Now(); !s.ReadyForConnections(readyTry) || !s.JetStreamEnabled(); {
		select {
		case err := <-failed:
			return err
		default:
		}
		if time.Since(began) > startTimeout {
			return fmt.Errorf("not ready in %s: see its messages above; is the disk full?", startTimeout)
		}
	}
	return nil
}

// mostClients bounds the connections to a quarter of the files that the process may open. JetStream, the local database
// and the bucket have half. The last quarter is for connections that wait to be refused: the server takes each before
// it looks at the bound. Go has raised the files to the hard limit when the process started.
func mostClients() int {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return server.DEFAULT_MAX_CONNECTIONS
	}
	return int(min(files.Cur/4, server.DEFAULT_MAX_CONNECTIONS))
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

// URL is where clients connect.
func (s *Server) URL() string { return s.server.ClientURL() }

// Map sends what clients publish to subjects that match from to another subject, in the account of all clients. It
// takes effect at once.
func (s *Server) Map(from, to string) error {
	if err := s.server.GlobalAccount().AddMapping(from, to); err != nil {
		return fmt.Errorf("mapping %s to %s: %w", from, to, err)
	}
	return nil
}

// InProcess makes a client connect without a socket.
func (s *Server) InProcess() nats.Option { return nats.InProcessServer(s.server) }

// Shutdown stops the server and returns when it has closed its files. If it does not in ten seconds, that is an error:
// it keeps its goroutines and its lock, and the process must end. What was acked is as safe as after a kill.
func (s *Server) Shutdown() error {
	if err := stop(s.server); err != nil {
		return err
	}
	return s.unlock()
}

// stop stops a server, or gives up waiting for that.
func stop(s interface {
	Shutdown()
	WaitForShutdown()
}) error {
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		s.Shutdown()
		s.WaitForShutdown()
	}()
	select {
	case <-stopped:
		return nil
	case <-time.After(stopTimeout):
		return fmt.Errorf("the embedded NATS server has not closed its files in %s: ending without it", stopTimeout)
	}
}

// Failed delivers one error when the server can no longer do its work: after a write fails JetStream goes on refusing
// what it is told, also when the cause is gone. Only a new start helps.
func (s *Server) Failed() <-chan error { return s.failed }
