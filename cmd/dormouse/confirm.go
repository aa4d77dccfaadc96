package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// errNotConfirmed is what a command ends with that was not confirmed.
var errNotConfirmed = errors.New("nothing was done")

// confirm asks on a terminal whether to do something that cannot be undone, and returns nil when the answer is yes.
// Without a terminal --yes is needed.
func confirm(cmd *cobra.Command, what string) error {
	in, ok := cmd.InOrStdin().(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return fmt.Errorf("%s: give --yes to do it without being asked: %w", what, errNotConfirmed)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s. Go on? [y/N] ", what)
	answer, err := bufio.NewReader(in).ReadString('\n')
	if err != nil || !strings.EqualFold(strings.TrimSpace(answer), "y") && !strings.EqualFold(strings.TrimSpace(answer),
		"yes") {
		return errNotConfirmed
	}
	return nil
}
