// Gotest runs `go test` for the Makefile and says meanwhile what is going on: a line for each package as it ends, with
// its time, and now and then what is being built or run. Of what passes it shows no output, of what fails all of it.
//
//	go run ./internal/gotest [-long] FLAGS-AND-PACKAGES-OF-GO-TEST
//
// With -long it runs only the tests that have a long form, that is, those that ask testing.Short(); open long.go for
// how it finds them, progress.go for what it prints. It imports nothing of Dormouse.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
)

func main() {
	code, err := run(os.Args[1:], os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "gotest:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// run runs go test with args and returns its exit code.
func run(args []string, out io.Writer) (code int, err error) {
	if len(args) > 0 && args[0] == "-long" {
		if args, err = longForms(args[1:]); err != nil {
			return 1, err
		}
	}
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, os.Interrupt) // go test gets it as well, and ends
	defer signal.Stop(interrupts)
	cmd := exec.Command("go", slices.Concat([]string{"test", "-json"}, args)...)
	cmd.Stderr = os.Stderr
	events, err := cmd.StdoutPipe()
	if err != nil {
		return 1, err
	}
	if err := cmd.Start(); err != nil {
		return 1, err
	}
	failed := report(events, out)
	err = cmd.Wait()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return max(exit.ExitCode(), 1), nil
	}
	if err == nil && failed {
		err = errors.New("go test says that all is well, and something failed")
	}
	return 0, err
}
