package chaos

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"dormouse/internal/proc"
)

// process is a program of the system over all its starts. Only the test's own goroutine uses it: a child is told to die
// with the thread that started it, which that goroutine is locked to.
type process struct {
	proc.Process
	name    string
	program string
	args    []string
	leaving bool // it got SIGTERM: its end is expected
	starts  int
}

// start starts the process. Its output goes on in the same file.
func (p *process) start() error {
	p.starts++
	if err := p.note(fmt.Sprintf("start %d", p.starts)); err != nil {
		return err
	}
	cmd := exec.Command(p.program, p.args...)
	// A stopped process would outlive a test that ends in a panic, such as one for its time limit.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p.leaving = false
	return p.Start(cmd)
}

func stamp(at time.Time) string { return at.UTC().Format("15:04:05.000") }

// note writes a line of the harness into the process's log, so that its faults are found beside its own words.
func (p *process) note(text string) error {
	out, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "--- %s %s\n", stamp(time.Now()), text)
	return errors.Join(err, out.Close())
}

func (p *process) signal(s syscall.Signal) error {
	if !p.Up() {
		return fmt.Errorf("%s is down: no %s", p.name, s)
	}
	p.leaving = p.leaving || s == syscall.SIGTERM
	return errors.Join(p.note(s.String()), p.Signal(s))
}

// kill kills the process if it is up.
func (p *process) kill() error {
	if !p.Up() {
		return nil
	}
	return errors.Join(p.note(syscall.SIGKILL.String()), p.Kill())
}

// died returns how a process ended that was not told to, and takes note of its end.
func (p *process) died() (err error, dead bool) {
	if !p.Up() || p.leaving {
		return nil, false
	}
	select {
	case <-p.Ended():
		if err = p.Wait(); err == nil {
			err = errors.New("exit status 0")
		}
		return err, true
	default:
		return nil, false
	}
}

// terminated waits for the end of a process that got SIGTERM.
func (p *process) terminated(patience time.Duration) error {
	select {
	case <-p.Ended():
		return p.Wait()
	case <-time.After(patience):
		return errors.Join(fmt.Errorf("it did not end within %s of SIGTERM", patience), p.kill())
	}
}

// remarks is what processes have said that a run must know of.
type remarks struct {
	bad        []string       // a race, a panic, loss: file and line
	errors     map[string]int // other lines of level error, by message
	ownerships int            // shards taken, but for those after an outage of all
}

// saysOwning is a message of the program that the harness knows.
const saysOwning = `msg="owning the shard"`

// remarksOf reads the output of the program's processes.
func remarksOf(logs []string) (remarks, error) {
	r := remarks{errors: make(map[string]int)}
	for _, name := range logs {
		text, err := os.ReadFile(name)
		if err != nil {
			return r, err
		}
		for line := range bytes.Lines(text) {
			r.add(filepath.Base(name), strings.TrimSpace(string(line)))
		}
	}
	return r, nil
}

func (r *remarks) add(file, line string) {
	if strings.Contains(line, saysOwning) {
		r.ownerships++
	}
	isError := strings.Contains(line, "level=ERROR")
	for _, word := range []string{"DATA RACE", "panic:", "fatal error:"} {
		if strings.Contains(line, word) {
			r.bad = append(r.bad, file+": "+line)
			return
		}
	}
	if !isError {
		return
	}
	for _, word := range []string{"loss", "lost", "dropped", "corrupt"} {
		if strings.Contains(strings.ToLower(line), word) {
			r.bad = append(r.bad, file+": "+line)
			return
		}
	}
	_, message, _ := strings.Cut(line, "msg=")
	message, _, _ = strings.Cut(message, " error=")
	r.errors[message]++
}
