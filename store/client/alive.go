package client

import (
	"context"
	"errors"
	"slices"

	"github.com/nats-io/nats.go/jetstream"
)

// Alive returns the names of the processes of the system that answer, or that hold a lease, ascending.
func (c *Client) Alive(ctx context.Context) (names []string, err error) {
	held, err := c.leases(ctx)
	if err != nil && !errors.Is(err, jetstream.ErrBucketNotFound) {
		return nil, err
	}
	for _, lease := range held.nodes {
		names = append(names, lease.Holder())
	}
	answered, err := c.processes(ctx, held.nodes)
	if err != nil {
		return nil, err
	}
	for _, p := range answered {
		names = append(names, p.Name())
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}
