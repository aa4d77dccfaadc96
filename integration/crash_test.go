package integration

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// crashRestarts is how often the server is killed, and shortRestarts how often in the short form;
// DORMOUSE_CRASH_RESTARTS sets another number.
const (
	crashRestarts = 24
	shortRestarts = 6
)

func envInt(t *testing.T, name string, def uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return def
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// TestCrash kills the server with SIGKILL at random moments under load and starts it again, sometimes without its
// Pebble directory, and in the end compares what is read with what was acked: from the mixture of archive and stream,
// and again when all is archived. The seed is printed; DORMOUSE_SEED replays its choices.
func TestCrash(t *testing.T) {
	t.Parallel()
	restarts := uint64(crashRestarts)
	if testing.Short() {
		restarts = shortRestarts
	}
	for name, wipe := range map[string]bool{"same disk": false, "cache deleted": true} {
		t.Run(name, func(t *testing.T) {
			seed := envInt(t, "DORMOUSE_SEED", uint64(time.Now().UnixNano()))
			restarts := int(envInt(t, "DORMOUSE_CRASH_RESTARTS", restarts)) / 2
			t.Logf("seed %d, %d restarts", seed, restarts)
			r := rand.New(rand.NewPCG(seed, 0))
			in := newInstance(t, fast...)
			in.args = append(in.args, "--max-bytes", "4KiB", "--segment-bytes", "32KiB")
			in.start()
			o := newOracle()
			load := startPublishers(t, in.nats, o, seed)
			timer := time.NewTimer(0)
			defer timer.Stop()
			for i := range restarts {
				timer.Reset(time.Duration(r.IntN(1200)) * time.Millisecond)
				<-timer.C
				in.kill()
				if wipe && i%2 == 0 {
					if err := os.RemoveAll(filepath.Join(in.data, "pebble")); err != nil {
						t.Fatal(err)
					}
				}
				if r.IntN(3) == 0 {
					in.launch() // and perhaps killed before it is ready
				} else {
					in.start()
				}
			}
			if !in.ready() {
				in.until("readiness", in.ready)
			}
			load.Stop()
			entries, _ := o.Counts()
			o.check(in)
			in.awaitQuiet(o.last())
			o.check(in)
			t.Logf("%d acked entries survived %d kills; %s", entries, restarts, in.must("", "verify"))
			if m := in.metrics(); m["dormouse_entries_lost_total"] != 0 {
				t.Errorf("%v entries are counted as lost", m["dormouse_entries_lost_total"])
			}
		})
	}
}
