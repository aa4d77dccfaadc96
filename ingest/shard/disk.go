package shard

import (
	"time"

	"github.com/cockroachdb/pebble/v2"

	"dormouse/internal/shardid"
	"dormouse/store/cache"
	"dormouse/store/cache/buffer"
	"dormouse/store/cache/catalog"
)

// noSync: the database is a cache, see package cache.
var noSync = pebble.NoSync

// disk is what Pebble has of the shard: the buffer, the catalog and the position that goes with both. The claim brings
// it up to the manifest, and then only the ledger changes it.
type disk struct {
	db      *cache.DB
	shard   shardid.Shard
	buffer  *buffer.Buffer
	catalog *catalog.Catalog
}

func newDisk(db *cache.DB, shard shardid.Shard) *disk {
	return &disk{db: db, shard: shard, buffer: buffer.New(db, shard), catalog: catalog.New(db, shard)}
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

// putRows adds rows of a snapshot to the catalog, and returns how many there were.
func (d *disk) putRows(rows func(yield func(catalog.Row, error) bool)) (n uint64, err error) {
	batch := d.newBatch()
	defer batch.Close()
	for row, err := range rows {
		if err != nil {
			return n, err
		}
		if err := d.catalog.PutRow(batch, row); err != nil {
			return n, err
		}
		n++
	}
	return n, batch.Commit(noSync)
}

// archiveState says what the archive has at a sequence.
type archiveState int

const (
	archivedNot     archiveState = iota
	archivedHere                 // this very entry
	archivedAnother              // an earlier entry of that sequence, or later ones of the log
)

// whatIsArchived looks a replayed entry up in the catalog. An entry at or below the log's last committed sequence is
// archived, unless the source stream lost its end after the archive had it: then the sequences are used a second time,
// and the entry's time, which is later than all of the extent's, tells the two apart.
func (d *disk) whatIsArchived(log string, seq uint64, at time.Time) (archiveState, error) {
	last, ok, err := d.catalog.Last(log)
	if err != nil || !ok || last.Extent.Last < seq {
		return archivedNot, err
	}
	located, ok, err := d.catalog.Covering(log, seq)
	if err != nil {
		return archivedNot, err
	}
	e, nanos := located.Extent, at.UnixNano()
	if ok && seq <= e.Last && e.MinTime <= nanos && nanos <= e.MaxTime {
		return archivedHere, nil
	}
	return archivedAnother, nil
}
