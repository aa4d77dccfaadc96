package dirlock

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestOneHolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "there", "yet")
	first, err := Take(dir)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Take(dir)
	if pid := fmt.Sprint(os.Getpid()); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), dir) ||
		!strings.Contains(err.Error(), pid) {
		t.Errorf("the second: %v", err)
	}
	if err := first.Release(); err != nil {
		t.Fatal(err)
	}
	again, err := Take(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Release(); err != nil {
		t.Fatal(err)
	}
}

// TestNameOfTheHolder: what stands in the file is a help and no more, whatever it is.
func TestNameOfTheHolder(t *testing.T) {
	for text, want := range map[string]string{"17\n": " (17)", "": "", "x": "", strings.Repeat("7", 100): "",
		"\x00\x1b[31m": ""} {
		name := filepath.Join(t.TempDir(), "LOCK")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := holder(f); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
		_ = f.Close() // only read
	}
}

func TestNoDirectory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Take(file); err == nil || errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), file) {
		t.Errorf("a file in its place: %v", err)
	}
}
