package workers

import (
	"context"

	"dormouse/internal/extent"
	"dormouse/internal/wire"
)

// commit offers a segment that is durable to the owner. Asking again after a lost answer is safe: the owner accepts
// extents that it has committed with this very segment. Refused extents are no failure: another worker was faster.
func (p *Pool) commit(ctx context.Context, b *batch, s extent.Segment, extents []extent.Extent) error {
	reply, err := ask[wire.CommitReply](ctx, p, b, wire.OpCommit,
		wire.CommitRequest{Segment: s, Extents: extents, Bucket: p.cfg.BucketID()})
	if err != nil {
		return err
	}
	if len(reply.Refused) >= len(extents) {
		p.cfg.Metrics.orphans.Inc()
	}
	for _, r := range reply.Refused {
		p.cfg.Logger.Debug("an extent was refused", "segment", s.Key, "log", r.Log, "reason", r.Reason)
	}
	return nil
}
