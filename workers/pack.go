package workers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/google/uuid"

	"dormouse/internal/extent"
	"dormouse/internal/logid"
	"dormouse/internal/wire"
	"dormouse/store/bucket"
	"dormouse/store/segment"
)

// extentBytes is the most that one extent takes of a commit or of its reply. In a commit it is the LogID and six
// numbers with their CBOR heads; a refusal is the LogID and a sentence.
const extentBytes = logid.MaxBytes + 192

// pack collects entries into a segment, in memory, and commits it when it is full. Segments of one pack are committed
// one after the other, since a log may go on in the next one.
type pack struct {
	pool    *Pool
	batch   *batch
	writer  *segment.Writer // nil between segments
	packing bool            // one of the pool's turns to pack is held
	maxLogs int             // such that a commit fits into max_payload
}

func (p *Pool) newPack(b *batch) *pack {
	return &pack{pool: p, batch: b, maxLogs: max(1, min(p.room()/extentBytes, wire.MaxCommitLogs))}
}

// begin waits for a turn to pack. There are as many as workers, and whoever has entries of a segment in memory holds
// one until it is put; nobody does while only waiting for an owner's first answer or for that to a commit.
func (k *pack) begin(ctx context.Context) error {
	if k.packing {
		return nil
	}
	select {
	case k.pool.turns <- struct{}{}:
		k.packing = true
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// end gives the turn back.
func (k *pack) end() {
	if k.packing {
		<-k.pool.turns
		k.packing = false
	}
}

// add puts one entry into the segment that is being packed, after committing a full one.
func (k *pack) add(ctx context.Context, key, value []byte) error {
	if k.writer != nil && (k.writer.Size() >= k.pool.cfg.SegmentBytes || k.writer.Extents() >= k.maxLogs) {
		if err := k.flush(ctx); err != nil {
			return err
		}
	}
	if k.writer == nil {
		if err := k.begin(ctx); err != nil {
			return err
		}
		writer, err := segment.NewWriter(segment.Options{Compression: k.pool.cfg.Compression})
		if err != nil {
			return fmt.Errorf("beginning a segment: %w", err)
		}
		k.writer = writer
	}
	return k.writer.Add(key, value)
}

// flush makes what was added durable and commits it.
func (k *pack) flush(ctx context.Context) error {
	if k.writer == nil {
		return nil
	}
	data, extents, err := k.writer.Finish()
	k.writer = nil
	if err != nil {
		return fmt.Errorf("finishing a segment: %w", err)
	}
	id, err := uuid.NewV7()
	if err != nil {
		return fmt.Errorf("naming a segment: %w", err)
	}
	s := extent.Segment{Key: k.batch.shard.SegmentKey(id.String()), Size: uint64(len(data))}
	if err := k.pool.put(ctx, s.Key, data); err != nil {
		return err
	}
	k.end()
	k.pool.cfg.Metrics.putBytes.Observe(float64(len(data)))
	k.pool.cfg.Metrics.packed.Observe(float64(len(extents)))
	return k.pool.commit(ctx, k.batch, s, extents)
}

// close drops what was not flushed.
func (k *pack) close() {
	if k.writer != nil {
		k.writer.Close()
	}
	k.end()
}

// put stores a segment under its key, trying again with the same one: a try that seemed to fail may have gone through,
// and the bucket takes its own object for put. A key that holds something else is somebody's: the work is given up and
// done again under another key.
func (p *Pool) put(ctx context.Context, key string, data []byte) error {
	_, err := again(ctx, p, "put", func() (struct{}, error) {
		attempt, cancel := context.WithTimeout(ctx, p.cfg.PutTimeout)
		defer cancel()
		began := time.Now()
		err := p.cfg.Bucket.Put(attempt, key, data)
		switch {
		case err == nil:
			p.outages.put.Over()
			p.cfg.Metrics.putSeconds.Observe(time.Since(began).Seconds())
		case errors.Is(err, bucket.ErrExists):
			return struct{}{}, backoff.Permanent(err)
		default:
			p.outages.put.Failed(err, "segment", key)
		}
		return struct{}{}, err
	})
	return err
}
