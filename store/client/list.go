package client

import (
	"context"
	"iter"

	"dormouse/internal/shardid"
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

// Log returns what a shard knows of one log, if it knows it.
func (c *Client) Log(ctx context.Context, shard shardid.Shard, log string) (info wire.LogInfo, ok bool, err error) {
	p := listPage{shard: shard, more: true, request: wire.ListRequest{Prefix: log, Limit: 1}}
	// it is the first that has it as its prefix
	if err := p.fill(ctx, c); err != nil || len(p.logs) == 0 || p.logs[0].Log != log {
		return wire.LogInfo{}, false, err
	}
	return p.logs[0], true, nil
}

// listPage is what is known of one shard's logs that are still to come.
type listPage struct {
	shard   shardid.Shard
	request wire.ListRequest
	logs    []wire.LogInfo
	begun   wire.LogInfo // without a LogID: none; else the log whose rest begins the next page
	more    bool
}

// fill gets the next page when this one is used up.
func (p *listPage) fill(ctx context.Context, c *Client) error {
	for len(p.logs) == 0 && p.more {
		reply, err := c.List(ctx, p.shard, p.request)
		if err != nil {
			return err
		}
		p.take(reply)
	}
	return nil
}

// take makes a reply the page, without its last log if that is not whole.
func (p *listPage) take(reply wire.ListReply) {
	p.more = reply.More && len(reply.Logs) > 0
	if p.more {
		p.request.After, p.request.From = reply.Logs[len(reply.Logs)-1].Log, reply.Rest
	}
	logs := reply.Logs
	switch {
	case p.begun.Log == "":
	case len(logs) > 0 && logs[0].Log == p.begun.Log:
		logs[0].Archived = p.begun.Archived.Join(logs[0].Archived)
		logs[0].Extents += p.begun.Extents
	default: // an owner that is behind the one before has nothing of the rest
		logs = append([]wire.LogInfo{p.begun}, logs...)
	}
	p.begun = wire.LogInfo{}
	if n := len(logs); p.more && reply.Rest > 0 {
		logs, p.begun = logs[:n-1], logs[n-1]
	}
	p.logs = logs
}
