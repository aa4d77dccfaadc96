package reader

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"dormouse/internal/entry"
	"dormouse/internal/wire"
	"dormouse/store/bucket"
	"dormouse/store/client"
)

func (w *walk) run(ctx context.Context) error {
	for {
		if err := w.readHeld(ctx); err != nil {
			return err
		}
		// The owner has no more for now: the rest is in the stream, unless it has left the stream meanwhile.
		for again := false; !again; {
			if err := w.settle(ctx); err != nil {
				return err
			}
			if w.done() {
				return nil
			}
			var err error
			if again, err = w.readTail(ctx); err != nil {
				return err
			}
		}
	}
}

// reached is up to where the log is emitted.
func (w *walk) reached() uint64 { return max(w.position, w.known) }

// done reports whether all is read of a query that does not follow.
func (w *walk) done() bool { return !w.query.Follow && w.reached() >= w.end }

// readHeld emits what the owner has, until it has no more than it has taken in.
func (w *walk) readHeld(ctx context.Context) error {
	var gone missing
	for {
		held, err := w.Owner.Held(ctx, w.query.Log, w.place())
		if err != nil {
			return err
		}
		w.cuts = held.Cuts
		err = w.readPieces(ctx, held.Pieces)
		if errors.Is(err, bucket.ErrNotFound) {
			if err := gone.again(ctx, err); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		gone = missing{}
		if n := len(held.Pieces); n > 0 {
			w.since = held.Pieces[n-1].Newest
		}
		if err := w.emitAll(held.Entries); err != nil {
			return err
		}
		if !held.More {
			w.known = max(w.known, held.Applied)
			return nil
		}
		if err := w.settle(ctx); err != nil {
			return err
		}
		if w.done() {
			return nil // else a log that is written without pause would be read without end
		}
	}
}

// emitAll emits entries up to the end of a query that does not follow.
func (w *walk) emitAll(batch []entry.Entry) error {
	for _, e := range batch {
		if e.Seq <= w.position { // archived meanwhile
			continue
		}
		if !w.query.Follow && e.Seq > w.end {
			return errEnough
		}
		if err := w.take(e); err != nil {
			return err
		}
	}
	return nil
}

// readTail emits a batch from the stream, unless the owner has other entries of the log before its end: then it emits
// nothing and reports that the owner must be asked for them.
//
// What the stream has dropped does not show in it: a log's sequences have gaps anyway. If an owner had taken it in, it
// will be archived, and must come first. So the owner is asked again, after the batch was fetched.
func (w *walk) readTail(ctx context.Context) (again bool, err error) {
	batch, err := w.fetch(ctx)
	if err != nil {
		return false, err
	}
	if len(batch) == 0 && w.query.Follow { // nothing came for a while; but did something come and go?
		kept, err := w.Tail.Kept(ctx, w.reached(), math.MaxUint64)
		return !kept, err
	}
	wanted, upTo := w.wanted(batch)
	complete, err := w.complete(ctx, upTo, wanted)
	if err != nil || !complete {
		return true, err
	}
	if err := w.emitAll(batch); err != nil {
		return false, err
	}
	w.known = max(w.known, upTo)
	return false, nil
}

// wanted returns the entries of a batch that are not beyond the end of a query, and the sequence up to which they are
// all that the stream has. An empty batch says so of the whole stream.
func (w *walk) wanted(batch []entry.Entry) (wanted []entry.Entry, upTo uint64) {
	n := len(batch)
	for n > 0 && !w.query.Follow && batch[n-1].Seq > w.end {
		n--
	}
	if n == len(batch) && n > 0 {
		return batch, batch[n-1].Seq
	}
	return batch[:n], w.end
}

// Waits for an owner that is behind the stream.
const (
	lagPause    = 2 * time.Millisecond // at first
	maxLagPause = 200 * time.Millisecond
	lagPatience = time.Second      // after which the stream is asked too
	lagRecheck  = 10 * time.Second // for so long it is asked first then
)

// errBehind means that it cannot be known whether what the stream has is all that will be archived.
var errBehind = errors.New("entries have left the stream that the shard's owner may still have to archive, and it is " +
	"behind the stream: try again when it has caught up (see 'dormouse status')")

// complete reports whether a batch from the stream has all entries up to a sequence that were not emitted.
//
// An owner that has taken in the stream up to there knows. It is behind by milliseconds, as a rule. If it is far
// behind, or there is none, then the batch is complete at any rate as long as the stream has lost nothing above what
// was emitted. If the stream did lose something, the owner may have been sent it before, and take it in later: nobody
// can tell, so that the read waits for the owner.
func (w *walk) complete(ctx context.Context, upTo uint64, batch []entry.Entry) (bool, error) {
	began, seqs := time.Now(), make([]uint64, len(batch))
	heard := began // when the owner answered last
	for i, e := range batch {
		seqs[i] = e.Seq
	}
	if began.Before(w.lagging) {
		if kept, err := w.Tail.Kept(ctx, w.reached(), upTo); err != nil || kept {
			return kept, err
		}
	}
	for pause := lagPause; ; pause = min(2*pause, maxLagPause) {
		complete, applied, err := w.Owner.Complete(ctx, w.query.Log, w.place(), upTo, seqs)
		switch {
		case ctx.Err() != nil:
			return false, ctx.Err()
		case errors.Is(err, wire.ErrBadRequest):
			return false, err
		case err == nil && applied >= upTo:
			return complete, nil
		case err == nil:
			heard = time.Now()
		}
		waited := time.Since(began)
		if err != nil || waited > lagPatience {
			w.lagging = time.Now().Add(lagRecheck)
			if kept, err := w.Tail.Kept(ctx, w.reached(), upTo); err != nil || kept {
				return kept, err
			}
		}
		switch {
		case err == nil && waited > lagPatience && applied > w.reached():
			return false, nil // what it has taken in since can be read
		case err != nil && time.Since(heard) > client.Patience:
			return false, err
		case waited > client.Patience && !w.query.Follow:
			return false, fmt.Errorf("reading %s above %d: %w", w.query.Log, w.reached(), errBehind)
		}
		if err := sleep(ctx, pause); err != nil {
			return false, err
		}
	}
}
