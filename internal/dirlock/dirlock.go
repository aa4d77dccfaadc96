// Package dirlock keeps a directory for one process, as long as that lives.
//
// The lock is flock's on a file LOCK in the directory: it goes with the process, also when that is killed. The file
// itself stays, and names who holds it; what it says means nothing without the lock.
package dirlock

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// ErrInUse is wrapped when another process has the directory.
var ErrInUse = errors.New("in use by another process")

// ErrUnsupported is wrapped when the directory's file system has no locks.
var ErrUnsupported = errors.New("its file system has no locks")

const fileName = "LOCK"

// Lock is a directory that this process has.
type Lock struct{ file *os.File }

// Take makes the directory if it is not there and locks it. The error wraps ErrInUse, with the other process's ID if
// that is known, or ErrUnsupported, and names the directory.
func Take(dir string) (*Lock, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("making the directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, fileName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the directory: %w", err)
	}
	if err := lock(f); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = fmt.Errorf("%w%s", ErrInUse, holder(f))
		}
		return nil, errors.Join(fmt.Errorf("the directory %s cannot be locked: %w", dir, err), f.Close())
	}
	// The lock is held even if the disk has no room for the name.
	_ = f.Truncate(0)
	_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return &Lock{f}, nil
}

// lock takes the lock of an open file, or returns EWOULDBLOCK when somebody has it.
func lock(f *os.File) error {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.ENOTSUP), errors.Is(err, syscall.ENOSYS), errors.Is(err, syscall.ENOLCK):
			return fmt.Errorf("%w: %w", ErrUnsupported, err)
		}
		return err
	}
}

// holder says which process has the lock, if its file does.
func holder(f *os.File) string {
	text, err := io.ReadAll(io.NewSectionReader(f, 0, 32))
	pid, perr := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || perr != nil {
		return ""
	}
	return fmt.Sprintf(" (%d)", pid)
}

// Release gives the directory up.
func (l *Lock) Release() error { return l.file.Close() }
