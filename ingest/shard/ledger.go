package shard

import (
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"

	"dormouse/internal/extent"
	"dormouse/internal/wire"
	"dormouse/scheduler"
	"dormouse/store/cache"
	"dormouse/store/cache/buffer"
	"dormouse/store/manifest"
	"dormouse/store/tree"
)

// ledger is what an owner holds of its shard: the position and the buffer in Pebble, the tree, and the log states. A
// change is one Pebble batch and the scheduler call that goes with it. Once the owner runs, nothing else commits
// batches of the shard.
//
// Invariant: buffer, position, tree and log states agree whenever mu is free.
type ledger struct {
	disk    *disk
	sched   *scheduler.Scheduler
	metrics *Metrics
	filters *filters

	mu struct {
		sync.Mutex
		pos      cache.Position
		tree     tree.Tree
		version  uint64        // manifest record that changed the tree last
		tail     uint64        // records that the newest checkpoint has not
		kept     string        // key of the newest checkpoint, empty without one
		replayTo uint64        // an entry at or below it may be archived already: disk.recent tells; 0: none is
		newest   int64         // no entry was taken in that is later, Unix nanoseconds
		segments segmentMemory // committed lately
		// hashes of keys of objects that were deleted, or will be, and that no commit may name any more
		condemned map[uint64]time.Time // when they were named
		changed   chan struct{}        // closed, and another one made, at each change
	}
}

func newLedger(d *disk, sched *scheduler.Scheduler, m *Metrics) *ledger {
	l := &ledger{disk: d, sched: sched, metrics: m, filters: newFilters()}
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
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.pos.Applied + 1, l.mu.replayTo
}

// takeIn makes a batch of entries part of the buffer. The stream was taken in up to a sequence and its time.
// What has been cut since the manifest record cut, when the batch was begun, leaves the buffer again.
func (l *ledger) takeIn(batch *cache.Batch, applied uint64, at time.Time, arrivals []scheduler.Arrival,
	cut uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	pos := l.mu.pos
	pos.Applied, pos.AppliedTime = applied, at
	if err := l.endReplayLocked(batch, applied); err != nil {
		return err
	}
	if err := l.commitLocked(batch, pos); err != nil {
		return fmt.Errorf("writing to the buffer: %w", err)
	}
	for i := range arrivals {
		l.mu.newest = max(l.mu.newest, arrivals[i].Time.UnixNano())
	}
	l.sched.Append(arrivals)
	for _, c := range l.mu.tree.Cuts() {
		if c.Record > cut {
			if err := l.cutLocked(c); err != nil {
				return err
			}
		}
	}
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
	if err := l.endReplayLocked(batch, to); err != nil {
		return err
	}
	return l.commitLocked(batch, pos)
}

// endReplayLocked drops what was known for the replay when all of that is taken in. mu must be held.
func (l *ledger) endReplayLocked(batch *cache.Batch, applied uint64) error {
	if l.mu.replayTo == 0 || applied < l.mu.replayTo {
		return nil
	}
	l.mu.replayTo = 0
	return l.disk.recent.Forget(batch)
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

// accepted is what a group of commits makes part of the archive, segment by segment.
type accepted struct {
	segments []extent.Summary
	extents  [][]extent.Extent // of each segment, those that were accepted
	offers   []uint64          // of each segment, see offered
}

// add adds a segment of which all or some extents were accepted, and the logs that were refused, ascending.
func (a *accepted) add(s extent.Segment, extents []extent.Extent, refused []string, offer uint64) {
	summary := extent.Summarize(s, extents)
	summary.Refused = refused
	a.segments = append(a.segments, summary)
	a.extents = append(a.extents, extents)
	a.offers = append(a.offers, offer)
}

// apply applies a manifest record that this owner has appended: what it commits leaves the buffer, and the states of
// its logs are settled. It returns the segments that are live no more.
func (l *ledger) apply(seq uint64, record manifest.Record, committed accepted) (replaced []extent.Summary, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	next, replaced, err := record.Apply(l.mu.tree, seq)
	if err != nil {
		return nil, err
	}
	batch := l.disk.newBatch()
	defer batch.Close()
	pos := l.mu.pos
	pos.ManifestSeq, pos.ManifestID, pos.Floor = seq, record.ID, record.Floor
	var commits []scheduler.Commit
	var removed uint64 // bytes
	now := time.Now()
	for i, s := range committed.segments {
		l.mu.segments.add(s.Object.Key, committed.offers[i])
		l.filters.add(s.Object.Key, committed.extents[i])
		for _, e := range committed.extents[i] {
			commits = append(commits, scheduler.Commit{Log: e.Log, Last: e.Last, Count: e.Count, Bytes: e.Bytes})
			l.metrics.archived(e, now)
			removed += e.Bytes + e.Count*(uint64(len(e.Log))+keyCost)
		}
		if err := l.disk.buffer.Remove(batch, committed.extents[i]); err != nil {
			return nil, err
		}
	}
	if l.mu.tree = next; record.ChangesTree() {
		l.mu.version = seq
	}
	if record.Cut != nil {
		if err := l.cutLocked(next.NewestCut()); err != nil {
			return nil, err
		}
	}
	l.filters.drop(replaced)
	l.mu.tail++
	if record.Checkpoint != nil {
		l.mu.kept = record.Checkpoint.Object.Key
	}
	if err := l.commitLocked(batch, pos); err != nil {
		return nil, fmt.Errorf("applying manifest record %d: %w", seq, err)
	}
	if len(commits) == 0 {
		return replaced, nil
	}
	l.metrics.segments.Add(float64(len(record.Segments)))
	return replaced, errors.Join(l.settleLocked(commits), l.disk.db.Removed(removed))
}

// keyCost is about what a buffered entry takes besides its Bytes and its LogID.
const keyCost = 32

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

// known returns the hash of what was offered with a segment that was committed lately, or is live; 0 when that is not
// known of a live one.
func (l *ledger) known(key string) (offer uint64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if offer, ok = l.mu.segments.has(key); ok {
		return offer, true
	}
	return 0, l.mu.tree.Has(key)
}

// live returns the tree, and the manifest record that changed it last.
func (l *ledger) live() (t tree.Tree, version uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.tree, l.mu.version
}

// newest returns a time that no entry is later than which was taken in, Unix nanoseconds.
func (l *ledger) newest() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.newest
}

