// Package lateness measures how late the deadlines of many logs are served: by the scheduler, and by the two designs
// that others have chosen for the same problem.
//
// Every design owns its LogIDs, is armed by one goroutine and hands what is due to the same observer, so that the
// figures of one run can be compared with each other. The baselines do less than the scheduler does: they know no
// states, take no commits and queue nothing again. Open designs.go for them, slots.go for the scheduler.
package lateness

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"
)

// Design is a way to serve deadlines.
type Design string

// The designs.
const (
	// scheduler.Scheduler: all the logs of a tick share a timer and are published in batches
	Slots Design = "slots"
	// container/heap under a mutex, one timer for the earliest, a pool that is fed one by one
	Heap      Design = "heap"
	AfterFunc Design = "afterfunc" // a time.AfterFunc for each log
)

// Result is what one design did. Lateness is from a log's deadline to the observer being called with it; it is negative
// for a log that was served early, as the scheduler does with those that board (scheduler.BoardShare), and by its
// rounding to ticks.
type Result struct {
	Design         Design
	Logs           int
	Min            time.Duration // lateness of the earliest
	P50, P99, Max  time.Duration // lateness
	Arm            time.Duration // to arm one log, on average over all
	PeakGoroutines int           // the most at a time, besides those that ran before; sampled every millisecond
	HeapPerLog     float64       // bytes of live heap that an armed log takes, its LogID included
	AllocsPerLog   float64       // allocations to arm a log
	CPU            time.Duration // the process's processor time, to arm and to serve all
}

const (
	// leadBase and leadPerLog are how far off the first deadline is when arming begins. All logs must be armed, and their
	// memory counted, before it; a hundredth of it is normal, the rest is for the race detector and busy machines.
	leadBase   = 500 * time.Millisecond
	leadPerLog = 20 * time.Microsecond

	// patience is how late the last log may be before the measurement is given up.
	patience = time.Minute
)

// server is a design with logs armed in it.
type server interface {
	// arm gives plan's log i its deadline, for every i in ascending order. It is called once.
	arm(p *plan)
	// stop ends the design. No goroutine and no timer of it is left when it returns.
	stop() error
}

// Measure arms logs logs in a design and waits until all of them were served. Their deadlines are spread evenly over
// spread, in the order in which they are armed; with 0 all are due at the same moment. It fails if arming took so long
// that the first deadline had passed, if a log was served twice, or when ctx is done, and leaves no goroutine behind.
func Measure(ctx context.Context, design Design, logs int, spread time.Duration) (Result, error) {
	if logs < 1 || spread < 0 {
		return Result{}, errors.New("lateness: at least 1 log and a spread that is not negative are needed")
	}
	if err := ctx.Err(); err != nil {
		return Result{}, err
	}
	p := newPlan(logs, spread)
	goroutines := watchGoroutines()
	defer goroutines.stop()
	before, cpuBefore := memory(), cpu()
	began := p.begin()
	s, err := start(design, p)
	if err != nil {
		return Result{}, err
	}
	s.arm(p)
	armed, cpuArmed := time.Now(), cpu()
	after, cpuServing := memory(), cpu()
	err = p.wait(ctx, time.Now())
	cpuServed := cpu()
	var late []time.Duration
	if err = errors.Join(err, s.stop()); err == nil {
		late, err = p.lateness()
	}
	if err != nil {
		return Result{}, fmt.Errorf("lateness: %s: %w", design, err)
	}
	r := Result{
		Design: design, Logs: logs, Arm: armed.Sub(began) / time.Duration(logs), PeakGoroutines: goroutines.stop(),
		HeapPerLog:   (float64(after.HeapAlloc) - float64(before.HeapAlloc)) / float64(logs),
		AllocsPerLog: float64(after.Mallocs-before.Mallocs) / float64(logs),
		CPU:          cpuArmed - cpuBefore + cpuServed - cpuServing,
	}
	r.Min, r.P50, r.P99, r.Max = quantiles(late)
	return r, nil
}

func start(design Design, p *plan) (server, error) {
	switch design {
	case Slots:
		return newSlots(p)
	case Heap:
		return newHeap(p), nil
	case AfterFunc:
		return newAfterFuncs(p), nil
	default:
		return nil, fmt.Errorf("lateness: no design %q", design)
	}
}

// memory returns the memory statistics after the collector has taken all that is garbage.
func memory() (m runtime.MemStats) {
	runtime.GC()
	runtime.GC() // what the first one only found to be finalized or pooled
	runtime.ReadMemStats(&m)
	return m
}

// cpu returns the processor time that the process has taken.
func cpu() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// goroutineWatch samples the number of goroutines.
type goroutineWatch struct {
	quit chan struct{}
	done sync.WaitGroup
	once sync.Once
	peak int
}

func watchGoroutines() *goroutineWatch {
	w := &goroutineWatch{quit: make(chan struct{})}
	before := runtime.NumGoroutine()
	w.done.Go(func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			w.peak = max(w.peak, runtime.NumGoroutine()-before-1) // less the one that looks
			select {
			case <-w.quit:
				return
			case <-tick.C:
			}
		}
	})
	return w
}

// stop ends the watch and returns the peak. It may be called again.
func (w *goroutineWatch) stop() int {
	w.once.Do(func() { close(w.quit) })
	w.done.Wait()
	return w.peak
}

// shuffled returns the numbers below n in an order that is the same in every run. LogIDs are armed in such an order:
// ascending ones would spare a design that sorts all of its work.
func shuffled(n int) []int {
	return rand.New(rand.NewPCG(1, 1)).Perm(n)
}

// quantiles sorts its argument.
func quantiles(all []time.Duration) (least, p50, p99, most time.Duration) {
	slices.Sort(all)
	at := func(q float64) time.Duration { return all[int(q*float64(len(all)-1))] }
	return all[0], at(.50), at(.99), all[len(all)-1]
}
