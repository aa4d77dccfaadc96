package lateness

import (
	"container/heap"
	"strings"
	"sync"
	"time"
)

// waiting is a log in the heap.
type waiting struct {
	due time.Time
	log string
}

// byDue is a container/heap, the earliest on top.
type byDue []*waiting

func (h byDue) Len() int           { return len(h) }
func (h byDue) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h byDue) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *byDue) Push(x any) { *h = append(*h, x.(*waiting)) }

// Pop implements heap.Interface.
func (h *byDue) Pop() any {
	last := len(*h) - 1
	w := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return w
}

// heaped is the heap scheduler: one goroutine waits for the earliest deadline and hands what is due to the pool, log by
// log.
type heaped struct {
	mu struct {
		sync.Mutex
		logs byDue
	}
	earlier chan struct{} // cap 1: there is a new earliest
	quit    chan struct{}
	due     chan *waiting
	running sync.WaitGroup
}

func newHeap(p *plan) *heaped {
	d := &heaped{earlier: make(chan struct{}, 1), quit: make(chan struct{}), due: make(chan *waiting, pool)}
	d.running.Go(d.run)
	for range pool {
		d.running.Go(func() {
			for w := range d.due {
				p.serve(time.Now(), w.log)
			}
		})
	}
	return d
}

func (d *heaped) arm(p *plan) {
	for i, log := range p.names {
		w := &waiting{p.due(i), strings.Clone(log)}
		d.mu.Lock()
		heap.Push(&d.mu.logs, w)
		earliest := d.mu.logs[0] == w
		d.mu.Unlock()
		if earliest {
			select {
			case d.earlier <- struct{}{}:
			default:
			}
		}
	}
}

// next takes the earliest log off the heap if it is due. Otherwise it returns how long to wait.
func (d *heaped) next() (w *waiting, wait time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.mu.logs) == 0 {
		return nil, time.Hour // until one is armed
	}
	if wait = time.Until(d.mu.logs[0].due); wait > 0 {
		return nil, wait
	}
	return heap.Pop(&d.mu.logs).(*waiting), 0
}

func (d *heaped) run() {
	defer close(d.due)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		w, wait := d.next()
		if w != nil {
			select {
			case d.due <- w:
				continue
			case <-d.quit:
				return
			}
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-d.earlier:
		case <-d.quit:
			return
		}
	}
}

func (d *heaped) stop() error {
	close(d.quit)
	d.running.Wait()
	return nil
}

// afterFuncs has a timer of the runtime for each log, and so a goroutine for each that fires.
type afterFuncs struct {
	timers []*time.Timer // to stop them, as a log that is committed before its deadline must
	fired  sync.WaitGroup
}

func newAfterFuncs(p *plan) *afterFuncs {
	return &afterFuncs{timers: make([]*time.Timer, 0, len(p.names))}
}

func (d *afterFuncs) arm(p *plan) {
	d.fired.Add(len(p.names))
	for i, log := range p.names {
		log = strings.Clone(log)
		d.timers = append(d.timers, time.AfterFunc(time.Until(p.due(i)), func() {
			defer d.fired.Done()
			p.serve(time.Now(), log)
		}))
	}
}

func (d *afterFuncs) stop() error {
	for _, timer := range d.timers {
		if timer.Stop() {
			d.fired.Done()
		}
	}
	d.fired.Wait()
	return nil
}
