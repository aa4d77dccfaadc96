package natsserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"syscall"

	"dormouse/internal/loglimit"
)

// ErrFailed is what Failed delivers: JetStream takes no more writes.
var ErrFailed = errors.New("JetStream has stopped writing")

// mostLines is how many warnings and errors of the server are logged in a second. What goes wrong in it goes wrong for
// every message and every connection.
const mostLines = 10

// natsLogger passes the server's messages on; its notices are chatter to us. The messages are also the only sign that
// JetStream gives of files that it could not write.
type natsLogger struct {
	log    *slog.Logger
	dir    string
	failed chan<- error // cap 1
}

func newLogger(log *slog.Logger, dir string, failed chan<- error) natsLogger {
	return natsLogger{slog.New(loglimit.New(log.Handler(), mostLines)), dir, failed}
}

func (l natsLogger) pass(level slog.Level, format string, v []any) {
	text := fmt.Sprintf(format, v...)
	if level >= slog.LevelWarn && hasFailed(format) {
		l.fail(
			fmt.Errorf(
				"%w to %s: %s and start again, no acked entry is lost: %s",
				ErrFailed,
				l.dir,
				remedy(text),
				text,
			),
		)
	}
	l.log.Log(context.Background(), level, "nats: "+text)
}

func (l natsLogger) fail(err error) {
	select {
	case l.failed <- err:
	default: // the first one counts
	}
}

// hasFailed reports whether a message says that a stream, a consumer or all of JetStream takes no more writes until it
// is started again. Such messages begin with the server's own words; those about a client begin with its address, and
// then have what it says of itself even in the format.
func hasFailed(format string) bool {
	for _, own := range []string{"Filestore [", "RAFT [", "JetStream stream '", "JetStream consumer '"} {
		if strings.HasPrefix(format, own) && strings.Contains(format, "ritical write error: %v") {
			return true
		}
	}
	for _, own := range []string{"Filestore [", "Filesystem ", "File system "} {
		if strings.HasPrefix(format, own) && strings.Contains(format, "disabling JetStream") {
			return true
		}
	}
	return strings.HasPrefix(format, "JetStream out of ") && strings.HasSuffix(format, "will be DISABLED")
}

// remedy says what to do about what the operating system says.
func remedy(text string) string {
	switch has := func(no syscall.Errno) bool { return strings.Contains(text, no.Error()) }; {
	case has(syscall.ENOSPC),
		has(syscall.EDQUOT),
		strings.Contains(text, "out of space"),
		strings.Contains(text, "resources"):
		return "make room on the disk"
	case has(syscall.EMFILE), has(syscall.ENFILE):
		return "raise the limit of open files (ulimit -n, LimitNOFILE)"
	case has(syscall.EROFS), has(syscall.EACCES), has(syscall.EPERM), strings.Contains(text, "permission denied"):
		return "make the directory writable"
	default:
		return "look after the disk"
	}
}

func (l natsLogger) Noticef(format string, v ...any) { l.pass(slog.LevelDebug, format, v) }
func (l natsLogger) Warnf(format string, v ...any)   { l.pass(slog.LevelWarn, format, v) }
func (l natsLogger) Errorf(format string, v ...any)  { l.pass(slog.LevelError, format, v) }
func (l natsLogger) Debugf(format string, v ...any)  { l.pass(slog.LevelDebug, format, v) }
func (l natsLogger) Tracef(format string, v ...any)  { l.pass(slog.LevelDebug, format, v) }

// Fatalf is called when the server cannot start; a server with a main of its own would end here.
func (l natsLogger) Fatalf(format string, v ...any) {
	l.pass(slog.LevelError, format, v)
	l.fail(fmt.Errorf(format, v...))
}
