package shard

import (
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
