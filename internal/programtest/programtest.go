// Package programtest runs the built program in processes of its own, for tests that judge it from outside: what it
// prints, what it answers over HTTP, and whether what publishers were acked is there.
//
// Only tests import it. It imports nothing of Dormouse but package proc, which has the processes and commands, so that
// no test can go past the program. Open publisher.go and oracle.go for load and its judge.
package programtest

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"testing"

	"go.uber.org/goleak"

	"dormouse/internal/proc"
)

// Dormouse is the package of the program.
const Dormouse = "dormouse/cmd/dormouse"

// coverVariable names the folder where the processes of the program leave what they covered, see make cover. GOCOVERDIR
// itself is go test's.
const coverVariable = "COVER_PROCESSES"

// Main is the TestMain of a package that tests built programs: build puts them into dir, which is gone afterwards. A
// goroutine that is left when all tests have passed fails the package.
func Main(m *testing.M, build func(dir string) error) {
	dir, err := os.MkdirTemp("", "dormouse-programs-")
	if err == nil {
		// For the processes under test: a race ends them, and their end does not wait a second for one, which is the default.
		err = os.Setenv("GORACE", "halt_on_error=1 atexit_sleep_ms=0")
	}
	if cover := os.Getenv(coverVariable); err == nil && cover != "" {
		err = os.Setenv("GOCOVERDIR", cover)
	}
	if err == nil {
		err = build(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		_ = os.RemoveAll(dir)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(dir)
		os.Exit(code)
	}))
}

// Build builds the package pkg into a file; flags are those of `go build`. Without -race the program is static, as it
// is released, and compiled in the Makefile's way, which spares compiling the dependencies another time.
func Build(file, pkg string, flags ...string) error {
	race := slices.Contains(flags, "-race")
	if pkg == Dormouse && os.Getenv(coverVariable) != "" {
		flags = slices.Concat(flags, []string{"-cover", "-covermode=atomic", "-coverpkg=dormouse/..."})
	}
	if !race {
		flags = append(slices.Clone(flags), "-trimpath")
	}
	build := exec.Command("go", slices.Concat([]string{"build"}, flags, []string{"-o", file, pkg})...)
	if !race {
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
	}
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s: %w\n%s", pkg, err, out)
	}
	return nil
}

// FreeAddr returns an address of this machine that nobody listens on now.
func FreeAddr(t testing.TB) string {
	t.Helper()
	addr, err := proc.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	return addr
}
