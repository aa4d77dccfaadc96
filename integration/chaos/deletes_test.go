package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/programtest"
)

const (
	deletePause    = 700 * time.Millisecond // between writes to logs that are deleted
	deletePatience = 40 * time.Second
	doomedTenants  = 5
)

// deleter writes logs of its own and deletes them again and again, while the faults go on. What was acked before a
// delete that succeeded must be gone at once, and for good; what was acked after it must be there.
type deleter struct {
	*programtest.Background
	logs map[string]*doomed

	// After Stop.
	deletes, failed int
	wrong           []error
}

// doomed is what is known of one log.
type doomed struct {
	gone  map[string]bool // must not be read
	there map[string]bool // must be read
	maybe map[string]bool // was not acked, or deleted by who was told nothing
}

func doomedLog(n int) string { return fmt.Sprintf("doomed%d.web.log", n) }

func startDeleter(c *cluster, seed uint64) *deleter {
	c.t.Helper()
	nc, js := programtest.Dial(c.t, c.directURLs(), nats.Name("deleter"), nats.Timeout(time.Second))
	d := &deleter{logs: make(map[string]*doomed)}
	for n := range doomedTenants {
		d.logs[doomedLog(n)] = &doomed{make(map[string]bool), make(map[string]bool), make(map[string]bool)}
	}
	r := rand.New(rand.NewPCG(seed, 2<<32))
	written := 0
	step := every(deletePause, func(ctx context.Context) {
		log := doomedLog(r.IntN(doomedTenants))
		for range 1 + r.IntN(3) {
			written++
			d.write(ctx, js, log, fmt.Sprintf("entry %d of %s", written, log))
		}
		if r.IntN(3) == 0 {
			what := log
			if r.IntN(2) == 0 {
				what = log[:strings.IndexByte(log, '.')] + ".>"
			}
			d.delete(ctx, c, log, what)
		}
	})
	d.Background = programtest.Beside(c.t, func(ctx context.Context) { defer nc.Close(); step(ctx) })
	return d
}

func (d *deleter) write(ctx context.Context, js jetstream.JetStream, log, data string) {
	limited, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if _, err := js.Publish(limited, "logs."+log, []byte(data), jetstream.WithRetryAttempts(0)); err != nil {
		d.logs[log].maybe[data] = true
		return
	}
	d.logs[log].there[data] = true
}

// delete deletes a log, and reads it at once.
func (d *deleter) delete(ctx context.Context, c *cluster, log, what string) {
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), deletePatience)
	defer cancel()
	one := d.logs[log]
	out := c.cli().Run(limited, "", "delete", what, "--yes")
	if d.deletes++; out.Code != 0 {
		d.failed++
		for data := range one.there {
			one.maybe[data] = true
		}
		clear(one.there)
		return
	}
	for data := range one.there {
		one.gone[data] = true
	}
	clear(one.there)
	if err := d.compare(limited, c, log, false); err != nil {
		d.wrong = append(d.wrong, fmt.Errorf("read right after %s was deleted: %w", what, err))
	}
}

// compare reads a log and holds it against what is known. Before the end a read may fail.
func (d *deleter) compare(ctx context.Context, c *cluster, log string, final bool) error {
	one := d.logs[log]
	out := c.cli().Run(ctx, "", "read", log, "--output", "jsonl")
	if none := strings.Contains(out.Err, "no such log"); out.Code != 0 && !none {
		if final {
			return fmt.Errorf("%s: exit %d, %s", log, out.Code, out.Err)
		}
		return nil
	}
	read := make(map[string]bool)
	var last uint64
	for line := range strings.Lines(out.Out) {
		var e struct {
			Seq  uint64
			Data string
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			return fmt.Errorf("%s: %w", log, err)
		}
		switch {
		case e.Seq <= last || read[e.Data]:
			return fmt.Errorf("%s has %q at %d after %d", log, e.Data, e.Seq, last)
		case one.gone[e.Data]:
			return fmt.Errorf("%s has %q at %d, which was deleted", log, e.Data, e.Seq)
		case !one.there[e.Data] && !one.maybe[e.Data]:
			return fmt.Errorf("%s has %q at %d, which nobody wrote", log, e.Data, e.Seq)
		}
		last, read[e.Data] = e.Seq, true
	}
	for data := range one.there {
		if !read[data] {
			return fmt.Errorf("%s lacks %q, which was acked and not deleted since", log, data)
		}
	}
	return nil
}

// judge holds every log against what is known when all is archived, then deletes all of them for good, and has the
// bucket looked through.
func (d *deleter) judge(c *cluster) {
	c.t.Helper()
	for _, err := range d.wrong {
		c.t.Error(err)
	}
	if d.deletes == d.failed && d.deletes > 3 {
		c.t.Errorf("none of %d deletes succeeded", d.deletes)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience+c.length/2)
	defer cancel()
	for n := range doomedTenants {
		if err := d.compare(ctx, c, doomedLog(n), true); err != nil {
			c.t.Errorf("when all is archived: %v", err)
		}
	}
	for _, line := range [][]string{
		{"delete", "doomed0.>", "--yes", "--wait"}, {"verify", "--absent", "doomed0.>"},
	} {
		if out := c.cli().Run(ctx, "", line...); out.Code != 0 {
			c.t.Errorf("dormouse %s: exit %d, %s%s", strings.Join(line, " "), out.Code, out.Out, out.Err)
		}
	}
	if err := d.compare(ctx, c, doomedLog(1), true); err != nil {
		c.t.Errorf("when another one was deleted: %v", err)
	}
}
