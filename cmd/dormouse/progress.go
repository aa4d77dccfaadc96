package main

import (
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
	bar := progressbar.NewOptions64(-1, progressbar.OptionSetWriter(cmd.ErrOrStderr()), progressbar.OptionSetDescription(what),
		progressbar.OptionShowCount(), progressbar.OptionClearOnFinish(), progressbar.OptionThrottle(100*time.Millisecond))
	show = func(done, total uint64) {
		if total > 0 && bar.GetMax64() != int64(total) {
			bar.ChangeMax64(int64(total))
		}
		_ = bar.Set64(int64(done)) // a bar that cannot be drawn stops nothing
	}
	return show, func() { _ = bar.Finish() }
}
