package identity

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/extent"
	"dormouse/internal/topology"
	"dormouse/store/bucket"
	"dormouse/store/manifest"
)

// maxTurns bounds how often join looks again after another process was faster: at each turn it is a step further.
const maxTurns = 10

// warner says what somebody should know, as slog.Logger.Warn does.
type warner func(message string, args ...any)

// join returns the system's identity after making sure that the bucket is its own. At the first start of a system it
// makes both. The steps, and what a crash after each leaves; any number of processes may be at any of them:
//
//  1. a system without a bucket is recorded in the manifest stream: the next start goes on;
//  2. the object is put into the bucket, with the system and a name that is this put's: the next start finds it to be
//     of the system that waits for its bucket;
//  3. the bucket's name is recorded. Of two processes with different buckets one wins, and the other one is refused.
//
// What lost: *the object first*: after a crash nobody can tell it from another system's; *the bucket's name given out
// before the put*: two buckets could get the same one.
func join(ctx context.Context, js jetstream.JetStream, b *bucket.Bucket, warn warner) (Identity, error) {
	for range maxTurns {
		system, seq, err := ofSystem(ctx, js)
		if err != nil {
			return Identity{}, err
		}
		held, err := ofBucket(ctx, b)
		missing := errors.Is(err, errMissing) || errors.Is(err, bucket.ErrDenied) && !system.settled()
		if err != nil && !missing {
			return Identity{}, err
		}
		switch {
		case system.settled() && missing && b.InMemory():
			if err = mayForget(ctx, js, system); err == nil {
				err = record(ctx, js, newIdentity(system.System, "", ""), seq)
			}
		case system.settled():
			return system, compare(system, held, b, missing)
		case system.none() && !missing:
			return Identity{}, fmt.Errorf("%w: archive %s is %s, and this NATS knows no system yet: give an --archive of "+
				"its own. If that system's JetStream was lost, dormouse rebuild has it go on here. If nothing but %s is in it, "+
				"remove that",
				ErrRefused, b.URL(), held, Key)
		case system.none():
			err = record(ctx, js, newIdentity(uuid.NewString(), "", ""), seq)
		case !missing && held.System != system.System:
			return Identity{}, fmt.Errorf("%w: archive %s is %s, and this NATS is of system %s: give another --archive",
				ErrRefused, b.URL(), held, system.System)
		case !missing:
			err = record(ctx, js, newIdentity(system.System, held.Bucket, held.Archive), seq)
		default:
			if err = mayBegin(ctx, js, b, warn); err == nil {
				err = put(ctx, b, newIdentity(system.System, uuid.NewString(), b.URL()))
			}
		}
		if err != nil {
			return Identity{}, err
		}
	}
	return Identity{}, errors.New("the system's identity changes again and again: do others start, with other buckets?")
}

// Verify returns nil when a bucket that is only read from is the archive of the system behind js, or when neither says
// whose it is, as with a server of an older version. It changes nothing. The error wraps ErrRefused when it is another
// one's, and is an ElsewhereError when another way to the bucket may help.
func Verify(ctx context.Context, js jetstream.JetStream, b *bucket.Bucket) error {
	if b.InMemory() {
		return fmt.Errorf("%w: the archive is in the memory of the server's process (mem://), which no other one can read",
			ErrRefused)
	}
	system, _, err := ofSystem(ctx, js)
	if err != nil {
		return err
	}
	held, err := ofBucket(ctx, b)
	missing := errors.Is(err, errMissing)
	if err != nil && !missing {
		return ElsewhereError{err}
	}
	if missing && !system.settled() {
		return nil
	}
	if err := compare(system, held, b, missing); err != nil {
		return ElsewhereError{err}
	}
	return nil
}

// ElsewhereError says of a bucket, as it is reached from here, that it is not the system's, or does not answer.
type ElsewhereError struct{ Err error }

func (e ElsewhereError) Error() string { return e.Err.Error() }
func (e ElsewhereError) Unwrap() error { return e.Err }

