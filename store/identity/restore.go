package identity

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"

	"dormouse/store/bucket"
)

// ErrMissing is wrapped when a bucket has no identity object.
var ErrMissing = errMissing

// Restorable returns nil when the system behind js may become the one that a bucket is of, and whether it is that
// already. The error wraps ErrRefused when it is another one, and ErrMissing when the bucket does not say whose it is.
func Restorable(ctx context.Context, js jetstream.JetStream, b *bucket.Bucket) (done bool, err error) {
	system, _, err := ofSystem(ctx, js)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		system, err = Identity{}, nil
	}
	if err != nil {
		return false, err
	}
	held, err := ofBucket(ctx, b)
	switch {
	case err != nil && !errors.Is(err, errMissing):
		return false, err
	case system.settled() && (err != nil || system.System != held.System || system.Bucket != held.Bucket):
		return false, fmt.Errorf("%w: this NATS is of a system that lives, with the archive %s: give the --nats-url of the "+
			"new one, or another account", ErrRefused, system)
	}
	return system.settled(), err
}

// Keep makes sure that a bucket says whose it is. One that does not gets a new identity.
func Keep(ctx context.Context, b *bucket.Bucket) error {
	_, err := ofBucket(ctx, b)
	if errors.Is(err, errMissing) {
		return put(ctx, b, newIdentity(uuid.NewString(), uuid.NewString(), b.URL()))
	}
	return err
}

// Restore makes the system behind js, whose manifest stream must exist, the one that a bucket says it is of. It can be
// done again after a crash.
func Restore(ctx context.Context, js jetstream.JetStream, b *bucket.Bucket) error {
	held, err := ofBucket(ctx, b)
	if err != nil {
		return err
	}
	for range maxTurns {
		system, seq, err := ofSystem(ctx, js)
		if err != nil {
			return err
		}
		if system.settled() {
			return compare(system, held, b, false)
		}
		if err := record(ctx, js, held, seq); err != nil {
			return err
		}
	}
	return errors.New("the system's identity changes again and again: do others start, with other buckets?")
}
