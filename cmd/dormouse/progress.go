package main

import (
	"fmt"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// progress draws a bar on standard error when that is a terminal. A total of 0 is unknown. end removes it.
func progress(cmd *cobra.Command, what string) (show func(done, total uint64), end func()) {
	f, ok := cmd.ErrOrStderr().(interface{ Fd() uintptr })
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return func(uint64, uint64) {}, func() {}
	}
	bar := progressbar.NewOptions64(-1, progressbar.OptionSetWriter(cmd.ErrOrStderr()),
		progressbar.OptionSetDescription(what), progressbar.OptionShowCount(), progressbar.OptionClearOnFinish(),
		progressbar.OptionThrottle(100*time.Millisecond))
	show = func(done, total uint64) {
		if total > 0 && bar.GetMax64() != int64(total) {
			bar.ChangeMax64(int64(total))
		}
		_ = bar.Set64(int64(done)) // a bar that cannot be drawn stops nothing
	}
	return show, func() { _ = bar.Finish() }
}

// steps says on standard error what a long command does now: a spinner on a terminal, else a line for each step.
func steps(cmd *cobra.Command) (step func(string), end func()) {
	f, ok := cmd.ErrOrStderr().(interface{ Fd() uintptr })
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return func(what string) { fmt.Fprintln(cmd.ErrOrStderr(), time.Now().Format(time.TimeOnly), what) }, func() {}
	}
	bar := progressbar.NewOptions64(-1, progressbar.OptionSetWriter(cmd.ErrOrStderr()), progressbar.OptionSpinnerType(14),
		progressbar.OptionSetElapsedTime(true), progressbar.OptionClearOnFinish(),
		progressbar.OptionSetSpinnerChangeInterval(200*time.Millisecond))
	return func(what string) { bar.Describe(what) }, func() { _ = bar.Finish() }
}