// compare returns nil when the bucket is the system's.
func compare(system, held Identity, b *bucket.Bucket, missing bool) error {
	move := fmt.Sprintf("give that --archive, or copy all of its objects, %s too, to this one first", Key)
	switch {
	case missing:
		return fmt.Errorf("%w: archive %s is not this system's, since it has no object %s. The system's is %s: %s "+
			"(if only that object was deleted, put it back: %s)",
			ErrRefused, b.URL(), Key, system, move, bytes.TrimSpace(system.encode()))
	case held.System != system.System || held.Bucket != system.Bucket:
		return fmt.Errorf("%w: archive %s is not this system's, it is %s. The system's is %s: %s",
			ErrRefused, b.URL(), held, system, move)
	}
	return nil
}

// put makes the bucket's object; that another process was faster is no error.
func put(ctx context.Context, b *bucket.Bucket, i Identity) error {
	err := b.Put(ctx, Key, i.encode())
	switch {
	case errors.Is(err, bucket.ErrDenied) && errors.Is(err, bucket.ErrExists):
		return fmt.Errorf("the archive has an identity that cannot be read: %w", err)
	case errors.Is(err, bucket.ErrExists):
		return nil
	case errors.Is(err, bucket.ErrUnable):
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return err
}

// ofShard is what an archive of this program begins its keys with.
var ofShard = regexp.MustCompile("^[0-9]+/")

// someKeys is how many keys are looked at for those of another system; names of shards come before letters.
const someKeys = 1000

// mayBegin returns nil when a bucket without an identity may become the system's: it has the newest that was committed,
// by a version that knew no identities, or nothing was committed and nothing is there.
func mayBegin(ctx context.Context, js jetstream.JetStream, b *bucket.Bucket, warn warner) error {
	newest, err := committed(ctx, js)
	if err != nil {
		return err
	}
	for _, s := range newest {
		object, err := b.Object(ctx, s.Key)
		if errors.Is(err, bucket.ErrNotFound) || err == nil && object.Size() != int64(s.Size) {
			return fmt.Errorf("%w: archive %s does not have the newest object that this system committed, %s of %d bytes: "+
				"give the --archive that it had until now", ErrRefused, b.URL(), s.Key, s.Size)
		}
		if err != nil {
			return err
		}
	}
	if len(newest) > 0 {
		return nil
	}
	n := 0
	for s, err := range b.List(ctx, "") {
		if errors.Is(err, bucket.ErrDenied) {
			warn("the archive may not be listed: whether another system's objects are in it is not known",
				"archive", b.URL())
			return nil
		}
		if err != nil {
			return err
		}
		if ofShard.MatchString(s.Key) {
			return fmt.Errorf("%w: archive %s has objects of another system, such as %s, or of this one, whose NATS lost "+
				"its memory: give an empty place, or have it go on with dormouse rebuild", ErrRefused, b.URL(), s.Key)
		}
		if n++; n == someKeys {
			break
		}
	}
	return nil
}

// committed returns the newest object of each shard that has committed any.
func committed(ctx context.Context, js jetstream.JetStream) (newest []extent.Segment, err error) {
	shards, err := topology.Manifests(ctx, js)
	if err != nil {
		return nil, err
	}
	for _, shard := range shards {
		m, err := manifest.Open(ctx, js, shard)
		if err != nil {
			return nil, err
		}
		s, ok, err := m.Newest(ctx)
		if err != nil {
			return nil, err
		}
		if ok {
			newest = append(newest, s)
		}
	}
	return newest, nil
}

// mayForget returns nil when a bucket in memory that is gone held nothing.
func mayForget(ctx context.Context, js jetstream.JetStream, system Identity) error {
	newest, err := committed(ctx, js)
	if err == nil && len(newest) > 0 {
		err = fmt.Errorf("%w: what this system archived is gone: it was %s, which ended with its process. Begin anew, on an "+
			"empty --data or another NATS account, with an --archive that lasts if it is to", ErrRefused, system)
	}
	return err
}
