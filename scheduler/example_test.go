package scheduler_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"dormouse/scheduler"
)

// A log is due when its first entry has waited for MaxDelay. What is published here goes into a work queue in Dormouse.
func Example() {
	ready := make(chan []string)
	s, err := scheduler.New(scheduler.Config{
		MaxDelay: 20 * time.Millisecond, RequeueAfter: time.Minute, MaxBytes: 1 << 20, Logger: slog.New(slog.DiscardHandler),
		Publish: func(_ context.Context, logs []string) error { ready <- slices.Clone(logs); return nil },
	})
	if err != nil {
		panic(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- s.Run(ctx) }()

	s.Append([]scheduler.Arrival{
		{Log: "acme.web", Seq: 1, Bytes: 5, Time: time.Now()},
		{Log: "acme.web", Seq: 2, Bytes: 5, Time: time.Now()},
	})
	fmt.Println("due:", <-ready)

	// The commit of both entries puts the log to sleep. Nothing of it is left.
	nothing := func(string, uint64) (uint64, time.Time, error) { return 0, time.Time{}, nil } // it is not asked
	if err := s.Committed([]scheduler.Commit{{Log: "acme.web", Last: 2, Count: 2, Bytes: 10}}, nothing); err != nil {
		panic(err)
	}
	fmt.Println("active:", s.Stats().Active)

	cancel()
	<-ended
	// Output:
	// due: [acme.web]
	// active: 0
}
