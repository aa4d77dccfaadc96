// Package proc runs the program in processes of its own, for who looks at it from outside: tests and the benchmark. It
// imports nothing of Dormouse.
//
// Open process.go for what runs, command.go for `dormouse read` and the like, http.go for metrics and health.
package proc

import (
	"errors"
	"os"
	"os/exec"
)

// Process is a program over all its starts; it is down at first. Only one goroutine at a time may use it.
type Process struct {
	Log string // file to which the output of every start is appended

	cmd   *exec.Cmd     // nil while it is down
	ended chan struct{} // closed when the process has ended; nil before the first start
	err   error         // how it ended; valid after ended
}

// Start starts cmd, of which it sets where the output goes. The process before it must have been waited for.
func (p *Process) Start(cmd *exec.Cmd) error {
	out, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close() // the child has it too
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	p.cmd, p.ended = cmd, ended
	go func() { p.err = cmd.Wait(); close(ended) }()
	return nil
}

// Up reports whether it was started and nobody has waited for its end since: it may have ended by itself.
func (p *Process) Up() bool { return p.cmd != nil }

// Signal sends a signal. The error is os.ErrProcessDone when there is no process any more.
func (p *Process) Signal(s os.Signal) error {
	if p.cmd == nil {
		return os.ErrProcessDone
	}
	return p.cmd.Process.Signal(s)
}

// Ended is closed when the process last started has ended.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Wait waits for the end of the process last started and returns how it ended, as exec.Cmd.Wait does. It may be called
// again.
func (p *Process) Wait() error {
	<-p.ended
	p.cmd = nil
	return p.err
}

// Kill ends the process as a power switch does to it, and waits for its end. One that is down stays so.
func (p *Process) Kill() error {
	if p.cmd == nil {
		return nil
	}
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	_ = p.Wait() // killed
	return nil
}

// Output returns what the process printed in all its starts, or why that cannot be read.
func (p *Process) Output() string {
	text, err := os.ReadFile(p.Log)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Tail returns the end of the output, as much as a failed test should show.
func (p *Process) Tail() string {
	text := p.Output()
	return text[max(0, len(text)-4000):]
}
