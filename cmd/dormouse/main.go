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

	"github.com/spf13/cobra"
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
	out := &output{w: stdout}
	root := newRootCommand()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(out)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if lost := out.failed(); lost != nil && (err == nil || errors.Is(err, lost)) {
		err = lost
	}
	if end := natsEnded(cmd); end != nil && err != nil && !errors.Is(err, end) {
		err = end
	}
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
		fmt.Fprintf(stderr, "dormouse: %s\nRun '%s --help' for usage.\n", publicError(cmd, err), cmd.CommandPath())
		return exitUsage
	default:
		fmt.Fprintf(stderr, "dormouse: %s\n", publicError(cmd, advise(err)))
		return exitFailed
	}
}

// natsEnded returns why NATS will never answer a command, if that is what ended it.
func natsEnded(cmd *cobra.Command) error {
	if cmd.Context() == nil { // a usage error
		return nil
	}
	return ended(cmd.Context())
}
