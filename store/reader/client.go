package reader

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/extent"
	"dormouse/internal/jsapi"
	"dormouse/internal/topology"
	"dormouse/internal/wire"
	"dormouse/store/bucket"
	"dormouse/store/identity"
	"dormouse/store/manifest"
	"dormouse/store/segment"
)

// Client asks the owners of a running system. It may be used by several goroutines.
type Client struct {
	nc *nats.Conn
	js jetstream.JetStream

	mu     sync.Mutex
	epochs map[wire.Shard]uint64 // as last seen; bounded by the number of shards
}

// NewClient makes a client on a connection, which stays the caller's.
func NewClient(nc *nats.Conn, js jetstream.JetStream) *Client {
	return &Client{nc: nc, js: js, epochs: make(map[wire.Shard]uint64)}
}

const (
	askTimeout   = 3 * time.Second  // of one try
	ownerTimeout = 15 * time.Second // for an answer to come, which covers a takeover and a restart
)

var (
	// ErrNoOwner means that no process answers for a shard.
	ErrNoOwner = errors.New("no process owns the shard")
	// ErrNoLog means that neither the archive nor the stream has an entry of a log.
	ErrNoLog = errors.New("no such log")
)

// Sources returns the system's shards.
func (c *Client) Sources(ctx context.Context) ([]topology.Source, error) {
	sources, err := topology.Sources(ctx, c.js)
	if err == nil && len(sources) == 0 {
		err = errors.New("there is no Dormouse system here: no stream carries the metadata of a shard (has `dormouse serve` ever run on this NATS?)")
	}
	return sources, err
}

// manifestHead returns the sequence and the epoch of the shard's last manifest record.
func (c *Client) manifestHead(ctx context.Context, shard wire.Shard) (seq, epoch uint64, err error) {
	if seq, epoch, err = manifest.Head(ctx, c.js, shard); err == nil && seq == 0 {
		err = fmt.Errorf("%w: shard %s was never claimed", ErrNoOwner, shard)
	}
	return seq, epoch, err
}

func (c *Client) epoch(ctx context.Context, shard wire.Shard, again bool) (uint64, error) {
	c.mu.Lock()
	epoch, ok := c.epochs[shard]
	c.mu.Unlock()
	if ok && !again {
		return epoch, nil
	}
	_, epoch, err := c.manifestHead(ctx, shard)
	if err != nil {
		return 0, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.epochs[shard] = epoch
	return epoch, nil
}

// persist tries something again and again until it succeeds, fails for good, or patience ends.
func persist[R any](ctx context.Context, try func(context.Context) (R, error)) (R, error) {
	policy := backoff.NewExponentialBackOff()
	policy.InitialInterval, policy.MaxInterval = 20*time.Millisecond, time.Second
	return backoff.Retry(ctx, func() (R, error) {
		attempt, cancel := context.WithTimeout(ctx, askTimeout)
		defer cancel()
		result, err := try(attempt)
		if jsapi.IsPermanent(err) || errors.Is(err, wire.ErrBadRequest) {
			return result, backoff.Permanent(err)
		}
		return result, err
	}, backoff.WithBackOff(policy), backoff.WithMaxElapsedTime(ownerTimeout))
}

// askOwner sends one request to the shard's owner, again and again while there is none or it is busy.
func askOwner[R interface{ Err() error }](ctx context.Context, c *Client, shard wire.Shard, op wire.Operation, request any) (R, error) {
	again := false
	return persist(ctx, func(ctx context.Context) (R, error) {
		reply, err := askOnce[R](ctx, c, shard, op, request, again)
		again = true
		return reply, err
	})
}

// askOnce sends one request to the shard's owner: the one that is known or, with anew, the one that the manifest names.
func askOnce[R interface{ Err() error }](ctx context.Context, c *Client, shard wire.Shard, op wire.Operation, request any, anew bool) (reply R, err error) {
	data, err := wire.Encode(request)
	if err != nil {
		return reply, err
	}
	epoch, err := c.epoch(ctx, shard, anew)
	if err != nil {
		return reply, err
	}
	msg, err := c.nc.RequestWithContext(ctx, wire.OwnerSubject(shard, epoch, op), data)
	if err != nil {
		return reply, fmt.Errorf("%w: shard %s: %w (is `dormouse serve` running?)", ErrNoOwner, shard, err)
	}
	if err := wire.Decode(msg.Data, &reply); err != nil {
		return reply, err // wraps ErrBadRequest
	}
	return reply, reply.Err()
}

// held asks for what the owner has of a log.
func (c *Client) held(ctx context.Context, shard wire.Shard, request wire.HeldRequest) (wire.HeldReply, error) {
	return askOwner[wire.HeldReply](ctx, c, shard, wire.OpHeld, request)
}

// Extents asks for one page of extents.
func (c *Client) Extents(ctx context.Context, shard wire.Shard, request wire.ExtentsRequest) (wire.ExtentsReply, error) {
	return askOwner[wire.ExtentsReply](ctx, c, shard, wire.OpExtents, request)
}

// List asks for one page of logs.
func (c *Client) List(ctx context.Context, shard wire.Shard, request wire.ListRequest) (wire.ListReply, error) {
	return askOwner[wire.ListReply](ctx, c, shard, wire.OpList, request)
}

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
	opened, err := openObject(ctx, object)
	if err != nil {
		return nil, err
	}
	return opened, nil
}

// openObject opens an object as a segment, and closes it if it is none.
func openObject(ctx context.Context, object *bucket.Object) (*segment.Reader, error) {
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

// Locate finds the shard of a log: the one whose owner or stream has entries of it. Without any it returns ErrNoLog, and
// the shard in which its first entry will be if there is just one, or if the tenants are spread by a mapping, so that a log
// can be followed before its first entry.
func (c *Client) Locate(ctx context.Context, log string) (Located, error) {
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
		reply, err := c.held(ctx, source.Shard, wire.HeldRequest{Log: log})
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
		_, err = persist(ctx, func(ctx context.Context) (jsapi.Message, error) {
			return jsapi.GetLast(ctx, c.js, source.Stream, subject)
		})
		if err == nil {
			return at, nil
		}
		if !errors.Is(err, jetstream.ErrMsgNotFound) {
			return Located{}, fmt.Errorf("looking for %s in stream %s: %w", subject, source.Stream, err)
		}
	}
	return first, fmt.Errorf("%w: %s (see 'dormouse ls')", ErrNoLog, log)
}

// Open makes a reader of a log's shard over a bucket. close ends what it holds on NATS; the bucket stays the caller's.
func (c *Client) Open(ctx context.Context, at Located, bucket *bucket.Bucket) (r *Reader, close func(), err error) {
	stream, err := c.js.Stream(ctx, at.Source.Stream)
	if err != nil {
		return nil, nil, fmt.Errorf("opening stream %s: %w", at.Source.Stream, err)
	}
	tail := &streamTail{js: c.js, stream: stream, prefix: at.Source.Prefix}
	return &Reader{Owner: &remoteOwner{client: c, shard: at.Source.Shard}, Segments: &Bucket{Bucket: bucket, js: c.js}, Tail: tail}, tail.close, nil
}
