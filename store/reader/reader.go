// Package reader reads a log back: what the archive holds, then what its owner has buffered, then what the source
// stream has beyond that and, if asked, what comes. The parts are joined so that every entry is seen once and in order,
// while commits go on and the stream drops what it likes.
//
// It changes nothing and keeps nothing. Open join.go for the seams, pieces.go for the archive, owner.go for how the
// owner is asked, tail.go for the stream, list.go for which logs there are, and store/segment for how little of a
// segment is fetched for one log.
package reader

import (
	"context"
	"errors"
	"time"

	"dormouse/internal/entry"
	"dormouse/internal/extent"
)

// Segments opens archived segments.
type Segments interface {
	Open(ctx context.Context, s extent.Segment) (Segment, error)
}

// Segment is one open segment.
type Segment interface {
	// Scan calls fn for the log's entries from first to last; the entry is valid during the call.
	Scan(ctx context.Context, log string, first, last uint64, fn func(entry.Entry) error) error
	Close() error
}

// Tail is the source stream of the log's shard.
type Tail interface {
	// Kept reports whether the stream still has everything above after up to upTo that it ever had there.
	Kept(ctx context.Context, after, upTo uint64) (bool, error)
	// End returns the last sequence, which is not below that of anything that was acknowledged before End was called.
	End(ctx context.Context) (last uint64, err error)
	// Fetch returns some entries of log above after, ascending, and nothing only when the stream holds none. With wait
	// it waits for one instead, but not for ever: it returns nothing now and then, so that the caller can see whether
	// entries have left the stream.
	Fetch(ctx context.Context, log string, after uint64, wait bool) ([]entry.Entry, error)
}

// Query says what to read. Zero bounds are open.
type Query struct {
	Log              string
	From, To         uint64    // sequences, both inclusive
	FromTime, ToTime time.Time // entry times, both inclusive
	Follow           bool      // go on with what is published later, until the context is done or To or ToTime is reached
}

// Reader reads logs of one shard.
type Reader struct {
	Owner    Owner
	Segments Segments
	Tail     Tail
}

// errEnough ends a read at the query's upper bound.
var errEnough = errors.New("all that was asked for has been read")

// Read calls emit for each entry of the query in ascending sequence. Without Follow it reads all that the stream had
// taken when Read was called, and of what comes later only what is archived while it reads. The entry's memory is valid
// during the call of emit only. emit's errors end the read.
func (r *Reader) Read(ctx context.Context, q Query, emit func(entry.Entry) error) error {
	if !q.ToTime.IsZero() && !q.ToTime.After(time.Now()) { // before the stream's end is asked for, so that it is of later
		q.Follow = false // all that is wanted is there already
	}
	end, err := r.Tail.End(ctx)
	if err != nil {
		return err
	}
	if q.To > 0 && q.To <= end {
		q.Follow = false // likewise
	}
	if q.To > 0 {
		end = min(end, q.To)
	}
	w := &walk{Reader: r, query: q, emit: emit, position: max(q.From, 1) - 1, end: end}
	if err = w.run(ctx); errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// walk is one read under way.
//
// Invariant: every entry of the log up to position was emitted, if the query wants it, and none above; there is none
// between position and known.
type walk struct {
	*Reader
	query    Query
	emit     func(entry.Entry) error
	position uint64
	known    uint64      // may be below position
	end      uint64      // without Follow, nothing above is wanted
	lagging  time.Time   // until then the owner is taken to be far behind, or gone
	late     bool        // an entry later than the query's ToTime has shown
	since    uint64      // all segments up to this manifest record were read
	cuts     extent.Cuts // of the log, as the owner told last
}

// place is how far the log was read.
func (w *walk) place() Place { return Place{After: w.position, Since: w.since} }

// fetch fetches from the stream. A wait is over at the query's ToTime.
func (w *walk) fetch(ctx context.Context) ([]entry.Entry, error) {
	if !w.query.Follow || w.query.ToTime.IsZero() {
		return w.Tail.Fetch(ctx, w.query.Log, w.reached(), w.query.Follow)
	}
	wait, cancel := context.WithDeadline(ctx, w.query.ToTime)
	defer cancel()
	batch, err := w.Tail.Fetch(wait, w.query.Log, w.reached(), true)
	if err != nil && wait.Err() != nil && ctx.Err() == nil {
		return nil, nil
	}
	return batch, err
}

// settle ends the following of a query whose ToTime is over, which this machine's clock tells or an entry that is
// later: what the stream has taken by now is read, and no more.
//
// The first later entry itself does not end the read. Times need not ascend with the sequences: each is by the clock of
// the server that led the stream, and another leader's may be behind. One that was published again, see ingest, has the
// time of that.
func (w *walk) settle(ctx context.Context) error {
	if !w.query.Follow || w.query.ToTime.IsZero() || !w.late && time.Now().Before(w.query.ToTime) {
		return nil
	}
	end, err := w.Tail.End(ctx)
	if err != nil {
		return err
	}
	if w.query.To > 0 {
		end = min(end, w.query.To)
	}
	w.query.Follow, w.end = false, end
	return nil
}

// see notes the time of something that was read or passed over.
func (w *walk) see(at time.Time) {
	if !w.query.ToTime.IsZero() && at.After(w.query.ToTime) {
		w.late = true
	}
}

// take emits one entry if the query wants it.
func (w *walk) take(e entry.Entry) error {
	if err := w.enough(e.Seq); err != nil {
		return err
	}
	w.position = e.Seq
	w.see(e.Time)
	q := w.query
	early := !q.FromTime.IsZero() && e.Time.Before(q.FromTime)
	late := !q.ToTime.IsZero() && e.Time.After(q.ToTime)
	if !early && !late && !w.cuts.Have(q.Log, e.Seq, e.Time.UnixNano()) {
		if err := w.emit(e); err != nil {
			return err
		}
	}
	return w.enough(e.Seq + 1) // so that following does not wait for an entry beyond the last that is wanted
}

// enough ends the read when seq is above the last that is wanted.
func (w *walk) enough(seq uint64) error {
	if w.query.To > 0 && seq > w.query.To {
		return errEnough
	}
	return nil
}
