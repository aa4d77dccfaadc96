package buffer

import (
	"fmt"

	"dormouse/internal/entry"
	"dormouse/internal/wire"
	"dormouse/store/cache"
)

// replyOverhead is what a drain reply needs besides Data or a Piece's bytes: the CBOR fields, the batch header and a
// key.
const replyOverhead = 1024

// Drain answers one drain request: entries from where the request stands until its byte limit is met. It calls answer
// once, with a reply that is valid until answer returns. It keeps nothing between calls, so a worker that dies costs
// the owner nothing and any worker can go on.
func (b *Buffer) Drain(req wire.DrainRequest, answer func(wire.DrainReply)) (err error) {
	c, err := b.Iter()
	if err != nil {
		return err
	}
	defer func() {
		if cerr := c.Close(); err == nil && cerr != nil {
			err = fmt.Errorf("draining: %w", cerr)
		}
	}()
	batch := b.db.NewBatch()
	defer batch.Close()
	room := max(req.MaxBytes-replyOverhead, replyOverhead)

	from := req.After + 1
	for i, log := range req.Logs {
		full, last, err := c.drainLog(batch, log, from, room)
		if err != nil {
			return err
		}
		if full && batch.Empty() {
			reply, err := c.piece(log, req.Offset, i, room)
			if err == nil {
				answer(reply)
			}
			return err
		}
		if full {
			answer(wire.DrainReply{Data: batch.Repr(), Skip: i, After: last})
			return nil
		}
		from = 1
	}
	reply := wire.DrainReply{Skip: len(req.Logs), Done: true}
	if !batch.Empty() {
		reply.Data = batch.Repr()
	}
	answer(reply)
	return nil
}

// drainLog adds the entries of log at or above from to batch until the next would not fit into room. It reports whether
// one did not fit, on which the cursor then stands, and the sequence before that one to go on after.
func (c *Cursor) drainLog(batch *cache.Batch, log string, from uint64, room int) (full bool, after uint64, err error) {
	after = from - 1
	c.forward(log, from)
	for c.on(log) {
		key, value := c.Key(), c.Value()
		if batch.Len()+len(key)+len(value)+2*5 > room { // two lengths of up to 5 bytes each
			return true, after, nil
		}
		_, seq, err := entry.SplitKey(key)
		if err == nil {
			err = batch.Set(key, value, nil)
		}
		if err != nil {
			return false, 0, err
		}
		after = seq
		c.it.Next()
	}
	return false, after, c.it.Error()
}

// piece answers with a part of the one value that the cursor stands on, which is too large for a reply of its own.
func (c *Cursor) piece(log string, offset, skip, room int) (wire.DrainReply, error) {
	key, value := c.Key(), c.Value()
	_, seq, err := entry.SplitKey(key)
	if err != nil {
		return wire.DrainReply{}, err
	}
	if skip > 0 {
		offset = 0 // the request's offset was into another log's entry, which is gone
	}
	if offset >= len(value) {
		return wire.DrainReply{}, fmt.Errorf("%w: offset %d in entry %d of %s, which has %d bytes",
			wire.ErrBadRequest, offset, seq, log, len(value))
	}
	end := min(offset+room, len(value))
	reply := wire.DrainReply{
		Piece: &wire.Piece{Key: append([]byte(nil), key...), Offset: offset, Total: len(value),
			Bytes: append([]byte(nil), value[offset:end]...)},
		Skip: skip, After: seq - 1, Offset: end,
	}
	if end == len(value) {
		reply.After, reply.Offset = seq, 0
	}
	return reply, nil
}
