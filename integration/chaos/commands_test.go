package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"dormouse/internal/proc"
	"dormouse/internal/programtest"
)

// cli is the program against the servers, past the relays.
func (c *cluster) cli() proc.CLI {
	return proc.CLI{Binary: programs.dormouse, NATS: c.directURLs()}
}

// run runs a command of the program. What a long run leaves takes long to verify.
func (c *cluster) run(args ...string) proc.Result {
	ctx, cancel := context.WithTimeout(context.Background(), patience+c.length/2)
	defer cancel()
	return c.cli().Run(ctx, "", args...)
}

// every returns work that goes on in steps, so far apart.
func every(pause time.Duration, step func(context.Context)) func(context.Context) {
	return func(ctx context.Context) {
		tick := time.NewTicker(pause)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				step(ctx)
			}
		}
	}
}

// reader reads logs while the faults go on. A read may fail then; one that does not must be whole and right.
type reader struct {
	*programtest.Background

	// After Stop.
	good, failed int
	wrong        []error
}

const (
	readPause    = time.Second
	readPatience = 30 * time.Second
)

func startReader(c *cluster, o *oracle, seed uint64) *reader {
	r := &reader{}
	choose := rand.New(rand.NewPCG(seed, 1<<32))
	r.Background = programtest.Beside(c.t, every(readPause, func(ctx context.Context) {
		if logs := o.Logs(); len(logs) > 0 {
			r.read(ctx, c, o, logs[choose.IntN(len(logs))])
		}
	}))
	return r
}

func (r *reader) read(ctx context.Context, c *cluster, o *oracle, log string) {
	want := o.Acked(log)
	attempt, cancel := context.WithTimeout(ctx, readPatience)
	defer cancel()
	began := stamp(time.Now())
	out := c.cli().Run(attempt, "", "read", log, "--output", "jsonl")
	switch {
	case ctx.Err() != nil:
	case out.Code != 0:
		r.failed++
		if strings.Contains(out.Err, "DATA RACE") || strings.Contains(out.Err, "panic") {
			r.wrong = append(r.wrong, errors.New(out.Err))
		}
	default:
		r.good++
		if err := o.Compare(log, out.Out, want, false); err != nil {
			err = fmt.Errorf("between %s and %s: %w", began, stamp(time.Now()), err)
			r.wrong = append(r.wrong, errors.Join(err, os.WriteFile(filepath.Join(c.logs, "during-"+log+".jsonl"),
				[]byte(out.Out), 0o600)))
		}
	}
}
