// Package identity ties a system to its bucket. An object in the bucket and a message in the manifest stream name the
// same system and the same bucket, so that a process which was given another one is refused, and does not archive where
// no reader looks. The URL decides nothing: one bucket has many, and an archive may move.
//
// Open join.go for how the two come to agree, and bucket.go for what a process uses.
package identity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/jsapi"
	"dormouse/internal/wire"
	"dormouse/store/bucket"
)

// Key is the identity object's. No shard's prefix has it in it: those are numbers.
const Key = "dormouse.json"

// ErrRefused is wrapped when a bucket is not the system's. Trying again does not help; somebody has to decide.
var ErrRefused = errors.New("refused")

var (
	errMissing = errors.New("the archive has no identity object")
	errForged  = errors.New("it is no identity of a Dormouse system")
)

const (
	kind     = "dormouse archive"
	version  = 1
	maxBytes = 4096 // of an identity; a larger one is none
	maxURL   = 2048 // bytes of Identity.Archive
)

// Identity is what the bucket's object and the manifest stream's message hold, as JSON. Additions keep the version; an
// identity of another version is refused.
type Identity struct {
	Kind    string `json:"kind"`
	Version int    `json:"version"`
	System  string `json:"system"`           // UUID
	Bucket  string `json:"bucket,omitempty"` // UUID; empty in the manifest until the bucket has its object
	// URL under which the bucket was first opened, for people; without secrets
	Archive string    `json:"archive,omitempty"`
	Made    time.Time `json:"made"`
}

// none reports whether it is no identity at all: the manifest has none yet.
func (i Identity) none() bool { return i.System == "" }

// settled reports whether it names a bucket.
func (i Identity) settled() bool { return i.Bucket != "" }

func (i Identity) String() string {
	made := i.Made.UTC().Format(time.RFC3339)
	return fmt.Sprintf("bucket %s of system %s, made %s as %q", i.Bucket, i.System, made, i.Archive)
}

func newIdentity(system, bucketID, archive string) Identity {
	if len(archive) > maxURL {
		archive = ""
	}
	now := time.Now().UTC().Truncate(time.Second)
	return Identity{Kind: kind, Version: version, System: system, Bucket: bucketID, Archive: archive, Made: now}
}

func (i Identity) encode() []byte {
	data, err := json.Marshal(i)
	if err != nil {
		panic(err) // strings, a number and a time of our own
	}
	return append(data, '\n')
}

func decode(data []byte) (Identity, error) {
	var i Identity
	if len(data) > maxBytes {
		return i, fmt.Errorf("%w: it has %d bytes", errForged, len(data))
	}
	if err := json.Unmarshal(data, &i); err != nil {
		return Identity{}, fmt.Errorf("%w: it is no JSON object of that form", errForged)
	}
	switch {
	case i.Kind != kind:
		return Identity{}, fmt.Errorf("%w: its kind is %.40q", errForged, i.Kind)
	case i.Version != version:
		return Identity{}, fmt.Errorf("%w that this version reads: its version is %d, and not %d; a newer dormouse may",
			errForged, i.Version, version)
	case !isUUID(i.System), i.Bucket != "" && !isUUID(i.Bucket), len(i.Archive) > maxURL:
		return Identity{}, fmt.Errorf("%w: its ids are none", errForged)
	}
	return i, nil
}

func isUUID(s string) bool { return len(s) == 36 && uuid.Validate(s) == nil }

// ofBucket reads the bucket's identity object. The error wraps errMissing when the bucket is there and has none.
func ofBucket(ctx context.Context, b *bucket.Bucket) (Identity, error) {
	data, err := b.GetSmall(ctx, Key, maxBytes)
	switch {
	case errors.Is(err, bucket.ErrNotFound):
		// A bucket that is not there has no objects either. Who may not list it cannot tell; then it is taken for
		// there.
		if err := b.Check(ctx); err != nil && !errors.Is(err, bucket.ErrDenied) {
			return Identity{}, err
		}
		return Identity{}, fmt.Errorf("%w: %s is missing from %s", errMissing, Key, b.URL())
	case errors.Is(err, bucket.ErrTooLarge):
		return Identity{}, fmt.Errorf("%w: %w: %w", ErrRefused, errForged, err)
	case err != nil:
		return Identity{}, err
	}
	i, err := decode(data)
	if err == nil && !i.settled() {
		err = fmt.Errorf("%w: it names no bucket", errForged)
	}
	if err != nil {
		return Identity{}, fmt.Errorf("%w: object %s in archive %s: %w: give another --archive, or put the right object back",
			ErrRefused, Key, b.URL(), err)
	}
	return i, nil
}

// ofSystem reads the newest identity in the manifest stream; none when there is none yet. The sequence is that of the
// last message of the subject: what is no identity of any version counts for nothing, since the stream deletes nothing
// that somebody with rights to it has published.
func ofSystem(ctx context.Context, js jetstream.JetStream) (Identity, uint64, error) {
	msg, last, err := jsapi.GetLastThat(ctx, js, wire.ManifestStream, wire.SystemSubject, isIdentity)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return Identity{}, last, nil
	}
	if err != nil {
		return Identity{}, 0, fmt.Errorf("reading the system's identity: %w", err)
	}
	i, err := decode(msg.Data)
	if err != nil {
		return Identity{}, 0, fmt.Errorf("%w: message %d of stream %s: %w", ErrRefused, msg.Sequence, wire.ManifestStream,
			err)
	}
	return i, last, nil
}

// isIdentity reports whether a message says of itself that it is an identity.
func isIdentity(msg jsapi.Message) bool {
	var i Identity
	return json.Unmarshal(msg.Data, &i) == nil && i.Kind == kind
}

// record appends an identity to the manifest stream, if the last one there is still the one at after. That another
// process was faster is no error: ofSystem tells what holds.
func record(ctx context.Context, js jetstream.JetStream, i Identity, after uint64) error {
	msg := nats.NewMsg(wire.SystemSubject)
	msg.Data = i.encode()
	_, err := js.PublishMsg(ctx, msg, jetstream.WithExpectStream(wire.ManifestStream),
		jetstream.WithExpectLastSequencePerSubject(after), jetstream.WithRetryAttempts(0))
	var api *jetstream.APIError
	if errors.As(err, &api) && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence ||
		api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("recording the system's identity: %w", err)
	}
	return nil
}
