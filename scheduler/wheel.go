package scheduler

import (
	"sync"
	"time"

	"github.com/RussellLuo/timingwheel"
)

// wheel is what a clock needs of the timing wheel.
type wheel interface {
	Start()
	Stop()
	AfterFunc(d time.Duration, f func())
}

type timingWheel struct{ *timingwheel.TimingWheel }

func (w timingWheel) AfterFunc(d time.Duration, f func()) { w.TimingWheel.AfterFunc(d, f) }

func newTimingWheel(tick time.Duration, size int64) wheel {
	return timingWheel{timingwheel.NewTimingWheel(tick, size)}
}

// clock fires slots by a timing wheel.
//
// The wheel can deadlock when a timer is added to the bucket that is being flushed, which takes a delay near its whole
// span (RussellLuo/timingwheel issue 53). An add can block on a wheel that is stuck. So no delay is longer than
// half the span (a slot farther away is set again when it fires), no lock is held and nobody waits during an add: a
// goroutine of the clock does it. A wheel that got stuck all the same is abandoned with that goroutine.
type clock struct {
	s     *Scheduler
	wheel wheel
	half  time.Duration // half of the wheel's span
	fired chan struct{} // cap 1: due has grown

	mu struct {
		sync.Mutex
		due  []int64 // slots whose timers have fired
		todo []int64 // slots whose timers are to be set
	}
	work chan struct{} // cap 1: todo has grown
	quit chan struct{}
	done chan struct{}
}

// newClock starts a wheel with a span of twice the longest delay that it is given: MaxDelay, unless that is very long.
func newClock(s *Scheduler) *clock {
	slots := min(max(int64(s.cfg.MaxDelay/s.cfg.Tick)+2, leastWheelSlots), mostWheelSlots)
	c := &clock{
		s: s, wheel: s.newWheel(s.cfg.Tick, 2*slots), half: time.Duration(slots) * s.cfg.Tick,
		fired: make(chan struct{}, 1), work: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{}),
	}
	c.wheel.Start()
	go c.run()
	return c
}

// set has a timer set for each slot. It does not wait.
func (c *clock) set(slots []int64) {
	c.mu.Lock()
	c.mu.todo = append(c.mu.todo, slots...)
	c.mu.Unlock()
	signal(c.work)
}

func (c *clock) run() {
	defer close(c.done)
	for {
		select {
		case <-c.quit:
			return
		case <-c.work:
		}
		c.mu.Lock()
		todo := c.mu.todo
		c.mu.todo = nil
		c.mu.Unlock()
		for _, k := range todo {
			wait := c.s.cfg.dueOf(k) - time.Since(c.s.start)
			if wait > 0 {
				wait += c.s.cfg.Tick / 2 // the wheel rounds down to its tick: aim at the middle of the one that begins then
			}
			c.wheel.AfterFunc(min(max(wait, 0), c.half), func() { c.fire(k) })
		}
	}
}

// fire is the wheel's callback, in a goroutine of the wheel's making: it hands the slot over and returns.
func (c *clock) fire(k int64) {
	c.mu.Lock()
	c.mu.due = append(c.mu.due, k)
	c.mu.Unlock()
	signal(c.fired)
}

func (c *clock) takeFired() []int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	due := c.mu.due
	c.mu.due = nil
	return due
}

// stopPatience is how long stop waits for a wheel that may be stuck.
const stopPatience = 2 * time.Second

// stop ends the clock: first the one who adds, for a wheel must not be added to once it stops.
func (c *clock) stop() {
	joined := make(chan struct{})
	go func() {
		defer close(joined)
		close(c.quit)
		<-c.done
		c.wheel.Stop()
	}()
	timeout := time.NewTimer(stopPatience)
	defer timeout.Stop()
	select {
	case <-joined:
	case <-timeout.C:
		c.s.cfg.Logger.Error("the timing wheel does not stop; leaving its goroutines behind")
	}
}

// abandon ends a clock whose wheel is suspected to be stuck, without waiting for it.
func (c *clock) abandon() {
	go func() {
		close(c.quit)
		<-c.done
		c.wheel.Stop()
	}()
}
