package chaos

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/programtest"
)

// oracle is what publishers know, and how they got on.
type oracle struct {
	*programtest.Oracle

	mu     sync.Mutex // guards what follows
	unsent int        // refused by the client itself
	acks   gaps
}

func newOracle() *oracle { return &oracle{Oracle: programtest.NewOracle()} }

func (o *oracle) tell(log, data string, ack *jetstream.PubAck) {
	o.Tell(log, data, ack)
	if ack != nil {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.acks.progress(time.Now())
	}
}

func (o *oracle) neverSent() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.unsent++
}

// check reads every log and compares it; what it read of a log that is wrong is kept beside the processes' output.
func (o *oracle) check(c *cluster, when string) time.Duration {
	c.t.Helper()
	began := time.Now()
	c.must(o.Judgeable(o.Logs()))
	for _, log := range o.Logs() {
		out := c.run("read", log, "--output", "jsonl")
		err := o.Compare(log, out.Out, o.Acked(log), true)
		if out.Code != 0 {
			err = fmt.Errorf("dormouse read %s: exit %d, %s", log, out.Code, out.Err)
		}
		if err != nil {
			c.t.Errorf("%s: %v", when, err)
			c.must(os.WriteFile(filepath.Join(c.logs, when+"-"+log+".jsonl"), []byte(out.Out), 0o600))
		}
	}
	return time.Since(began)
}

var verified = regexp.MustCompile(`verified (\d+) segments`)

// verify runs `dormouse verify` and counts the objects that nothing names.
func (c *cluster) verify() (summary string, orphans int) {
	c.t.Helper()
	out := c.run("verify")
	match := verified.FindStringSubmatch(out.Out)
	if out.Code != 0 || match == nil {
		c.t.Errorf("dormouse verify: exit %d, %s%s", out.Code, out.Out, out.Err)
		return out.Out, -1
	}
	named, err := strconv.Atoi(match[1])
	c.must(err)
	objects, err := filepath.Glob(filepath.Join(c.archive, "*", "*.sst"))
	c.must(err)
	return strings.TrimSpace(out.Out), len(objects) - named
}
