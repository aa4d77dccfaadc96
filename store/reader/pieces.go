package reader

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"dormouse/internal/extent"
	"dormouse/store/client"
)

// openAhead is how many segments are opened while one is read: a log may be in many small ones, and each costs a
// request at least.
const openAhead = 4

// opening is a segment that is being opened.
type opening struct {
	segment Segment
	err     error
}

// readPieces emits the log's entries above the position from segments, in their order.
func (w *walk) readPieces(ctx context.Context, pieces []extent.Piece) (err error) {
	var wanted []extent.Summary
	for _, p := range pieces {
		gone := slices.ContainsFunc(w.cuts, func(c extent.Cut) bool { return c.Has(p.Segment.MaxSeq, p.Segment.MaxTime) })
		if p.Segment.MaxSeq > w.position && !gone && !w.outside(p.Segment) {
			wanted = append(wanted, p.Segment)
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	var ahead []chan opening // of the next segments
	defer func() {
		cancel()
		for _, next := range ahead {
			if o := <-next; o.err == nil {
				err = errors.Join(err, o.segment.Close())
			}
		}
	}()
	for i := range wanted {
		for n := i + len(ahead); n < len(wanted) && len(ahead) <= openAhead; n++ {
			next := make(chan opening, 1)
			go func() {
				segment, err := w.Segments.Open(ctx, wanted[n].Object)
				next <- opening{segment, err}
			}()
			ahead = append(ahead, next)
		}
		o := <-ahead[0]
		ahead = ahead[1:]
		if o.err != nil {
			return fmt.Errorf("reading %s above %d: %w", w.query.Log, w.position, o.err)
		}
		if err := w.readPiece(ctx, o.segment); err != nil {
			return err
		}
	}
	return nil
}

// readPiece emits the log's entries above the position from one segment, which it closes.
func (w *walk) readPiece(ctx context.Context, s Segment) (err error) {
	defer func() {
		if cerr := s.Close(); err == nil {
			err = cerr
		}
	}()
	last := uint64(math.MaxUint64)
	if w.query.To > 0 && !w.query.Follow { // else the first entry beyond it ends the read
		last = w.query.To
	}
	if w.position == math.MaxUint64 || w.position >= last {
		return nil
	}
	return s.Scan(ctx, w.query.Log, w.position+1, last, w.take)
}

// outside reports whether the query wants nothing of a segment. A read that follows is ended by the first entry that it
// does not want, which it must see.
func (w *walk) outside(s extent.Summary) bool {
	q := w.query
	if !q.FromTime.IsZero() && time.Unix(0, s.MaxTime).Before(q.FromTime) { // which may be beyond what nanoseconds can say
		return true
	}
	return !q.Follow && (q.To > 0 && s.MinSeq > q.To || !q.ToTime.IsZero() && time.Unix(0, s.MinTime).After(q.ToTime))
}

// missing is since when segments are gone that the owner has named. A merge replaces them, and the owner that is asked
// again names others.
type missing struct {
	since time.Time
	tries int
}

// again waits a little before the owner is asked again, or returns why that is in vain.
func (m *missing) again(ctx context.Context, err error) error {
	if m.tries++; m.tries == 1 {
		m.since = time.Now()
	}
	if time.Since(m.since) > client.Patience/3 {
		return fmt.Errorf("%w, which is part of the archive: run dormouse verify", err)
	}
	return sleep(ctx, min(time.Duration(m.tries)*20*time.Millisecond, time.Second))
}
