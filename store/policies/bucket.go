// Package policies keeps policies where all processes find them, in a KV bucket of NATS, and tells a process which are
// in force.
//
// What a policy is, package policy knows; who obeys it is the scheduler and the owners of shards. Open watcher.go for
// how a process hears of a change.
package policies

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/policy"
	"dormouse/internal/wire"
)

// Bucket is the KV bucket. A key is a pattern, see policy.Pattern.Key.
type Bucket struct {
	kv jetstream.KeyValue
	js jetstream.JetStream
}

var (
	// ErrNoBucket is wrapped when there is no bucket.
	ErrNoBucket = errors.New("there is no bucket " + wire.PolicyBucket + ": start dormouse serve, or run dormouse " +
		"provision")
	// ErrChanged is wrapped when somebody else was faster.
	ErrChanged = errors.New("somebody else has changed it meanwhile: look at it with dormouse policy ls, and try again")
	// ErrTooMany is wrapped when there would be more than policy.MaxPatterns.
	ErrTooMany = fmt.Errorf("there are more than %d policies", policy.MaxPatterns)
)

// Open opens the bucket, which must be there.
func Open(ctx context.Context, js jetstream.JetStream) (*Bucket, error) {
	kv, err := js.KeyValue(ctx, wire.PolicyBucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		return nil, ErrNoBucket
	}
	if err != nil {
		return nil, fmt.Errorf("opening the bucket %s: %w", wire.PolicyBucket, err)
	}
	return &Bucket{kv, js}, nil
}

// Kept is what the bucket has, or had, under one key.
type Kept struct {
	Key      string
	Pattern  policy.Pattern // empty if the key is none
	Policy   policy.Policy  // the zero Policy if it cannot be read, or was removed
	By       string         // who has set it; empty if it was removed
	At       time.Time      // by the clock of the server
	Revision uint64
	Removed  bool
	Fault    error // why it cannot be read
}

func keptOf(e jetstream.KeyValueEntry) Kept {
	k := Kept{Key: e.Key(), At: e.Created(), Revision: e.Revision(), Removed: e.Operation() != jetstream.KeyValuePut}
	pattern, err := policy.ParseKey(k.Key)
	if err != nil {
		k.Fault = fmt.Errorf("bucket %s: %w", wire.PolicyBucket, err)
		return k
	}
	k.Pattern = pattern
	if !k.Removed {
		k.Policy, k.By, k.Fault = policy.Decode(pattern, e.Value())
	}
	return k
}

// InForce makes a set of what a bucket has. Of the logs of a policy that cannot be read nothing expires: else those
// would lose their entries for which a wider pattern says less than it does.
func InForce(all []Kept) (set *policy.Set, faults []error, err error) {
	policies := make(map[policy.Pattern]policy.Policy, len(all))
	for _, k := range all {
		p := k.Policy
		if k.Fault != nil {
			faults = append(faults, k.Fault)
			p = policy.Policy{Keep: policy.Forever}
		}
		if k.Pattern != "" && !k.Removed {
			policies[k.Pattern] = p
		}
	}
	set, err = policy.NewSet(policies)
	return set, faults, err
}

// List returns the policies that there are, the one that fits best first, and then what cannot be read.
func (b *Bucket) List(ctx context.Context) ([]Kept, error) {
	all, err := b.read(ctx, jetstream.IgnoreDeletes())
	if err == nil && len(all) > policy.MaxPatterns {
		err = ErrTooMany
	}
	return all, err
}

// History returns the last few policies of each pattern, removals too, the newest of each pattern last.
func (b *Bucket) History(ctx context.Context) ([]Kept, error) {
	return b.read(ctx, jetstream.IncludeHistory())
}

// read goes by a consumer: a direct read may come from a replica that is behind.
func (b *Bucket) read(ctx context.Context, options ...jetstream.WatchOpt) (all []Kept, err error) {
	watcher, err := b.kv.WatchAll(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("reading the bucket %s: %w", wire.PolicyBucket, err)
	}
	defer end(watcher)
	for {
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("reading the bucket %s: %w", wire.PolicyBucket, ctx.Err())
		case entry, ok := <-watcher.Updates():
			switch {
			case !ok:
				return nil, fmt.Errorf("reading the bucket %s: %w", wire.PolicyBucket, errWatchEnded)
			case entry != nil:
				all = append(all, keptOf(entry))
				continue
			}
		}
		slices.SortStableFunc(all, func(a, b Kept) int {
			if a.Pattern == "" || b.Pattern == "" {
				return strings.Compare(string(b.Pattern), string(a.Pattern))
			}
			return policy.Compare(a.Pattern, b.Pattern)
		})
		return all, nil
	}
}

// Set keeps the policy of a pattern, in the place of the one at revision; 0 is none. by says who does it.
func (b *Bucket) Set(ctx context.Context, r policy.Rule, by string, revision uint64) error {
	data, err := policy.Encode(r, by)
	if err != nil {
		return err
	}
	if revision == 0 {
		_, err = b.kv.Create(ctx, r.Pattern.Key(), data)
	} else {
		_, err = b.kv.Update(ctx, r.Pattern.Key(), data, revision)
	}
	return changedBy(err)
}

// Remove removes the policy of a pattern that is at revision. What it was can be read for a while.
func (b *Bucket) Remove(ctx context.Context, pattern policy.Pattern, revision uint64) error {
	return changedBy(b.kv.Delete(ctx, pattern.Key(), jetstream.LastRevision(revision)))
}

// Forgotten is how long it can be read what a policy was that was removed.
const Forgotten = 30 * 24 * time.Hour

// mostForgotten is how many are forgotten at a time.
const mostForgotten = 1000

// Forget drops what was removed before a time, which would fill the bucket else. It may be called at any time.
func (b *Bucket) Forget(ctx context.Context, before time.Time) error {
	all, err := b.read(ctx)
	if err != nil {
		return err
	}
	stream, err := b.js.Stream(ctx, "KV_"+wire.PolicyBucket)
	if err != nil {
		return err
	}
	forgotten := 0
	for _, k := range all {
		if !k.Removed || !k.At.Before(before) || forgotten == mostForgotten {
			continue
		}
		forgotten++
		// A policy that is set again meanwhile has a later sequence, and stays.
		if err := stream.Purge(ctx, jetstream.WithPurgeSubject("$KV."+wire.PolicyBucket+"."+k.Key),
			jetstream.WithPurgeSequence(k.Revision+1)); err != nil {
			return fmt.Errorf("forgetting the policy of %s: %w", k.Key, err)
		}
	}
	return nil
}

func changedBy(err error) error {
	if errors.Is(err, jetstream.ErrKeyExists) || errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
		return ErrChanged
	}
	return err
}

// end ends a watch. Its sender would wait for ever for somebody who takes what it still has.
func end(watcher jetstream.KeyWatcher) {
	_ = watcher.Stop() // fails only where the consumer is gone already
	timeout := time.NewTimer(time.Second)
	defer timeout.Stop()
	for {
		select {
		case _, ok := <-watcher.Updates():
			if !ok {
				return
			}
		case <-timeout.C:
			return
		}
	}
}
