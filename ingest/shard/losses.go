package shard

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/topology"
	"dormouse/store/manifest"
)

// losses tells what gaps in the source stream's sequences are.
type losses struct {
	epoch   uint64
	from    *sourceStream
	rejects *rejects
	metrics *Metrics
	log     *slog.Logger
}

// report says what a gap in the sequences is: entries that the stream's own limits, or somebody's purge or delete,
// took away before they could be archived. But an owner that was stopped and goes on meets what its successor has
// archived and trimmed; it has to step down, and the error wraps manifest.ErrFenced. What an operator has put aside is
// no loss: skipped is how many those are.
func (l *losses) report(ctx context.Context, gaps []span) (skipped uint64, err error) {
	if len(gaps) == 0 {
		return 0, nil
	}
	_, epoch, err := manifest.Head(ctx, l.from.js, l.from.source.Shard)
	if err == nil && epoch != l.epoch {
		return 0, fmt.Errorf("%w: shard %s, epoch %d", manifest.ErrFenced, l.from.source.Shard, epoch)
	}
	if err == nil {
		skipped, err = l.rejects.skippedIn(ctx, gaps)
	}
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errSource, err)
	}
	if skipped > 0 {
		l.log.Warn("stepping over what an operator has put aside in DORMOUSE_REJECTED", "messages", skipped, "from_sequence",
			gaps[0].first)
	}
	lost := -skipped
	for _, gap := range gaps {
		lost += gap.count()
	}
	if lost == 0 {
		return skipped, nil
	}
	l.metrics.lost.Add(float64(lost))
	l.log.Error("data loss: the source stream dropped entries before they were archived", "entries", lost,
		"from_sequence", gaps[0].first, "to_sequence", gaps[len(gaps)-1].last, "why",
		lossCause(l.from.stream.CachedInfo().Config))
	return skipped, nil
}

// lossCause says what can have taken entries out of a stream that is configured like that.
func lossCause(stream jetstream.StreamConfig) string {
	const somebody = "a purge or delete by somebody"
	drops := topology.Drops(stream)
	if len(drops) == 0 {
		return somebody + ": nothing in the stream's configuration drops entries"
	}
	return "its configuration (" + strings.Join(drops, ", ") + "), which should be changed, or " + somebody
}
