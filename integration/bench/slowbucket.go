package bench

import (
	"context"
	"fmt"
)

// slowSegmentBytes is small, so that many puts are needed and none costs much processor time.
const slowSegmentBytes = "64KiB"

// slowScenario measures how throughput follows a number of workers when the bucket, not the processor, is what they
// wait for.
type slowScenario struct {
	counts    []int   // of workers; the first, one, is what the others are compared with
	one, many string  // what they are called
	part      int     // the entries are so large a part of those of the other scenarios
	least     *target // of the ratio
	// rate archives a backlog and returns how many entries a second it took.
	rate func(ctx context.Context, r *run, workers int, b slowBacklog) (float64, error)
}

// slowBacklog is a backlog in the source stream, and the bucket for it.
type slowBacklog struct {
	mark    uint64 // manifest record before the first of it
	logs    int    // of one entry each
	archive string
}

func (s slowScenario) measure(ctx context.Context, r *run) error {
	logs := max(r.Entries/s.part, 1000)
	server, err := newSlowS3("slow", bucketLatency)
	if err != nil {
		return err
	}
	defer server.close()
	var first float64
	for i, workers := range s.counts {
		if err := r.fresh(ctx); err != nil {
			return err
		}
		archive := server.of(fmt.Sprint(workers))
		mark, _, err := r.backlog(ctx, spread(logs, logs, entryBytes), "--archive", archive)
		if err != nil {
			return err
		}
		name := "1 " + s.one
		if workers > 1 {
			name = fmt.Sprintf("%d %s", workers, s.many)
		}
		r.step("archiving it with " + name)
		rate, err := s.rate(ctx, r, workers, slowBacklog{mark, logs, archive})
		if err != nil {
			return err
		}
		if i == 0 {
			first = rate
			r.add(name, "entries/s", rate, nil)
			continue
		}
		r.compare(name, "entries/s", rate, "one", first, s.least)
	}
	return nil
}

// rateOfPool archives a backlog with one process and so many workers in it.
func rateOfPool(ctx context.Context, r *run, workers int, b slowBacklog) (float64, error) {
	h, _, err := r.archiveBacklog(ctx, b.mark, b.logs, "--archive", b.archive, "--workers", fmt.Sprint(workers),
		"--segment-bytes", slowSegmentBytes)
	if err != nil {
		return 0, err
	}
	// Before the first commit, nobody waits for the bucket.
	return float64(b.logs-h.opening) / h.last.Sub(h.first).Seconds(), nil
}
