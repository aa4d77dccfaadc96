package reader

import (
	"context"
	"iter"

	"dormouse/internal/wire"
)

// listAhead is how many logs Logs asks for ahead, over all shards.
const listAhead = 8192

// Logs yields the logs of all shards whose LogID begins with prefix, ascending. It ends at the first error.
func (c *Client) Logs(ctx context.Context, prefix string) iter.Seq2[wire.LogInfo, error] {
	return func(yield func(wire.LogInfo, error) bool) {
		sources, err := c.Sources(ctx)
		if err != nil {
			yield(wire.LogInfo{}, err)
			return
		}
		limit := min(max(listAhead/max(len(sources), 1), 1), wire.MaxListReplies)
		pages := make([]listPage, len(sources))
		for i, s := range sources {
			pages[i] = listPage{shard: s.Shard, more: true, request: wire.ListRequest{Prefix: prefix, Limit: limit}}
		}
		for {
			var least *listPage
			for i := range pages {
				p := &pages[i]
				if err := p.fill(ctx, c); err != nil {
					yield(wire.LogInfo{}, err)
					return
				}
				if len(p.logs) > 0 && (least == nil || p.logs[0].Log < least.logs[0].Log) {
					least = p
				}
			}
			if least == nil || !yield(least.logs[0], nil) {
				return
			}
			least.logs = least.logs[1:]
		}
	}
}

// listPage is what is known of one shard's logs that are still to come.
type listPage struct {
	shard   wire.Shard
	request wire.ListRequest
	logs    []wire.LogInfo
	more    bool
}

// fill gets the next page when this one is used up.
func (p *listPage) fill(ctx context.Context, c *Client) error {
	for len(p.logs) == 0 && p.more {
		reply, err := c.List(ctx, p.shard, p.request)
		if err != nil {
			return err
		}
		if p.logs, p.more = reply.Logs, reply.More && len(reply.Logs) > 0; p.more {
			p.request.After = reply.Logs[len(reply.Logs)-1].Log
		}
	}
	return nil
}
