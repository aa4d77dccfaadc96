package buckettest

import (
	"context"
	"errors"
	"sync"
)

// ErrFault is what a Faulty bucket fails with.
var ErrFault = errors.New("bucket fails on purpose")

// Putter is the part of a bucket that writers use.
type Putter interface {
	Put(ctx context.Context, key string, data []byte) error
}

// Fault is what happens to one put.
type Fault int

// The faults.
const (
	None  Fault = iota // the put goes through
	Fail               // nothing is stored, the put fails
	Lose               // the object is stored, but the put fails: its answer was lost
	Hang               // nothing is stored, the put lasts until its context ends
	Delay              // the put goes through once Release has been called
)

// Faulty passes puts on to Bucket, except for those that Next spoils. It is for any number of goroutines.
type Faulty struct {
	Bucket Putter

	mu struct {
		sync.Mutex
		faults  []Fault // of the next puts, in order; further puts go through
		puts    int
		release chan struct{} // closed by Release
	}
}

var _ Putter = (*Faulty)(nil)

// Next says what happens to the next puts, after those already decided.
func (f *Faulty) Next(faults ...Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.faults = append(f.mu.faults, faults...)
}

// Puts returns how many puts have begun.
func (f *Faulty) Puts() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.puts
}

// Release lets every delayed put go on; later ones wait for the next Release.
func (f *Faulty) Release() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mu.release != nil {
		close(f.mu.release)
		f.mu.release = nil
	}
}

// begin returns the fault of one put and what releases it.
func (f *Faulty) begin() (fault Fault, released <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.puts++
	if len(f.mu.faults) > 0 {
		fault, f.mu.faults = f.mu.faults[0], f.mu.faults[1:]
	}
	if f.mu.release == nil {
		f.mu.release = make(chan struct{})
	}
	return fault, f.mu.release
}

// Put implements Putter.
func (f *Faulty) Put(ctx context.Context, key string, data []byte) error {
	fault, released := f.begin()
	switch fault {
	case Fail:
		return ErrFault
	case Lose:
		return errors.Join(ErrFault, f.Bucket.Put(ctx, key, data))
	case Hang:
		<-ctx.Done()
		return ctx.Err()
	case Delay:
		select {
		case <-released:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return f.Bucket.Put(ctx, key, data)
}
