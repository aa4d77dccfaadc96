package shard

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"dormouse/internal/extent"
	"dormouse/internal/wire"
	"dormouse/scheduler"
	"dormouse/store/cache"
	"dormouse/store/cache/buffer"
	"dormouse/store/cache/catalog"
	"dormouse/store/manifest"
)

// ledger is what an owner holds of its shard: the position, the buffer and the catalog in Pebble, and the log states. A
// change is one Pebble batch and the scheduler call that goes with it. Once the owner runs, nothing else commits
// batches of the shard.
//
// Invariant: buffer, catalog, position and log states agree whenever mu is free.
type ledger struct {
	disk    *disk
	sched   *scheduler.Scheduler
	metrics *Metrics

	mu struct {
		sync.Mutex
		pos      cache.Position
		newest   int64         // no entry was taken in that is later, Unix nanoseconds
		segments segmentMemory // committed lately
		changed  chan struct{} // closed, and another one made, at each change
	}
}

func newLedger(d *disk, sched *scheduler.Scheduler, m *Metrics) *ledger {
	l := &ledger{disk: d, sched: sched, metrics: m}
	l.mu.changed = make(chan struct{})
	return l
}

// position returns how far the ledger is.
func (l *ledger) position() cache.Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.pos
}

// applied returns the last sequence of the source stream that was taken in, or stepped over.
func (l *ledger) applied() uint64 { return l.position().Applied }

// changed returns a channel that is closed at the next change.
func (l *ledger) changed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.changed
}

// floor returns the highest sequence up to which everything is archived, and which of them the manifest has.
func (l *ledger) floor() (floor, recorded uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.floorLocked(), l.mu.pos.Floor
}

// floorLocked joins what was taken in with what is still buffered. mu must be held.
func (l *ledger) floorLocked() uint64 {
	floor := l.mu.pos.Applied
	if oldest, ok := l.sched.Oldest(); ok {
		floor = min(floor, oldest-1)
	}
	return max(floor, l.mu.pos.Floor)
}

// source returns what a record says of the source stream; before is what the last one said.
func (l *ledger) source(before manifest.Source) manifest.Source {
	pos := l.position()
	if pos.Applied <= before.Seq || pos.AppliedTime.IsZero() {
		return before
	}
	return manifest.Source{Created: pos.Source, Seq: pos.Applied, Time: pos.AppliedTime}
}

// expect returns the sequence that should come next, and the highest one that may be archived already.
func (l *ledger) expect() (next, highest uint64) {
	pos := l.position()
	return pos.Applied + 1, pos.Highest
}

// takeIn makes a batch of entries part of the buffer. The stream was taken in up to a sequence and its time.
func (l *ledger) takeIn(batch *cache.Batch, applied uint64, at time.Time, arrivals []scheduler.Arrival) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	pos := l.mu.pos
	pos.Applied, pos.AppliedTime = applied, at
	if err := l.commitLocked(batch, pos); err != nil {
		return fmt.Errorf("writing to the buffer: %w", err)
	}
	for i := range arrivals {
		l.mu.newest = max(l.mu.newest, arrivals[i].Time.UnixNano())
	}
	l.sched.Append(arrivals)
	return nil
}

// stepOver moves the applied sequence over entries that the stream has dropped.
func (l *ledger) stepOver(to uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	pos := l.mu.pos
	pos.Applied, pos.AppliedTime = to, time.Time{}
	batch := l.disk.newBatch()
	defer batch.Close()
	return l.commitLocked(batch, pos)
}

// commitLocked commits a batch with the position that goes with it. mu must be held.
func (l *ledger) commitLocked(batch *cache.Batch, pos cache.Position) error {
	if err := l.disk.commit(batch, pos); err != nil {
		return err
	}
	l.mu.pos = pos
	close(l.mu.changed)
	l.mu.changed = make(chan struct{})
	return nil
}

// apply applies one manifest record. Applying a record to a ledger that has it already changes nothing. The states of
// its logs are settled unless recovery applies it, which restores them all from the buffer afterwards.
func (l *ledger) apply(seq uint64, record manifest.Record, settle bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	batch := l.disk.newBatch()
	defer batch.Close()
	pos := l.mu.pos
	pos.ManifestSeq, pos.ManifestID, pos.Floor = seq, record.ID, record.Floor
	pos.TailRecords++
	var commits []scheduler.Commit
	now := time.Now()
	for _, s := range record.Segments {
		l.mu.segments.add(s.Segment.Key)
		for _, e := range s.Extents {
			if err := l.disk.catalog.Put(batch, e, s.Segment); err != nil {
				return err
			}
			pos.Highest = max(pos.Highest, e.Last)
			pos.TailExtents++
			if settle {
				commits = append(commits, scheduler.Commit{Log: e.Log, Last: e.Last, Count: e.Count, Bytes: e.Bytes})
				l.metrics.archived(e, now)
			}
		}
		if err := l.disk.buffer.Remove(batch, s.Extents); err != nil {
			return err
		}
	}
	if err := l.commitLocked(batch, pos); err != nil {
		return fmt.Errorf("applying manifest record %d: %w", seq, err)
	}
	if len(commits) == 0 {
		return nil
	}
	l.metrics.segments.Add(float64(len(record.Segments)))
	return l.settleLocked(commits)
}

