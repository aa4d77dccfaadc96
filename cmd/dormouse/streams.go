package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/jsapi"
	"dormouse/internal/topology"
)

// JetStream's error codes of what may pass although the request is said to be at fault, and of what does not pass
// although the server is.
const (
	errCodePeers     = 10005 // too few servers for the replicas; so it is too while a cluster starts
	errCodeStorage   = 10047 // a stream asks for more storage than is left
	errCodeNoCluster = 10074 // replicas on a server that is none of a cluster
)

// lasting reports whether err, met when streams are made or looked for, stays however often it is tried.
func lasting(err error) bool {
	var api *jetstream.APIError
	if errors.As(err, &api) {
		switch api.ErrorCode {
		case errCodePeers:
			return false
		case errCodeNoCluster:
			return true
		}
	}
	return errors.Is(err, topology.ErrRefused) || jsapi.IsPermanent(err)
}

// retryStreams does what makes or looks for streams until it succeeds, fails for good, or ctx ends; within bounds how
// long, 0 is no bound. warn hears of each failure that may pass, with what somebody may have to do about it.
func retryStreams[T any](ctx context.Context, within time.Duration, warn func(what string, err error),
	do func() (T, error)) (T, error) {
	var last error
	result, err := backoff.Retry(ctx, func() (T, error) {
		result, err := do()
		if err != nil && ctx.Err() == nil {
			last = err
		}
		var api *jetstream.APIError
		switch {
		case err == nil || ctx.Err() != nil:
		// who waits can see to it
		case lasting(err), within > 0 && errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
			err = backoff.Permanent(err)
		case errors.Is(err, nats.ErrNoResponders), errors.Is(err, jetstream.ErrJetStreamNotEnabled),
			errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
			warn("JetStream does not answer: is it enabled on the servers, and for this account? Are jetstream_domain and "+
				"jetstream_api_prefix of the context right? Trying again", err)
		case errors.As(err, &api) && api.ErrorCode == errCodePeers:
			warn("JetStream has too few servers for the streams, are as many up as --replicas says? Trying again", err)
		case errors.As(err, &api) && api.ErrorCode == errCodeStorage:
			warn("JetStream has no room to reserve for the streams, free 330 MiB on its disk or raise its limits; trying again",
				err)
		default:
			warn("the streams are not ready; trying again", err)
		}
		return result, err
	}, backoff.WithMaxElapsedTime(within))
	if err != nil && ctx.Err() != nil && last != nil { // what it waited for says more
		err = fmt.Errorf("%w: %w", last, err)
	}
	return result, err
}
