package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// output is what a command printed and how it ended.
type output struct {
	out, err string
	code     int
}

// run runs a command of the program against the servers, past the relays. What a long run leaves takes long to verify.
func (c *cluster) run(args ...string) output {
	ctx, cancel := context.WithTimeout(context.Background(), patience+c.length/2)
	defer cancel()
	return c.runContext(ctx, args...)
}

func (c *cluster) runContext(ctx context.Context, args ...string) output {
	cmd := exec.CommandContext(ctx, programs.dormouse, args...)
	cmd.Env = append(os.Environ(), "DORMOUSE_NATS_URL="+c.directURLs())
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	code := 0
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		code = exit.ExitCode()
	case err != nil:
		code, errOut = -1, *bytes.NewBufferString(err.Error())
	}
	return output{out.String(), errOut.String(), code}
}

// reader reads logs while the faults go on. A read may fail then; one that does not must be whole and right.
type reader struct {
	cancel       context.CancelFunc
	joined       sync.WaitGroup
	good, failed int // after stop
	wrong        []error
}

const (
	readPause    = time.Second
	readPatience = 30 * time.Second
)

func startReader(c *cluster, o *oracle, seed uint64) *reader {
	ctx, cancel := context.WithCancel(context.Background())
	r := &reader{cancel: cancel}
	c.t.Cleanup(r.stop)
	choose := rand.New(rand.NewPCG(seed, 1<<32))
	r.joined.Go(func() {
		tick := time.NewTicker(readPause)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if logs := o.logs(); len(logs) > 0 {
				r.read(ctx, c, o, logs[choose.IntN(len(logs))])
			}
		}
	})
	return r
}

func (r *reader) read(ctx context.Context, c *cluster, o *oracle, log string) {
	want := o.of(log)
	attempt, cancel := context.WithTimeout(ctx, readPatience)
	defer cancel()
	began := stamp(time.Now())
	out := c.runContext(attempt, "read", log, "--output", "jsonl")
	switch {
	case ctx.Err() != nil:
	case out.code != 0:
		r.failed++
		if strings.Contains(out.err, "DATA RACE") || strings.Contains(out.err, "panic") {
			r.wrong = append(r.wrong, errors.New(out.err))
		}
	default:
		r.good++
		if err := o.compare(log, out.out, want, false); err != nil {
			err = fmt.Errorf("between %s and %s: %w", began, stamp(time.Now()), err)
			r.wrong = append(r.wrong, errors.Join(err, os.WriteFile(filepath.Join(c.logs, "during-"+log+".jsonl"), []byte(out.out), 0o600)))
		}
	}
}

// stop ends reading; it may be called twice.
func (r *reader) stop() { r.cancel(); r.joined.Wait() }
