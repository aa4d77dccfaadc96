package proc

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
)

// CLI is the program as somebody uses it at a terminal.
type CLI struct {
	Binary string
	NATS   string // URLs of the servers that commands talk to
}

// Command prepares a command of the program. It is killed when ctx ends.
func (c CLI) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.Binary, args...)
	cmd.Env = append(os.Environ(), "DORMOUSE_NATS_URL="+c.NATS)
	return cmd
}

// Result is what a command printed and how it ended.
type Result struct {
	Out, Err string
	Code     int // see ExitCode
}

// Run runs a command of the program to its end. Of one that cannot be started, Err says why.
func (c CLI) Run(ctx context.Context, stdin string, args ...string) Result {
	cmd := c.Command(ctx, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		errOut.WriteString(err.Error())
	}
	return Result{out.String(), errOut.String(), ExitCode(err)}
}

// ExitCode returns the exit code of a process that ended with err: 0 if that is nil, -1 if it is no exit code.
func ExitCode(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	default:
		return -1
	}
}
