package chaos

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"

	"dormouse/integration/relay"
)

// event is the beginning or the end of a fault.
type event struct {
	at    time.Duration
	fault fault
	end   bool
}

// behind is from when on a schedule that is late is moved, so that what follows keeps its distance: a part that has
// only just started again is not hit at once because the process before it took its time to end.
const behind = 200 * time.Millisecond

// inflict carries a schedule out, begins and ends in the order of their times.
func (c *cluster) inflict(faults []fault) {
	c.t.Helper()
	var events []event
	for _, f := range faults {
		events = append(events, event{f.at, f, false}, event{f.until, f, true})
	}
	slices.SortStableFunc(events, func(a, b event) int { return cmp.Compare(a.at, b.at) })
	began := time.Now()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for _, e := range events {
		for time.Since(began) < e.at {
			c.mind()
			<-tick.C
		}
		c.mind()
		if e.end {
			c.endFault(e.fault)
		} else {
			c.t.Logf("%s %s", stamp(time.Now()), e.fault)
			c.begin(e.fault)
		}
		if late := time.Since(began) - e.at; late > behind {
			began = began.Add(late)
		}
	}
}

func (c *cluster) begin(f fault) {
	c.t.Helper()
	switch f.kind {
	case killProcess, emptyDisk, newDisk, killServer, loseMajority:
		for _, target := range f.targets {
			c.must(c.procs[target].kill())
		}
		c.wipe(f)
	case freeze, freezeServer:
		c.must(c.procs[f.targets[0]].signal(syscall.SIGSTOP))
	case terminate:
		c.must(c.procs[f.targets[0]].signal(syscall.SIGTERM))
	case cutLink, cutPart, cutServer:
		mode := relay.Refuse
		if f.hang {
			mode = relay.Hang
		}
		c.setLinks(f, mode)
	}
}

// wipe removes what the fault takes from the disk.
func (c *cluster) wipe(f fault) {
	dir := c.dataOf(f.targets[0])
	switch f.kind {
	case emptyDisk:
		c.must(os.RemoveAll(dir + "/pebble"))
	case newDisk:
		c.must(os.RemoveAll(dir))
	}
}

func (c *cluster) endFault(f fault) {
	c.t.Helper()
	switch f.kind {
	case killProcess, emptyDisk, newDisk, killServer, loseMajority:
		for _, target := range f.targets {
			c.must(c.procs[target].start())
		}
	case freeze, freezeServer:
		c.must(c.procs[f.targets[0]].signal(syscall.SIGCONT))
	case terminate:
		p := c.procs[f.targets[0]]
		if err := p.terminated(grace + shutdownSlack); err != nil {
			c.t.Errorf("%s after SIGTERM: %v; its output ends:\n%s", p.name, err, p.Tail())
		}
		c.must(p.start())
	case cutLink, cutPart, cutServer:
		c.setLinks(f, relay.Pass)
	}
}

// shutdownSlack is what a process may take besides its grace period: giving leases up, closing connections.
const shutdownSlack = 10 * time.Second

// setLinks sets the relays of a cut. Servers connect to each other both ways.
func (c *cluster) setLinks(f fault, mode relay.Mode) {
	c.t.Helper()
	set := 0
	for l, r := range c.relays {
		serverSide := slices.Contains(c.parts.servers, l.from)
		var hit bool
		switch f.kind {
		case cutLink:
			a, b := f.targets[0], f.targets[1]
			hit = l == link{a, b} || l == link{b, a}
		case cutPart:
			hit = l.from == f.targets[0]
		case cutServer:
			hit = serverSide && (l.from == f.targets[0] || l.to == f.targets[0])
		}
		if hit {
			r.Set(mode)
			set++
		}
	}
	if set == 0 {
		c.t.Fatalf("no link is cut by %s", f)
	}
}

// countsOf counts the faults of each kind, in the order of the list of kinds.
func countsOf(faults []fault) (lines []string) {
	for _, w := range weights {
		n := 0
		for _, f := range faults {
			if f.kind == w.kind {
				n++
			}
		}
		if n > 0 {
			lines = append(lines, fmt.Sprintf("%3d %s", n, w.kind))
		}
	}
	return lines
}
