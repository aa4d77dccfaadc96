package chaos

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// kind is what a fault does to its targets from its beginning to its end.
type kind string

const (
	killProcess  kind = "kill -9 of a process"
	emptyDisk    kind = "kill -9 and an empty disk" // the node keeps its name
	newDisk      kind = "kill -9 and a new disk"    // and the node has a new name
	freeze       kind = "SIGSTOP of a process"
	terminate    kind = "SIGTERM of a process"
	killServer   kind = "kill -9 of a NATS server"
	freezeServer kind = "SIGSTOP of a NATS server"
	loseMajority kind = "two NATS servers killed"
	cutLink      kind = "network: one link cut"
	cutPart      kind = "network: a part cut off"
	cutServer    kind = "network: a NATS server cut off from the others"
)

// weights say how often each kind is drawn, in the order of this list, which a seed depends on.
var weights = []struct {
	kind   kind
	weight int
}{
	{killProcess, 5}, {emptyDisk, 3}, {newDisk, 2}, {freeze, 5}, {terminate, 3},
	{killServer, 3}, {freezeServer, 2}, {loseMajority, 1}, {cutLink, 4}, {cutPart, 3}, {cutServer, 2},
}

// fault is one of the schedule. Times are from the beginning of the faults.
type fault struct {
	kind      kind
	at, until time.Duration
	targets   []string // parts; of cutLink the two ends
	hang      bool     // of a cut: nothing comes through, rather than connections being refused
}

func (f fault) String() string {
	how := ""
	if strings.HasPrefix(string(f.kind), "network") {
		if how = " (refused)"; f.hang {
			how = " (hanging)"
		}
	}
	return fmt.Sprintf("%s to %s: %s%s: %s", round(f.at), round(f.until), f.kind, how, strings.Join(f.targets, ", "))
}

func round(d time.Duration) time.Duration { return d.Round(10 * time.Millisecond) }

// parts are what a schedule knows of the system: the names of what can fail.
type parts struct {
	ingests, workers, servers, publishers []string
}

func (p parts) processes() []string { return slices.Concat(p.ingests, p.workers) }

// clients are all that connect to servers.
func (p parts) clients() []string { return slices.Concat(p.processes(), p.publishers) }

// plan draws a schedule: count faults spread over length. The same arguments give the same schedule.
//
// A part has one fault at a time, and at most one server is impaired at a time (except when the majority is lost): two
// servers of three in trouble are a majority lost, which is drawn rarely. All else overlaps as it comes.
func plan(seed uint64, p parts, length time.Duration, count int) []fault {
	d := drawer{r: rand.New(rand.NewPCG(seed, 0)), parts: p, busy: make(map[string]time.Duration)}
	var faults []fault
	for i := range count {
		step := length / time.Duration(count)
		at := step*time.Duration(i) + d.between(0, step)
		for range 100 { // until one fits; a part or the servers may be busy
			f := d.draw()
			f.at, f.until = at, min(at+f.until, length)
			if f.until > f.at && d.reserve(f) {
				faults = append(faults, f)
				break
			}
		}
	}
	return faults
}

// drawer draws faults.
type drawer struct {
	r     *rand.Rand
	parts parts
	busy  map[string]time.Duration // until when a part is in trouble
}

const (
	anyServer = "servers" // in busy: one of them is in trouble
	respite   = time.Second
	// serverRespite is what servers have between two troubles: long enough to elect leaders and to catch up.
	serverRespite = 3 * time.Second
)

func (d *drawer) between(least, most time.Duration) time.Duration {
	return least + time.Duration(d.r.Int64N(int64(most-least)))
}

func (d *drawer) one(names []string) string { return names[d.r.IntN(len(names))] }

