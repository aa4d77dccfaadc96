package shard

import (
	"errors"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"dormouse/internal/extent"
	"dormouse/internal/shardid"
	"dormouse/store/cache"
	"dormouse/store/cache/buffer"
	"dormouse/store/cache/recent"
)

// noSync: the database is a cache, see package cache.
var noSync = pebble.NoSync

// disk is what Pebble has of the shard: the buffer, what a replay meets again, and the position that goes with both.
// The claim brings it up to the manifest, and then only the ledger changes it.
type disk struct {
	db     *cache.DB
	shard  shardid.Shard
	buffer *buffer.Buffer
	recent *recent.Recent
}

func newDisk(db *cache.DB, shard shardid.Shard) *disk {
	return &disk{db: db, shard: shard, buffer: buffer.New(db, shard), recent: recent.New(db, shard)}
}

func (d *disk) newBatch() *cache.Batch { return d.db.NewBatch() }

// position returns the position that is stored, zero without one.
func (d *disk) position() (cache.Position, error) { return d.db.Position(d.shard) }

// commit commits a batch with the position that goes with it.
func (d *disk) commit(batch *cache.Batch, pos cache.Position) error {
	if err := cache.SetPosition(batch, d.shard, pos); err != nil {
		return err
	}
	return batch.Commit(noSync)
}

// store stores a position alone.
func (d *disk) store(pos cache.Position) error {
	batch := d.newBatch()
	defer batch.Close()
	return d.commit(batch, pos)
}

// forget drops key spaces of the shard, all of them if none is named, and stores the position that goes with what is
// left.
func (d *disk) forget(pos cache.Position, spaces ...byte) error {
	batch := d.newBatch()
	defer batch.Close()
	if err := cache.Forget(batch, d.shard, spaces...); err != nil {
		return err
	}
	return d.commit(batch, pos)
}

// keepCheckpoint keeps the newest checkpoint's object.
func (d *disk) keepCheckpoint(key string, data []byte) error {
	batch := d.newBatch()
	defer batch.Close()
	if err := cache.KeepCheckpoint(batch, d.shard, key, data); err != nil {
		return err
	}
	return batch.Commit(noSync)
}

// forgetRecent drops what is noted for a replay.
func (d *disk) forgetRecent() error {
	batch := d.newBatch()
	defer batch.Close()
	if err := d.recent.Forget(batch); err != nil {
		return err
	}
	return batch.Commit(noSync)
}

// archived removes what a table of contents says is archived from the buffer, and keeps what lies above a sequence, for
// the replay that brings it again. What the buffer has below an archived entry of the same log goes too: only somebody
// who deletes single messages of the source stream makes such a gap, and the archive is in order.
func (d *disk) archived(contents []extent.Extent, above uint64) error {
	batch := d.newBatch()
	defer batch.Close()
	for _, e := range contents {
		if e.Last <= above {
			continue
		}
		if err := d.recent.Put(batch, e); err != nil {
			return err
		}
	}
	whole := slices.Clone(contents)
	for i := range whole {
		whole[i].First = 0
	}
	if err := d.buffer.Remove(batch, whole); err != nil {
		return err
	}
	return batch.Commit(noSync)
}

// cutAtOnce is how many logs leave the buffer in one batch.
const cutAtOnce = 4096

// cut removes from the buffer what is cut of it, and has each batch committed, with the extents that are in it.
func (d *disk) cut(c extent.Cut, commit func(*cache.Batch, []extent.Extent) error) error {
	if c.Kept { // what is not kept any longer is hardly in the buffer, and is left out later
		return nil
	}
	from, to := c.Range()
	for more := true; more; {
		var extents []extent.Extent
		var err error
		if extents, from, err = d.cuttable(c, from, to); err != nil {
			return err
		}
		if more = len(extents) == cutAtOnce; len(extents) == 0 {
			return nil
		}
		batch := d.newBatch()
		if err = d.buffer.Remove(batch, extents); err == nil {
			err = commit(batch, extents)
		}
		if err = errors.Join(err, batch.Close()); err != nil {
			return err
		}
	}
	return nil
}

// cutAll removes what is cut above the floor, before an owner runs.
func (d *disk) cutAll(cuts extent.Cuts, floor uint64) error {
	for _, c := range cuts {
		if c.UpTo <= floor {
			continue
		}
		if err := d.cut(c, func(batch *cache.Batch, _ []extent.Extent) error { return batch.Commit(noSync) }); err != nil {
			return err
		}
	}
	return nil
}

// cuttable returns what is cut of the next logs of the buffer from one LogID on and below another one, and where to go
// on.
func (d *disk) cuttable(c extent.Cut, from, to string) (extents []extent.Extent, next string, err error) {
	cursor, err := d.buffer.Iter()
	if err != nil {
		return nil, from, err
	}
	defer func() { err = errors.Join(err, cursor.Close()) }()
	for len(extents) < cutAtOnce {
		log, ok, err := cursor.SeekLog(from)
		if err != nil || !ok || to != "" && log >= to {
			return extents, from, err
		}
		from = log + "\x01" // the smallest key after all of the log's
		if !c.Covers(log) {
			continue
		}
		e, err := cursor.Prefix(log, c.Has)
		if err != nil {
			return nil, from, err
		}
		if e.Count > 0 {
			extents = append(extents, e)
		}
	}
	return extents, from, nil
}

// archiveState says what the archive has at a sequence.
type archiveState int

const (
	archivedNot     archiveState = iota
	archivedHere                 // this very entry
	archivedAnother              // an earlier entry of that sequence, or later ones of the log
)

// whatIsArchived looks a replayed entry up. An entry at or below the log's last archived sequence is archived, unless
// the source stream lost its end after the archive had it: then the sequences are used a second time, and the entry's
// time, which is later than all of the extent's, tells the two apart.
func (d *disk) whatIsArchived(log string, seq uint64, at time.Time) (archiveState, error) {
	e, last, ok, err := d.recent.Find(log, seq)
	if err != nil || !ok || last.Last < seq {
		return archivedNot, err
	}
	nanos := at.UnixNano()
	if e.First > 0 && seq <= e.Last && e.MinTime <= nanos && nanos <= e.MaxTime {
		return archivedHere, nil
	}
	return archivedAnother, nil
}