// settleLocked moves the states of committed logs: asleep when nothing is left, armed again for what came meanwhile. mu
// must be held.
func (l *ledger) settleLocked(commits []scheduler.Commit) (err error) {
	var cursor *buffer.Cursor // made for the first log that has more: most have not
	defer func() {
		if cursor != nil {
			_ = cursor.Close() // read errors have shown in Seek
		}
	}()
	return l.sched.Committed(commits, func(log string, from uint64) (uint64, time.Time, error) {
		if cursor == nil {
			if cursor, err = l.disk.buffer.Iter(); err != nil {
				return 0, time.Time{}, err
			}
		}
		first, at, found, err := cursor.Seek(log, from)
		if err == nil && !found {
			err = fmt.Errorf("the buffer of %s ends before %d, its state says that it has more", log, from)
		}
		return first, at, err
	})
}

// pending returns what is buffered of a log, and whether anything is.
func (l *ledger) pending(log string) (scheduler.Pending, bool) { return l.sched.Pending(log) }

// known reports whether a segment was committed lately.
func (l *ledger) known(key string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.segments.has(key)
}

// newest returns a time that no entry is later than which was taken in, Unix nanoseconds.
func (l *ledger) newest() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.newest
}

// tail returns how much of the manifest the newest snapshot lacks, and the last record that was applied.
func (l *ledger) tail() (records, extents uint64, upTo manifest.Mark) {
	pos := l.position()
	return pos.TailRecords, pos.TailExtents, manifest.Mark{Seq: pos.ManifestSeq, ID: pos.ManifestID}
}

// cutTail counts what a snapshot has taken off the tail. The next record makes it lasting.
func (l *ledger) cutTail(records, extents uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.pos.TailRecords -= min(records, l.mu.pos.TailRecords)
	l.mu.pos.TailExtents -= min(extents, l.mu.pos.TailExtents)
}

// begin sets the position that Pebble has, before the owner runs.
func (l *ledger) begin(pos cache.Position) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.pos = pos
}

// beginAbove lets replay begin above a sequence up to which all is archived, if Pebble has less: the disk was lost.
func (l *ledger) beginAbove(floor uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.pos.Applied < floor {
		l.mu.pos.Applied, l.mu.pos.AppliedTime = floor, time.Time{}
	}
}

// restore restores the log states from the buffer.
func (l *ledger) restore() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.disk.buffer.Restore(func(a buffer.Active) {
		l.mu.newest = max(l.mu.newest, a.Newest.UnixNano())
		l.sched.Restore(a.Log, scheduler.Pending{First: a.First, Last: a.Last, Count: a.Count, Bytes: a.Bytes}, a.FirstTime)
	})
}

// drain answers a worker's drain with what is buffered of its logs, reply by reply, and notes that they were drained.
func (l *ledger) drain(req wire.DrainRequest, reply func(wire.DrainReply)) error {
	if err := l.disk.buffer.Drain(req, reply); err != nil {
		return err
	}
	l.sched.Drained(req.Logs)
	return nil
}

// view is what the owner has at one moment: every entry that was taken in up to applied is either in the buffer or in
// an extent, and none is in both.
type view struct {
	buffered *buffer.Cursor
	archived *catalog.View
	applied  uint64
}

// view opens a view, which the caller closes.
func (l *ledger) view() (v view, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	v.applied = l.mu.pos.Applied
	if v.buffered, err = l.disk.buffer.Iter(); err != nil {
		return v, err
	}
	if v.archived, err = l.disk.catalog.View(); err != nil {
		return v, errors.Join(err, v.buffered.Close())
	}
	return v, nil
}

func (v view) close() error { return errors.Join(v.buffered.Close(), v.archived.Close()) }

// figures are what an owner says of its shard, all as of one moment.
type figures struct {
	scheduler.Stats
	applied uint64
	oldest  time.Time // when the oldest buffered entry was stored in the stream; zero without any
}

// earliest returns what is buffered, and a cursor at the log that has the oldest entry with that entry's sequence; nil
// without any, or if only the sums are asked for.
func (l *ledger) earliest(sums bool) (f figures, log string, first uint64, cursor *buffer.Cursor, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f.applied, f.Stats = l.mu.pos.Applied, l.sched.Stats()
	log, first, ok := l.sched.Earliest()
	if ok && !sums {
		cursor, err = l.disk.buffer.Iter()
	}
	return f, log, first, cursor, err
}

// archived counts an extent of this process's own commit.
func (m *Metrics) archived(e extent.Extent, now time.Time) {
	m.synced.Add(float64(e.Count))
	m.syncDelay.Observe(now.Sub(time.Unix(0, e.MinTime)).Seconds())
}
