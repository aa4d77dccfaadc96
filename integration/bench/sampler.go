package bench

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"
)

const mib = 1 << 20

// usage is what a process takes of the machine.
type usage struct {
	resident   float64 // MiB
	private    float64 // MiB of it that no other process can share: without the pages of the program's file
	goroutines float64
	files      float64
}

func (p *program) resident() (float64, error) {
	info, err := p.stats.MemoryInfo()
	if err != nil {
		return 0, fmt.Errorf("reading the memory of the program: %w", err)
	}
	return float64(info.RSS) / mib, nil
}

// private returns the resident memory that is the process's alone. Where the system does not tell, it is all of it.
func (p *program) private() (float64, error) {
	// proc(5): pages in all, resident, of those in files
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.stats.Pid))
	if err != nil {
		return p.resident()
	}
	var size, resident, file float64
	if _, err := fmt.Sscan(string(statm), &size, &resident, &file); err != nil {
		return 0, fmt.Errorf("reading the memory of the program: %w", err)
	}
	return (resident - file) * float64(os.Getpagesize()) / mib, nil
}

// usage returns what the program takes now.
func (p *program) usage(ctx context.Context) (u usage, err error) {
	m, err := p.metrics(ctx)
	if err != nil {
		return u, err
	}
	u.goroutines, u.files = m["go_goroutines"], m["process_open_fds"]
	u.resident, err = p.resident()
	return u, err
}

// settled waits until resident memory stops falling, and returns it.
func (p *program) settled(ctx context.Context) (float64, error) {
	const still, limit = 30 * time.Second, 4 * time.Minute
	lowest, since, began := 0.0, time.Now(), time.Now()
	for {
		now, err := p.resident()
		if err != nil {
			return 0, err
		}
		if lowest == 0 || now < lowest-1 {
			lowest, since = now, time.Now()
		}
		if time.Since(since) > still || time.Since(began) > limit {
			return now, nil
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// cores returns how many processor cores the program keeps busy over a time in which nobody looks at it.
func (p *program) cores(ctx context.Context, during time.Duration) (float64, error) {
	before, err := p.stats.Times()
	if err != nil {
		return 0, fmt.Errorf("reading the processor time of the program: %w", err)
	}
	began := time.Now()
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-time.After(during):
	}
	after, err := p.stats.Times()
	if err != nil {
		return 0, fmt.Errorf("reading the processor time of the program: %w", err)
	}
	return (after.User + after.System - before.User - before.System) / time.Since(began).Seconds(), nil
}

// watchPeaks samples the program until the returned function is called, which returns the peaks. Memory is asked of the
// operating system and costs the program nothing; a look at its goroutines costs it about a millisecond.
func (p *program) watchPeaks(ctx context.Context) (stop func() usage) {
	const memoryEvery, goroutinesEvery = 10 * time.Millisecond, 100 * time.Millisecond
	ctx, cancel := context.WithCancel(ctx)
	var joined sync.WaitGroup
	var peak usage
	each := func(every time.Duration, look func()) {
		joined.Go(func() {
			tick := time.NewTicker(every)
			defer tick.Stop()
			for {
				look()
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
			}
		})
	}
	each(memoryEvery, func() {
		if now, err := p.resident(); err == nil { // a process that has ended shows in what waits for it
			peak.resident = max(peak.resident, now)
		}
		if now, err := p.private(); err == nil {
			peak.private = max(peak.private, now)
		}
	})
	each(goroutinesEvery, func() {
		if m, err := p.metrics(ctx); err == nil {
			peak.goroutines, peak.files = max(peak.goroutines, m["go_goroutines"]), max(peak.files, m["process_open_fds"])
		}
	})
	return func() usage {
		cancel()
		joined.Wait()
		return peak
	}
}
