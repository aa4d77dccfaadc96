package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/uuid"

	"dormouse/internal/dirlock"
)

// lockData keeps the data directory for this process, for as long as it lives: the database is closed while nothing
// happens, so that its own lock does not. A process that has nothing there locks nothing.
func (p *server) lockData(context.Context) error {
	if !p.cfg.embedded() && !p.cfg.has(roleIngest) {
		return nil
	}
	lock, err := dirlock.Take(p.cfg.data)
	switch {
	case errors.Is(err, dirlock.ErrUnsupported):
		p.log.Warn("the data directory cannot be locked: see to it that no other process uses it", "error", err)
		return nil
	case err != nil:
		return fmt.Errorf("--data: %w (stop that one, or choose another directory)", err)
	}
	p.onClose(lock.Release)
	return nil
}

// nodeID returns the name of this process's data directory, made at its first start: it tells a node that comes back
// from another one.
func nodeID(dir string) (string, error) {
	path := filepath.Join(dir, "node-id")
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return "", fmt.Errorf("making the data directory: %w", err)
	}
	data, err := os.ReadFile(path)
	if id := strings.TrimSpace(string(data)); err == nil && id != "" {
		return id, nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("reading the node's name: %w", err)
	}
	id := uuid.NewString()
	if err := os.WriteFile(path, []byte(id+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("writing the node's name: %w", err)
	}
	return id, nil
}