// draw returns a fault whose until is its duration.
func (d *drawer) draw() fault {
	total := 0
	for _, w := range weights {
		total += w.weight
	}
	n := d.r.IntN(total)
	i := 0
	for ; n >= weights[i].weight; i++ {
		n -= weights[i].weight
	}
	f := fault{kind: weights[i].kind}
	switch f.kind {
	case emptyDisk, newDisk: // workers keep nothing on it
		f.targets, f.until = []string{d.one(d.parts.ingests)}, d.between(100*time.Millisecond, 2*lease)
	case killProcess:
		f.targets, f.until = []string{d.one(d.parts.processes())}, d.between(100*time.Millisecond, 3*lease)
	case terminate:
		f.targets, f.until = []string{d.one(d.parts.processes())}, d.between(lease/2, 3*lease)
	case freeze:
		f.targets, f.until = []string{d.one(d.parts.processes())}, d.between(lease/2, 3*lease)
	case killServer, freezeServer:
		f.targets, f.until = []string{d.one(d.parts.servers)}, d.between(lease/4, 4*lease)
	case cutServer:
		f.targets, f.until, f.hang = []string{d.one(d.parts.servers)}, d.between(lease/4, 4*lease), d.r.IntN(2) == 0
	case loseMajority:
		first := d.r.IntN(len(d.parts.servers))
		second := (first + 1 + d.r.IntN(len(d.parts.servers)-1)) % len(d.parts.servers)
		f.targets, f.until = []string{d.parts.servers[first], d.parts.servers[second]}, d.between(lease, 3*lease)
	case cutPart:
		f.targets, f.until, f.hang = []string{d.one(d.parts.clients())}, d.between(lease/4, 4*lease), d.r.IntN(2) == 0
	case cutLink:
		f.until, f.hang = d.between(lease/4, 4*lease), d.r.IntN(2) == 0
		first := d.one(slices.Concat(d.parts.clients(), d.parts.servers))
		second := d.one(d.parts.servers)
		for second == first {
			second = d.one(d.parts.servers)
		}
		f.targets = []string{first, second}
	}
	return f
}

// reserve books what the fault needs, if that is free. The server of a client's cut link is not in trouble itself.
func (d *drawer) reserve(f fault) bool {
	needs := map[string]time.Duration{}
	for i, target := range f.targets {
		isServer := slices.Contains(d.parts.servers, target)
		if f.kind == cutLink && i == 1 && !slices.Contains(d.parts.servers, f.targets[0]) {
			continue
		}
		if needs[target] = respite; isServer {
			needs[anyServer] = serverRespite
		}
	}
	for name := range needs {
		if d.busy[name] > f.at {
			return false
		}
	}
	for name, rest := range needs {
		d.busy[name] = f.until + rest
	}
	return true
}

// TestPlan holds what schedules promise: a seed gives one schedule, and servers fail one at a time.
func TestPlan(t *testing.T) {
	p := partsOf(3, 4, 3, 3)
	seen := make(map[kind]int)
	for seed := range uint64(50) {
		faults := plan(seed, p, 10*time.Minute, 150)
		if again := plan(seed, p, 10*time.Minute, 150); fmt.Sprint(faults) != fmt.Sprint(again) {
			t.Fatalf("seed %d gave two schedules", seed)
		}
		if len(faults) < 140 {
			t.Errorf("seed %d: only %d faults of 150 found a place", seed, len(faults))
		}
		inTrouble := make(map[string]time.Duration)
		var servers time.Duration
		for _, f := range faults {
			seen[f.kind]++
			if f.at < 0 || f.until <= f.at || f.until > 10*time.Minute {
				t.Errorf("seed %d: %s", seed, f)
			}
			onServers := true
			for i, target := range f.targets {
				if f.kind == cutLink && i == 1 {
					continue
				}
				onServers = onServers && slices.Contains(p.servers, target)
				if inTrouble[target] > f.at {
					t.Errorf("seed %d: %s is in trouble already: %s", seed, target, f)
				}
				inTrouble[target] = f.until
			}
			if onServers {
				if servers > f.at {
					t.Errorf("seed %d: two servers in trouble: %s", seed, f)
				}
				servers = f.until
			}
		}
	}
	for _, w := range weights {
		if seen[w.kind] == 0 {
			t.Errorf("no schedule has a %s", w.kind)
		}
	}
}
