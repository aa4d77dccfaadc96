// Package client asks the owners of a running system, and JetStream, what a reader or an operator wants to know:
// segments and buffered entries of logs, lists of logs, the state of shards and processes.
//
// It knows no bucket and changes nothing. Open client.go for how an owner is found, status.go for what `dormouse
// status` shows.
package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/extent"
	"dormouse/internal/jsapi"
	"dormouse/internal/retry"
	"dormouse/internal/shardid"
	"dormouse/internal/topology"
	"dormouse/internal/wire"
	"dormouse/store/manifest"
)

// Client asks the owners of a running system. It may be used by several goroutines.
type Client struct {
	nc *nats.Conn
	js jetstream.JetStream

	mu     sync.Mutex
	epochs map[shardid.Shard]uint64 // as last seen; bounded by the number of shards
}

// New makes a client on a connection, which stays the caller's.
func New(nc *nats.Conn, js jetstream.JetStream) *Client {
	return &Client{nc: nc, js: js, epochs: make(map[shardid.Shard]uint64)}
}

// Patience is how long an answer may take to come, which covers a takeover and a restart.
const Patience = 15 * time.Second

const askTimeout = 3 * time.Second // of one try

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
		err = errors.New("there is no Dormouse system here: no stream carries the metadata of a shard (has `dormouse " +
			"serve` ever run on this NATS?)")
	}
	return sources, err
}

// Head returns the sequence and the epoch of the shard's last manifest record.
func (c *Client) Head(ctx context.Context, shard shardid.Shard) (seq, epoch uint64, err error) {
	if seq, epoch, err = manifest.Head(ctx, c.js, shard); err == nil && seq == 0 {
		err = fmt.Errorf("%w: shard %s was never claimed", ErrNoOwner, shard)
	}
	return seq, epoch, err
}

func (c *Client) epoch(ctx context.Context, shard shardid.Shard, again bool) (uint64, error) {
	c.mu.Lock()
	epoch, ok := c.epochs[shard]
	c.mu.Unlock()
	if ok && !again {
		return epoch, nil
	}
	_, epoch, err := c.Head(ctx, shard)
	if err != nil {
		return 0, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.epochs[shard] = epoch
	return epoch, nil
}

// Persist tries something again and again until it succeeds, fails for good, or patience ends.
func Persist[R any](ctx context.Context, try func(context.Context) (R, error)) (R, error) {
	return backoff.Retry(ctx, func() (R, error) {
		attempt, cancel := context.WithTimeout(ctx, askTimeout)
		defer cancel()
		result, err := try(attempt)
		if jsapi.IsPermanent(err) || errors.Is(err, wire.ErrBadRequest) {
			return result, backoff.Permanent(err)
		}
		return result, err
	}, backoff.WithBackOff(retry.Quick()), backoff.WithMaxElapsedTime(Patience))
}

// askOwner sends one request to the shard's owner, again and again while there is none or it is busy.
func askOwner[R interface{ Err() error }](ctx context.Context, c *Client, shard shardid.Shard, op wire.Operation,
	request any) (R, error) {
	again := false
	return Persist(ctx, func(ctx context.Context) (R, error) {
		reply, err := askOnce[R](ctx, c, shard, op, request, again)
		again = true
		return reply, err
	})
}

// askOnce sends one request to the shard's owner: the one that is known or, with anew, the one that the manifest names.
func askOnce[R interface{ Err() error }](ctx context.Context, c *Client, shard shardid.Shard, op wire.Operation,
	request any, anew bool) (reply R, err error) {
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

// Held asks for what the owner has of a log.
func (c *Client) Held(ctx context.Context, shard shardid.Shard, request wire.HeldRequest) (wire.HeldReply, error) {
	return askOwner[wire.HeldReply](ctx, c, shard, wire.OpHeld, request)
}

// HeldNow asks once: the owner that is known or, with anew, the one that the manifest names.
func (c *Client) HeldNow(ctx context.Context, shard shardid.Shard, request wire.HeldRequest, anew bool) (wire.HeldReply,
	error) {
	return askOnce[wire.HeldReply](ctx, c, shard, wire.OpHeld, request, anew)
}

// Segments asks for one page of live segments.
func (c *Client) Segments(ctx context.Context, shard shardid.Shard, request wire.SegmentsRequest) (wire.SegmentsReply,
	error) {
	return askOwner[wire.SegmentsReply](ctx, c, shard, wire.OpSegments, request)
}

// Live is what a shard has of some logs, as of one moment.
type Live struct {
	Pieces  []extent.Piece // in the tree's order
	Cuts    extent.Cuts    // what is not part of the archive any more
	Version uint64         // manifest record that changed the tree last before
}

// Live returns all live segments that a request asks for.
func (c *Client) Live(ctx context.Context, shard shardid.Shard, request wire.SegmentsRequest) (live Live, err error) {
	for {
		request.Offset, request.Version = len(live.Pieces)+len(live.Cuts), live.Version
		reply, err := c.Segments(ctx, shard, request)
		if err != nil {
			return Live{}, err
		}
		if live.Version > 0 && reply.Version != live.Version { // merged meanwhile: from the beginning, with another patience
			live = Live{}
			continue
		}
		live.Version = reply.Version
		live.Cuts = append(live.Cuts, reply.Cuts...)
		live.Pieces = append(live.Pieces, reply.Pieces...)
		if !reply.More {
			return live, nil
		}
	}
}

// Cut asks the shard's owner for a cut, or how far it is. The same request again does it once.
func (c *Client) Cut(ctx context.Context, shard shardid.Shard, request wire.CutRequest) (wire.CutReply, error) {
	return askOwner[wire.CutReply](ctx, c, shard, wire.OpCut, request)
}

// Sweep asks the shard's owner for its garbage.
func (c *Client) Sweep(ctx context.Context, shard shardid.Shard, request wire.SweepRequest) (wire.SweepReply, error) {
	return askOwner[wire.SweepReply](ctx, c, shard, wire.OpSweep, request)
}

// List asks for one page of logs.
func (c *Client) List(ctx context.Context, shard shardid.Shard, request wire.ListRequest) (wire.ListReply, error) {
	return askOwner[wire.ListReply](ctx, c, shard, wire.OpList, request)
}

// Archive returns the URL of the archive as the owners know it.
func (c *Client) Archive(ctx context.Context) (string, error) {
	sources, err := c.Sources(ctx)
	if err != nil {
		return "", err
	}
	reply, err := c.List(ctx, sources[0].Shard, wire.ListRequest{Limit: 1})
	return reply.Archive, err
}

// JS returns the JetStream that the client asks.
func (c *Client) JS() jetstream.JetStream { return c.js }
