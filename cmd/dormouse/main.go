// Command dormouse archives very many small logs from NATS JetStream into object storage and reads them back.
//
// This package is flags, configuration and wiring; what is done is in ingest, workers and store. Open serve.go for the
// server, root.go for the commands.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	signalled, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithCancel(context.Background())
	// A second signal finds the default behaviour: it ends the process at once. So it must be back before anybody hears of
	// the first.
	context.AfterFunc(signalled, func() { stop(); cancel() })
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run runs one command line and returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRootCommand()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	var usage usageError
	told := errors.As(err, &toldError{})
	switch {
	case told && errors.As(err, &usage):
		return exitUsage
	case told:
		return exitFailed
	case err == nil || errors.Is(err, syscall.EPIPE): // whoever read our output has seen enough
		return exitOK
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "dormouse: %v\nRun '%s --help' for usage.\n", err, cmd.CommandPath())
		return exitUsage
	default:
		fmt.Fprintf(stderr, "dormouse: %v\n", err)
		return exitFailed
	}
}
