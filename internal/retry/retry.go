// Package retry names how long what failed waits before it is tried again, so that there are a few ways of that and not
// one for each place. The pauses grow by half each time and are spread by half, so that many who failed together do not
// come back together.
//
// It tries nothing itself. Open jsapi for which errors of JetStream it is no use to try again.
package retry

import (
	"time"

	"github.com/cenkalti/backoff/v5"
)

// Quick is for an answer that somebody waits for.
func Quick() *backoff.ExponentialBackOff { return Between(20*time.Millisecond, time.Second) }

// Steady is for what the work of a shard waits for, such as an append to its manifest.
func Steady() *backoff.ExponentialBackOff { return Between(50*time.Millisecond, 2*time.Second) }

// Patient is for what others can do meanwhile, or what may be away for long, such as a bucket or a stream.
func Patient() *backoff.ExponentialBackOff { return Between(100*time.Millisecond, 5*time.Second) }

// Between is for what goes by another measure, such as a lease: pauses from first to most.
func Between(first, most time.Duration) *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval = first, most
	return b
}
