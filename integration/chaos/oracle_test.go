package chaos

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// acked is one entry that JetStream acknowledged.
type acked struct {
	seq  uint64
	data string
}

// oracle knows, for each log, what publishers were acked and what they cannot know about.
type oracle struct {
	logsEach int // of each publisher

	mu      sync.Mutex
	acked   map[string][]acked
	unknown map[string]map[string]bool
	last    map[string]uint64 // highest acked sequence of each stream
	unsent  int               // refused by the client itself
	acks    gaps
}

func newOracle(logsEach int) *oracle {
	return &oracle{logsEach: logsEach, acked: make(map[string][]acked), unknown: make(map[string]map[string]bool), last: make(map[string]uint64)}
}

func (o *oracle) acknowledged(log, data string, ack *jetstream.PubAck) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.acked[log] = append(o.acked[log], acked{ack.Sequence, data})
	o.last[ack.Stream] = max(o.last[ack.Stream], ack.Sequence)
	o.acks.progress(time.Now())
}

func (o *oracle) unknownOutcome(log, data string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.unknown[log] == nil {
		o.unknown[log] = make(map[string]bool)
	}
	o.unknown[log][data] = true
}

func (o *oracle) neverSent() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.unsent++
}

func (o *oracle) counts() (entries, unknown, unsent int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, all := range o.acked {
		entries += len(all)
	}
	for _, all := range o.unknown {
		unknown += len(all)
	}
	return entries, unknown, o.unsent
}

// logs returns the logs that have acked entries, in order.
func (o *oracle) logs() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var logs []string
	for log := range o.acked {
		logs = append(logs, log)
	}
	slices.Sort(logs)
	return logs
}

// of returns what a log's publisher knows by now.
func (o *oracle) of(log string) []acked {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.acked[log])
}

func (o *oracle) isUnknown(log, data string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.unknown[log][data]
}

// compare holds what was read of a log against what was acked before: each of those entries once, everything in ascending
// sequence. Once publishing is over (final), besides them there may only be entries of unknown outcome, once each.
func (o *oracle) compare(log, jsonl string, want []acked, final bool) error {
	var errs []error
	bad := func(format string, args ...any) {
		if len(errs) < 20 {
			errs = append(errs, fmt.Errorf(log+": "+format, args...))
		}
	}
	var last uint64
	got := make(map[string]uint64)
	for text := range strings.Lines(jsonl) {
		var e struct {
			Log, Data string
			Seq       uint64
		}
		if err := json.Unmarshal([]byte(text), &e); err != nil {
			return fmt.Errorf("%s: %q: %w", log, text, err)
		}
		if e.Log != log || e.Seq <= last {
			bad("entry %d of %s after %d", e.Seq, e.Log, last)
		}
		last = e.Seq
		if before, twice := got[e.Data]; twice {
			bad("%.20q was read twice, as %d and %d", e.Data, before, e.Seq)
		}
		got[e.Data] = e.Seq
	}
	for _, a := range want {
		if got[a.data] != a.seq {
			bad("%.20q was acked as %d and read as %d (0 is not at all)", a.data, a.seq, got[a.data])
		}
		delete(got, a.data)
	}
	if final {
		for data, seq := range got {
			if !o.isUnknown(log, data) {
				bad("entry %d, %.20q, was never published", seq, data)
			}
		}
	}
	return errors.Join(errs...)
}

// check reads every log and compares it; what it read of a log that is wrong is kept beside the processes' output.
func (o *oracle) check(c *cluster, when string) time.Duration {
	c.t.Helper()
	began := time.Now()
	for _, log := range o.logs() {
		out := c.run("read", log, "--output", "jsonl")
		err := o.compare(log, out.out, o.of(log), true)
		if out.code != 0 {
			err = fmt.Errorf("dormouse read %s: exit %d, %s", log, out.code, out.err)
		}
		if err != nil {
			c.t.Errorf("%s: %v", when, err)
			c.must(os.WriteFile(filepath.Join(c.logs, when+"-"+log+".jsonl"), []byte(out.out), 0o600))
		}
	}
	return time.Since(began)
}

var verified = regexp.MustCompile(`verified (\d+) segments`)

// verify runs `dormouse verify` and counts the objects that nothing names.
func (c *cluster) verify() (summary string, orphans int) {
	c.t.Helper()
	out := c.run("verify")
	match := verified.FindStringSubmatch(out.out)
	if out.code != 0 || match == nil {
		c.t.Errorf("dormouse verify: exit %d, %s%s", out.code, out.out, out.err)
		return out.out, -1
	}
	named, err := strconv.Atoi(match[1])
	c.must(err)
	objects, err := filepath.Glob(filepath.Join(c.archive, "*", "*.sst"))
	c.must(err)
	return strings.TrimSpace(out.out), len(objects) - named
}
