package integration

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"dormouse/integration/relay"
)

// outageLines are what a process may say of a part that is away, at most: a line when each thing that it does there
// fails and one when it works again, whatever the number of its workers and however often they try.
const outageLines = 20

// outage breaks something for a while and returns what the process logged until it was ready again and archived more.
func (in *instance) outage(lasts time.Duration, begin, end func()) []string {
	in.t.Helper()
	in.until("it to own", func() bool { return in.owned() == 1 })
	before := len(in.Output())
	begin()
	in.until("it to notice", func() bool { return !in.ready() })
	over := time.NewTimer(lasts)
	in.until("the outage to last", func() bool {
		select {
		case <-over.C:
			return true
		default:
			return false
		}
	})
	end()
	in.until("readiness", in.ready)
	synced := in.metrics()["dormouse_entries_synced_total"]
	in.until("more to be archived", func() bool { return in.metrics()["dormouse_entries_synced_total"] > synced })
	return strings.Split(strings.TrimSpace(in.Output()[before:]), "\n")
}

// checkOutage holds the log to a few short lines, of which some say that it is over.
func checkOutage(t *testing.T, lines []string, begins, ends string) {
	t.Helper()
	all := strings.Join(lines, "\n")
	if len(lines) > outageLines {
		t.Errorf("%d lines:\n%s", len(lines), all)
	}
	if strings.Count(all, begins) != 1 || strings.Count(all, ends) != 1 {
		t.Errorf("want %q and %q once each:\n%s", begins, ends, all)
	}
	for _, line := range lines {
		if len(line) > 700 {
			t.Errorf("a line of %d bytes: %s", len(line), line)
		}
	}
}

// TestLogOfAnOutageOfNATS cuts a process off from NATS for some leases: nothing comes through.
func TestLogOfAnOutageOfNATS(t *testing.T) {
	t.Parallel()
	nats := startOutsideNATS(t)
	link := startRelay(t, nats.addr)
	in := nats.instance(append(fast, "--workers", "8")...)
	in.nats = link.Addr()
	in.start()
	load := startPublishers(t, nats.addr, newOracle(), 13)
	defer load.Stop()
	lines := in.outage(10*time.Second, func() { link.Set(relay.Hang) }, func() { link.Set(relay.Pass) })
	checkOutage(t, lines, `msg="disconnected from NATS; reconnecting"`, `msg="reconnected to NATS"`)
}

// TestLogOfNATSThatIsDown: each try to reconnect ends at once, and there are many.
func TestLogOfNATSThatIsDown(t *testing.T) {
	t.Parallel()
	nats := startOutsideNATS(t)
	in := nats.instance(append(fast, "--workers", "8")...).start()
	load := startPublishers(t, nats.addr, newOracle(), 19)
	defer load.Stop()
	lines := in.outage(10*time.Second, nats.stop, nats.start)
	checkOutage(t, lines, `msg="disconnected from NATS; reconnecting"`, `msg="reconnected to NATS"`)
}

// TestLogOfAnOutageOfTheBucket takes the bucket away from a process with many workers and many logs.
func TestLogOfAnOutageOfTheBucket(t *testing.T) {
	t.Parallel()
	g := startGateway(t)
	in := newInstance(t, append(fast, "--workers", "8", "--archive", g.url)...).start()
	o := newOracle()
	load := startPublishers(t, in.nats, o, 17)
	defer load.Stop()
	lines := in.outage(15*time.Second, func() { g.relay.Set(relay.Refuse) }, func() { g.relay.Set(relay.Pass) })
	checkOutage(t, lines, `msg="a segment could not be put; trying again"`, `msg="segments can be put again"`)
	host, _, _ := strings.Cut(strings.TrimPrefix(g.url[strings.Index(g.url, "http://"):], "http://"), "/")
	all := strings.Join(lines, "\n")
	if cause := regexp.MustCompile(`refused|reset|broken pipe|EOF|closed`); !cause.MatchString(all) ||
		!strings.Contains(all, host) {
		t.Errorf("nothing says that %s does not answer, and how:\n%s", host, all)
	}
}
