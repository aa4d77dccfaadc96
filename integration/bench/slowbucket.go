package bench

import (
	"context"
	"fmt"
)

// slowBucket measures how throughput follows the number of workers when the bucket, not the processor, is what they
// wait for. Segments are small, so that many puts are needed and none costs much processor time.
func slowBucket(ctx context.Context, r *run) error {
	const bucketName, segmentBytes = "slow", "64KiB"
	logs := max(r.Entries/5, 1000)
	server, err := newSlowS3(bucketName, bucketLatency)
	if err != nil {
		return err
	}
	defer server.close()
	var one float64
	for _, workers := range []int{1, 4, 16} {
		if err := r.fresh(ctx); err != nil {
			return err
		}
		mark, _, err := r.backlog(ctx, spread(logs, logs, entryBytes))
		if err != nil {
			return err
		}
		r.step(fmt.Sprintf("archiving it with %d workers", workers))
		h, _, err := r.archiveBacklog(ctx, mark, logs, "--archive", server.of(fmt.Sprint(workers)), "--workers",
			fmt.Sprint(workers), "--segment-bytes", segmentBytes)
		if err != nil {
			return err
		}
		// before the first commit, nobody waits for the bucket
		rate := float64(logs-h.opening) / h.last.Sub(h.first).Seconds()
		if workers == 1 {
			one = rate
		}
		r.compare(fmt.Sprintf("%d workers", workers), "entries/s", rate, "one worker", one, nil)
	}
	return nil
}
