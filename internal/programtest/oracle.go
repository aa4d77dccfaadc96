package programtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/nats-io/nats.go/jetstream"
)

// Acked is one entry that JetStream acknowledged.
type Acked struct {
	Seq  uint64
	Data string
}

// Oracle knows, for each log, what publishers were acked and what they cannot know about, because the connection or the
// server went while they waited. Entries of a log must differ. It is for any number of goroutines.
type Oracle struct {
	mu struct {
		sync.Mutex
		acked   map[string][]Acked
		unknown map[string]map[string]bool
		last    map[string]uint64 // highest acked sequence of each stream
	}
}

// NewOracle returns an oracle to which nothing was told.
func NewOracle() *Oracle {
	o := &Oracle{}
	o.mu.acked, o.mu.unknown, o.mu.last = make(map[string][]Acked), make(map[string]map[string]bool),
		make(map[string]uint64)
	return o
}

// Tell tells what became of an entry that was sent; without an ack it is unknown whether it was stored.
func (o *Oracle) Tell(log, data string, ack *jetstream.PubAck) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if ack != nil {
		o.mu.acked[log] = append(o.mu.acked[log], Acked{ack.Sequence, data})
		o.mu.last[ack.Stream] = max(o.mu.last[ack.Stream], ack.Sequence)
		return
	}
	if o.mu.unknown[log] == nil {
		o.mu.unknown[log] = make(map[string]bool)
	}
	o.mu.unknown[log][data] = true
}

// Counts returns how many entries were acked, and of how many that is unknown.
func (o *Oracle) Counts() (acked, unknown int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, all := range o.mu.acked {
		acked += len(all)
	}
	for _, all := range o.mu.unknown {
		unknown += len(all)
	}
	return acked, unknown
}

// Last returns the highest sequence of a stream that was acked.
func (o *Oracle) Last(stream string) uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.mu.last[stream]
}

// Logs returns the logs that have acked entries, in order.
func (o *Oracle) Logs() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Sorted(maps.Keys(o.mu.acked))
}

// Acked returns a log's entries that were acked by now.
func (o *Oracle) Acked(log string) []Acked {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.mu.acked[log])
}

// Judgeable returns an error when there is nothing to hold the logs against: no log, or none of one's entries was
// acked.
func (o *Oracle) Judgeable(logs []string) error {
	if len(logs) == 0 {
		_, unknown := o.Counts()
		return fmt.Errorf("no entry was acked (of %d that is unknown): there is nothing to judge by", unknown)
	}
	for _, log := range logs {
		if len(o.Acked(log)) == 0 {
			return fmt.Errorf("no entry of %s was acked: there is nothing to judge it by", log)
		}
	}
	return nil
}

func (o *Oracle) isUnknown(log, data string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.mu.unknown[log][data]
}

// Compare holds what `dormouse read --output jsonl` printed of a log against what was acked before: each of those
// entries once, everything in ascending sequence. Once publishing is over (final), besides them there may only be
// entries of unknown outcome, once each. The error names the first twenty that are wrong.
func (o *Oracle) Compare(log, jsonl string, acked []Acked, final bool) error {
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
			bad("%.30q was read twice, as %d and %d", e.Data, before, e.Seq)
		}
		got[e.Data] = e.Seq
	}
	for _, a := range acked {
		if got[a.Data] != a.Seq {
			bad("%.30q was acked as %d and read as %d (0 is not at all)", a.Data, a.Seq, got[a.Data])
		}
		delete(got, a.Data)
	}
	if final {
		for data, seq := range got {
			if !o.isUnknown(log, data) {
				bad("entry %d, %.30q, was never published", seq, data)
			}
		}
	}
	return errors.Join(errs...)
}
