package programtest

import (
	"context"
	"sync"
	"testing"
)

// Background is work that goes on beside a test.
type Background struct {
	cancel context.CancelFunc
	joined sync.WaitGroup
}

// Beside starts works, each in a goroutine of its own. Their context ends by Stop, or by the end of the test.
func Beside(t testing.TB, works ...func(context.Context)) *Background {
	ctx, cancel := context.WithCancel(context.Background())
	b := &Background{cancel: cancel}
	for _, work := range works {
		b.joined.Go(func() { work(ctx) })
	}
	t.Cleanup(b.Stop)
	return b
}

// Stop ends the work and waits for its end; it may be called twice.
func (b *Background) Stop() { b.cancel(); b.joined.Wait() }
