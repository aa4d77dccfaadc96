package reader

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/extent"
	"dormouse/internal/jsapi"
	"dormouse/internal/topology"
	"dormouse/internal/wire"
	"dormouse/store/bucket"
	"dormouse/store/client"
	"dormouse/store/identity"
	"dormouse/store/segment"
)

// Bucket opens segments of a bucket, after the first look whether it is the system's: who reads but the stream needs
// none. It is for one reader.
type Bucket struct {
	*bucket.Bucket
	js   jetstream.JetStream
	ours bool // it has said that it is the system's
}

// Open opens one segment; what it reads of it is only what a scan needs.
func (b *Bucket) Open(ctx context.Context, s extent.Segment) (Segment, error) {
	if !b.ours {
		if err := identity.Verify(ctx, b.js, b.Bucket); err != nil {
			return nil, err
		}
		b.ours = true
	}
	object, err := b.Segment(s)
	if err != nil {
		return nil, err
	}
	opened, err := segment.Open(ctx, object)
	if err != nil {
		return nil, errors.Join(err, object.Close())
	}
	return opened, nil
}

// Located is where a log is: its shard, and the URL of the archive as the shard's owner knows it.
type Located struct {
	Source  topology.Source
	Archive string
}

// Locate finds the shard of a log: the one whose owner or stream has entries of it. Without any it returns
// client.ErrNoLog, and the shard in which its first entry will be if there is just one, or if the tenants are spread by
// a mapping, so that a log can be followed before its first entry.
func Locate(ctx context.Context, c *client.Client, log string) (Located, error) {
	sources, err := c.Sources(ctx)
	if err != nil {
		return Located{}, err
	}
	tenant, _, _ := strings.Cut(log, ".")
	home := func(s topology.Source) bool {
		return len(sources) == 1 || s.Partitions > 0 && topology.PartitionOf(tenant, s.Partitions) == s.Shard
	}
	if i := slices.IndexFunc(sources, home); i > 0 { // where it most likely is
		sources[0], sources[i] = sources[i], sources[0]
	}
	var first Located
	for _, source := range sources {
		reply, err := c.Held(ctx, source.Shard, wire.HeldRequest{Log: log})
		if err != nil {
			return Located{}, err
		}
		at := Located{Source: source, Archive: reply.Archive}
		if home(source) {
			first = at
		}
		if len(reply.Extents) > 0 || reply.Buffered { // the stream may have dropped what is buffered
			return at, nil
		}
		// Not by a filter over the stream's subjects: one that ends in * or > names all that begin like it there.
		subject := source.Prefix + "." + log
		_, err = client.Persist(ctx, func(ctx context.Context) (jsapi.Message, error) {
			return jsapi.GetLast(ctx, c.JS(), source.Stream, subject)
		})
		if err == nil {
			return at, nil
		}
		if !errors.Is(err, jetstream.ErrMsgNotFound) {
			return Located{}, fmt.Errorf("looking for %s in stream %s: %w", subject, source.Stream, err)
		}
	}
	return first, fmt.Errorf("%w: %s (see 'dormouse ls')", client.ErrNoLog, log)
}

// Open makes a reader of a log's shard over a bucket. shut ends what it holds on NATS; the bucket stays the caller's.
func Open(ctx context.Context, c *client.Client, at Located, b *bucket.Bucket) (r *Reader, shut func(), err error) {
	stream, err := c.JS().Stream(ctx, at.Source.Stream)
	if err != nil {
		return nil, nil, fmt.Errorf("opening stream %s: %w", at.Source.Stream, err)
	}
	tail := &streamTail{js: c.JS(), stream: stream, prefix: at.Source.Prefix}
	return &Reader{Owner: &remoteOwner{client: c, shard: at.Source.Shard}, Segments: &Bucket{Bucket: b, js: c.JS()},
		Tail: tail}, tail.close, nil
}
