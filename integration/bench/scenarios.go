package bench

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// scenario is one thing to measure.
type scenario struct {
	name    string
	about   string
	measure func(context.Context, *run) error
}

const (
	entryBytes    = 256
	hotBytes      = 1024
	hotLogs       = 100
	drainLogs     = 100_000
	maxDelay      = 5 * time.Second // the default of serve
	wakeMargin    = 15 * time.Second
	delayMargin   = 250 * time.Millisecond
	bucketLatency = 50 * time.Millisecond
)

// scenarios returns all there is to measure with a configuration.
func scenarios(cfg Config) []scenario {
	var list []scenario
	for _, n := range cfg.Logs {
		list = append(list, scenario{fmt.Sprintf("sleep-%s", short(n)), fmt.Sprintf("%d logs asleep, then all woken", n),
			func(ctx context.Context, r *run) error { return sleepAndWake(ctx, r, n) }})
	}
	list = append(list,
		scenario{"drain", "a backlog in the stream, until all of it is committed", drain},
		scenario{"hot", "few logs written as fast as JetStream takes it", hot},
		scenario{"delay", "steady load: entry arrival to commit", delay},
		scenario{"lateness", "100,000 deadlines: due to ready", late},
		scenario{"read", "one log out of the archive", read},
		scenario{"merge", "logs that wake up hundreds of times: what their past costs", merges},
		scenario{"scale-owners", "8 shards: 1 and 2 ingest processes", scaleOwners},
		scenario{"failover", "an ingest process leaves, or is killed: how long nothing is committed", failover},
	)
	if !hasS3 {
		return list
	}
	return append(list,
		scenario{"scale-workers", "a bucket that answers in 50 ms: 1 and 4 worker processes",
			slowScenario{[]int{1, 4}, "worker process", "worker processes", 10, ratioAtLeast(3.5), rateOfProcesses}.measure},
		scenario{"slow-bucket", "a bucket that answers in 50 ms: 1, 4 and 16 workers",
			slowScenario{[]int{1, 4, 16}, "worker", "workers", 5, nil, rateOfPool}.measure},
	)
}

func short(n int) string {
	switch {
	case n%1_000_000 == 0:
		return fmt.Sprintf("%dM", n/1_000_000)
	case n%1000 == 0:
		return fmt.Sprintf("%dk", n/1000)
	default:
		return fmt.Sprint(n)
	}
}

// Names returns the names of all scenarios of a configuration, each with a tab and what it measures.
func Names(cfg Config) (names []string) {
	for _, sc := range scenarios(cfg) {
		names = append(names, sc.name+"\t"+sc.about)
	}
	return names
}

func choose(cfg Config, names []string) (chosen []scenario, err error) {
	all := scenarios(cfg)
	if len(names) == 0 {
		return all, nil
	}
	for _, name := range names {
		i := slices.IndexFunc(all, func(sc scenario) bool { return sc.name == name })
		if i < 0 {
			return nil, fmt.Errorf("no scenario %q: there are %s", name,
				strings.ReplaceAll(strings.Join(Names(cfg), ", "), "\t", ": "))
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}