// named returns the keys that the manifest names: of the live segments, and of the newest checkpoint.
func (l *ledger) named() map[string]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	keys := map[string]bool{l.mu.kept: true}
	for p := range l.mu.tree.Overlapping("", "") {
		keys[p.Segment.Object.Key] = true
	}
	return keys
}

// maxCondemned bounds the objects that an owner remembers to have deleted. Those that were named long ago are refused
// anyway, and commits of another epoch come to nobody.
const maxCondemned = 1 << 16

// errCondemned means that an owner remembers too many objects.
var errCondemned = errors.New("this owner has deleted as many young objects that were never committed as it can " +
	"remember: it goes on when they are old")

// condemn returns which objects the manifest does not name, and lets no commit name them. Those that were named before
// a time are refused without being remembered.
func (l *ledger) condemn(keys []string, before time.Time) (dead []string, err error) {
	named := l.named()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.condemned == nil {
		l.mu.condemned = make(map[uint64]time.Time)
	}
	if len(l.mu.condemned)+len(keys) > maxCondemned {
		maps.DeleteFunc(l.mu.condemned, func(_ uint64, named time.Time) bool { return named.Before(before) })
	}
	for _, key := range keys {
		if named[key] {
			continue
		}
		if len(l.mu.condemned) >= maxCondemned {
			return nil, errCondemned
		}
		l.mu.condemned[xxhash.Sum64String(key)] = namedAt(key)
		dead = append(dead, key)
	}
	return dead, nil
}

// isCondemned reports whether an object is deleted, or about to be.
func (l *ledger) isCondemned(key string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, is := l.mu.condemned[xxhash.Sum64String(key)]
	return is
}

// checkpoint returns the tree as it is, the last record that is in it, and how many records the newest checkpoint has
// not.
func (l *ledger) checkpoint() (t tree.Tree, upTo manifest.Mark, tail uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.tree, manifest.Mark{Seq: l.mu.pos.ManifestSeq, ID: l.mu.pos.ManifestID}, l.mu.tail
}

// cutTail counts what a checkpoint has taken off the tail.
func (l *ledger) cutTail(records uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.tail -= min(records, l.mu.tail)
}

// mayCut returns nil when the tree can take a cut as it is now; else the error wraps tree.ErrInvalid.
func (l *ledger) mayCut(c extent.Cut) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err := l.mu.tree.Cut(l.mu.pos.ManifestSeq+1, c)
	return err
}

// cutting returns the cuts that entries above a sequence may fall under, and the record of the newest cut.
func (l *ledger) cutting(above uint64) (cuts extent.Cuts, newest uint64) {
	live, _ := l.live()
	for _, c := range live.Cuts() {
		if c.UpTo > above {
			cuts = append(cuts, c)
		}
	}
	return cuts, live.NewestCut().Record
}

// cutLocked removes from the buffer what is cut, some logs at a time. Of a log it is what comes before the first entry
// that is not cut: what lies behind is archived first, and left out by reads and merges. mu must be held.
func (l *ledger) cutLocked(c extent.Cut) error {
	return l.disk.cut(c, func(batch *cache.Batch, extents []extent.Extent) error {
		if err := l.commitLocked(batch, l.mu.pos); err != nil {
			return fmt.Errorf("cutting %s: %w", c.Logs, err)
		}
		commits := make([]scheduler.Commit, len(extents))
		for i, e := range extents {
			commits[i] = scheduler.Commit{Log: e.Log, Last: e.Last, Count: e.Count, Bytes: e.Bytes}
		}
		return l.settleLocked(commits)
	})
}

// begin sets what the claim has found: the position that Pebble has, and the tree.
func (l *ledger) begin(pos cache.Position, found found) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.pos, l.mu.tree, l.mu.version, l.mu.tail = pos, found.tree, found.version, found.tail
	l.mu.kept = found.kept
	if highest := found.tree.Highest(); highest > pos.Applied {
		l.mu.replayTo = highest
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
// a segment of the tree, and none is in both.
type view struct {
	buffered *buffer.Cursor
	tree     tree.Tree
	filters  *filters
	version  uint64 // of the tree
	applied  uint64
}

// view opens a view, which the caller closes.
func (l *ledger) view() (v view, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	v.applied, v.tree, v.version, v.filters = l.mu.pos.Applied, l.mu.tree, l.mu.version, l.filters
	v.buffered, err = l.disk.buffer.Iter()
	return v, err
}

func (v view) close() error { return v.buffered.Close() }

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
