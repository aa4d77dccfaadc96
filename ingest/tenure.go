package ingest

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// tenure is the time for which a node serves a shard in one epoch.
type tenure struct {
	log   *slog.Logger
	began time.Time // zero: it never served
	epoch uint64
}

func (t *tenure) begin(epoch uint64) { t.began, t.epoch = time.Now(), epoch }

// end says that a shard was given up in order, with nothing left of it here. An owner that steps down has a line of its
// own.
func (t *tenure) end(ctx context.Context, err error) {
	why := "this process ends"
	switch {
	case t.began.IsZero():
		return
	case errors.Is(err, errHandedOver):
		why = "it is another node's share"
	case ctx.Err() == nil:
		return
	}
	t.log.Info("the shard is handed over", "epoch", t.epoch,
		"served", time.Since(t.began).Round(time.Millisecond), "why", why)
}
