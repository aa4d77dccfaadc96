// Package chaos breaks a whole system on purpose: servers in a cluster, several processes of each role, and a network
// between them that is cut, all by a schedule that a seed determines. What publishers were acked is the judge.
//
// Open schedule_test.go for which faults there are, faults_test.go for what they do, cluster_test.go for the system,
// oracle_test.go for what must hold.
package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"dormouse/internal/programtest"
)

// programs are the binaries under test.
var programs struct{ dormouse, server string }

func TestMain(m *testing.M) {
	programtest.Main(m, func(dir string) error {
		programs.dormouse, programs.server = filepath.Join(dir, "dormouse"), filepath.Join(dir, "nats-server")
		return errors.Join(programtest.Build(programs.dormouse, programtest.Dormouse, "-race"),
			programtest.Build(programs.server, "github.com/nats-io/nats-server/v2"))
	})
}

// How long faults go on, in the short form too, and the system that every form runs.
const (
	defaultTime    = 36 * time.Second
	shortTime      = 12 * time.Second
	faultEvery     = 3 * time.Second // from fault to fault
	ingestCount    = 3
	workerCount    = 4
	serverCount    = 3
	publisherCount = 3
	logsEach       = 4 // of each publisher
)

// setting returns what an environment variable says, or def.
func setting[T any](t *testing.T, name string, def T, parse func(string) (T, error)) T {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return def
	}
	value, err := parse(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return value
}

func parseSeed(text string) (uint64, error) { return strconv.ParseUint(text, 10, 64) }

// TestChaos runs the system under a schedule of faults and compares, in the end, what is read with what was acked. The
// settings, all in the environment: DORMOUSE_SEED replays a schedule, DORMOUSE_CHAOS_TIME is how long faults go on,
// DORMOUSE_CHAOS_FAULTS how many there are, DORMOUSE_CHAOS_SHARDS how many shards (0: the one default stream), and
// DORMOUSE_CHAOS_KEEP keeps what a run leaves, its state too, even if it does not fail.
func TestChaos(t *testing.T) {
	runtime.LockOSThread() // see process.start
	defer runtime.UnlockOSThread()
	seed := setting(t, "DORMOUSE_SEED", uint64(time.Now().UnixNano()), parseSeed)
	length := defaultTime
	if testing.Short() {
		length = shortTime
	}
	length = setting(t, "DORMOUSE_CHAOS_TIME", length, time.ParseDuration)
	count := setting(t, "DORMOUSE_CHAOS_FAULTS", max(int(length/faultEvery), 1), strconv.Atoi)
	shards := setting(t, "DORMOUSE_CHAOS_SHARDS", 4, strconv.Atoi)
	p := partsOf(ingestCount, workerCount, serverCount, publisherCount)
	f := &figures{seed: seed, length: length, shards: shards, faults: plan(seed, p, length, count), oracle: newOracle()}
	t.Logf("DORMOUSE_SEED=%d DORMOUSE_CHAOS_TIME=%s DORMOUSE_CHAOS_FAULTS=%d DORMOUSE_CHAOS_SHARDS=%d", seed, length,
		count, shards)

	c := newCluster(t, p, shards, length, keptIfFailed(t), stateDir(t))
	c.start()
	f.sampler = startSampler(c)
	load := startPublishers(c, f.oracle, seed, length)
	f.reader = startReader(c, f.oracle, seed)
	f.history = startHistory(c)
	f.deleter = startDeleter(c, seed)
	c.inflict(f.faults)
	c.judge(f, load)
	t.Logf("\n%s", f)
}

// judge waits for the system to recover, every fault having ended, and holds it against the oracle.
func (c *cluster) judge(f *figures, load *programtest.Background) {
	c.t.Helper()
	f.reader.Stop()
	f.deleter.Stop()
	for _, err := range f.reader.wrong {
		c.t.Errorf("read during the faults: %v", err)
	}
	f.healed = c.until("readiness after the faults", c.ready)
	f.sampler.frozen.Store(true)
	f.history.stoodFrom.Store(time.Now().UnixNano())
	c.signalWorkers(syscall.SIGSTOP) // so that what is published last is in the streams only
	c.awaitAcks(f.oracle)
	load.Stop()
	f.readMixed = f.oracle.check(c, "after-healing")
	f.history.stoodTo.Store(time.Now().UnixNano())
	c.signalWorkers(syscall.SIGCONT)
	f.archived = c.awaitArchived(f.oracle)
	f.readAll = f.oracle.check(c, "archived")
	f.deleter.judge(c)
	f.verified, f.orphans = c.verify()
	f.history.Stop()
	for _, err := range f.history.wrong {
		c.t.Error(err)
	}
	if f.history.commits > 100*max(f.shards, 1) && f.history.merges == 0 {
		c.t.Errorf("of %d segments none were merged", f.history.commits)
	}
	f.temporary = c.unfinishedPuts()
	f.sampler.Stop()
	c.mind()
	if lost := f.sampler.total[lostEntries]; lost != 0 {
		c.t.Errorf("%v entries are counted as lost", lost)
	}
	var logs []string
	for _, name := range c.parts.processes() {
		logs = append(logs, c.procs[name].Log)
	}
	var err error
	f.remarks, err = remarksOf(logs)
	c.must(err)
	for _, line := range f.remarks.bad {
		c.t.Error(line)
	}
	if c.t.Failed() {
		c.dump()
	}
}

func (c *cluster) signalWorkers(s syscall.Signal) {
	c.t.Helper()
	for _, name := range c.parts.workers {
		c.must(c.procs[name].signal(s))
	}
}

// awaitAcks waits until publishers get on again.
func (c *cluster) awaitAcks(o *oracle) {
	c.t.Helper()
	before, _ := o.Counts()
	c.until("publishers to get on", func() string {
		if now, _ := o.Counts(); now < before+100 {
			return fmt.Sprintf("%d entries acked, %d before", now, before)
		}
		return ""
	})
}

// awaitArchived waits until everything is archived and trimmed.
func (c *cluster) awaitArchived(o *oracle) time.Duration {
	c.t.Helper()
	nc, js := programtest.Dial(c.t, c.directURLs())
	defer nc.Close()
	return c.until("everything to be archived", func() string {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		states, err := c.sources(ctx, js)
		if err != nil {
			return err.Error()
		}
		for name, state := range states {
			if state.Msgs > 0 || state.LastSeq < o.Last(name) {
				return fmt.Sprintf("stream %s has %d entries from %d to %d, acked up to %d", name, state.Msgs, state.FirstSeq,
					state.LastSeq, o.Last(name))
			}
		}
		return ""
	})
}

// keepVariable is set to keep everything that a run leaves.
const keepVariable = "DORMOUSE_CHAOS_KEEP"

// keptIfFailed returns a directory for the output of the processes, which outlives the test only if that fails.
func keptIfFailed(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "dormouse-chaos-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() || os.Getenv(keepVariable) != "" {
			t.Logf("what the run left is in %s", dir)
			return
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// stateDir returns a directory for what the processes keep.
func stateDir(t *testing.T) string {
	t.Helper()
	if os.Getenv(keepVariable) == "" {
		return t.TempDir()
	}
	return keptIfFailed(t)
}
