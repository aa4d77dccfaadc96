package reader

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

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
// none.
type Bucket struct {
	*bucket.Bucket
	js jetstream.JetStream

	mu   sync.Mutex
	ours bool // it has said that it is the system's
}

// verify asks the bucket once whether it is the system's.
func (b *Bucket) verify(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ours {
		return nil
	}
	err := identity.Verify(ctx, b.js, b.Bucket)
	b.ours = err == nil
	return err
}

// NewBucket makes a Bucket of the system that js leads to.
func NewBucket(js jetstream.JetStream, b *bucket.Bucket) *Bucket { return &Bucket{Bucket: b, js: js} }

// Open opens one segment; what it reads of it is only what a scan needs. The error wraps bucket.ErrNotFound when a
// merge has replaced the segment.
func (b *Bucket) Open(ctx context.Context, s extent.Segment) (Segment, error) {
	r, err := b.reader(ctx, s)
	if err != nil {
		return nil, err
	}
	return r, nil
}

func (b *Bucket) reader(ctx context.Context, s extent.Segment) (*segment.Reader, error) {
	if err := b.verify(ctx); err != nil {
		return nil, err
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

// Archive opens the bucket of the system, which an owner has named.
type Archive func(ctx context.Context, named string) (*Bucket, error)

// Locate finds the shard of a log: the one whose owner, stream or archive has entries of it. Without any it returns
// client.ErrNoLog, and the shard in which its first entry will be if there is just one, or if the tenants are spread by
// a mapping, so that a log can be followed before its first entry.
func Locate(ctx context.Context, c *client.Client, open Archive, log string) (Located, error) {
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
		if reply.Buffered { // the stream may have dropped what is buffered
			return at, nil
		}
		if in, err := inStream(ctx, c, source, log); in || err != nil {
			return at, err
		}
		if archived, err := isArchived(ctx, c, open, at, log); archived || err != nil {
			return at, err
		}
	}
	return first, fmt.Errorf("%w: %s (see 'dormouse ls')", client.ErrNoLog, log)
}

// inStream reports whether a shard's stream has an entry of a log.
func inStream(ctx context.Context, c *client.Client, source topology.Source, log string) (bool, error) {
	// Not by a filter over the stream's subjects: one that ends in * or > names all that begin like it there.
	subject := source.Prefix + "." + log
	_, err := client.Persist(ctx, func(ctx context.Context) (jsapi.Message, error) {
		return jsapi.GetLast(ctx, c.JS(), source.Stream, subject)
	})
	if err == nil || errors.Is(err, jetstream.ErrMsgNotFound) {
		return err == nil, nil
	}
	return false, fmt.Errorf("looking for %s in stream %s: %w", subject, source.Stream, err)
}

// isArchived reports whether a shard's archive has a log. Only the segments' tables of contents tell.
func isArchived(ctx context.Context, c *client.Client, open Archive, at Located, log string) (bool, error) {
	live, err := c.Live(ctx, at.Source.Shard, wire.SegmentsRequest{From: log, To: log + "\x00"})
	if err != nil || len(live.Pieces) == 0 {
		return false, err
	}
	b, err := open(ctx, at.Archive)
	if err != nil {
		return false, err
	}
	l := &lister{client: c, open: &readers{bucket: b}}
	_, ok, err := l.archived(ctx, at.Source.Shard, log)
	return ok, errors.Join(err, l.open.close())
}

// Open makes a reader of a log's shard over a bucket. shut ends what it holds on NATS; the bucket stays the caller's.
func Open(ctx context.Context, c *client.Client, at Located, b *Bucket) (r *Reader, shut func(), err error) {
	stream, err := c.JS().Stream(ctx, at.Source.Stream)
	if err != nil {
		return nil, nil, fmt.Errorf("opening stream %s: %w", at.Source.Stream, err)
	}
	tail := &streamTail{js: c.JS(), stream: stream, prefix: at.Source.Prefix}
	return &Reader{Owner: &remoteOwner{client: c, shard: at.Source.Shard}, Segments: b, Tail: tail}, tail.close, nil
}
