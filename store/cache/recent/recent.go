// Package recent knows what is archived of the entries that a source stream will bring again, while a new owner replays
// it: one row for each log of the segments that reach above where the replay begins.
//
// It is filled at a takeover from the segments' tables of contents, and dropped whole when the replay is over: nothing
// is kept for what was archived after that. Open ingest/shard/recovery.go for who fills it.
package recent

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"dormouse/internal/entry"
	"dormouse/internal/extent"
	"dormouse/internal/shardid"
	"dormouse/store/cache"
)

// Recent is one shard's part of the database. It is safe for concurrent use; who may write is ingest's to order.
type Recent struct {
	db         *cache.DB
	prefix     []byte
	upperBound []byte
}

// New returns what is known of shard.
func New(db *cache.DB, shard shardid.Shard) *Recent {
	return &Recent{db: db, prefix: cache.Prefix(cache.SpaceRecent, shard),
		upperBound: cache.PrefixEnd(cache.SpaceRecent, shard)}
}

// ErrCorrupt is wrapped by the errors of rows that cannot be read.
var ErrCorrupt = errors.New("corrupt row of what is archived lately")

// A row's key is the prefix of the shard, then entry.AppendKey(LogID, first sequence). Its value:
//
//	+---------+--------------+----------+--------------+
//	| version | last -       | min time | max time -   |
//	| 0x01    | first, uv    | varint   | min time, uv |
//	+---------+--------------+----------+--------------+
const rowVersion = 1

// Put adds an archived extent to batch. Those of a log must not overlap.
func (r *Recent) Put(batch *cache.Batch, e extent.Extent) error {
	key := entry.AppendKey(append([]byte(nil), r.prefix...), e.Log, e.First)
	row := binary.AppendUvarint([]byte{rowVersion}, e.Last-e.First)
	row = binary.AppendVarint(row, e.MinTime)
	row = binary.AppendUvarint(row, uint64(e.MaxTime-e.MinTime))
	return batch.Set(key, row, nil)
}

// Forget adds the deletion of all rows to batch.
func (r *Recent) Forget(batch *cache.Batch) error {
	return batch.DeleteRange(r.prefix, r.upperBound, nil)
}

// Find returns the last extent of log that begins at or before seq, which may end before it, and the last one of all.
// Without Count and Bytes, of which nothing is kept. ok is false when there is none of the log.
func (r *Recent) Find(log string, seq uint64) (covering, last extent.Extent, ok bool, err error) {
	it, err := r.db.NewIter(&pebble.IterOptions{LowerBound: r.prefix, UpperBound: r.upperBound})
	if err != nil {
		return covering, last, false, fmt.Errorf("reading what is archived lately: %w", err)
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	end := entry.AppendLogEnd(append([]byte(nil), r.prefix...), log)
	if last, ok, err = r.at(it, log, it.SeekLT(end)); !ok || err != nil {
		return covering, last, false, err
	}
	above := append(entry.AppendKey(append([]byte(nil), r.prefix...), log, seq), 0) // so that seq itself is found too
	covering, _, err = r.at(it, log, it.SeekLT(above))
	return covering, last, err == nil, err
}

// at returns the extent at which the iterator stands, if that is of log.
func (r *Recent) at(it *cache.Iterator, log string, valid bool) (e extent.Extent, ok bool, err error) {
	if !valid {
		return e, false, it.Error()
	}
	id, first, err := entry.SplitKey(it.Key()[len(r.prefix):])
	if err != nil {
		return e, false, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if string(id) != log {
		return e, false, nil
	}
	e, err = decodeRow(log, first, it.Value())
	return e, err == nil, err
}

func decodeRow(log string, first uint64, row []byte) (extent.Extent, error) {
	corrupt := fmt.Errorf("%w: of %s at %d", ErrCorrupt, log, first)
	if len(row) == 0 || row[0] != rowVersion {
		return extent.Extent{}, corrupt
	}
	length, n := binary.Uvarint(row[1:])
	if n <= 0 {
		return extent.Extent{}, corrupt
	}
	row = row[1+n:]
	minTime, n := binary.Varint(row)
	if n <= 0 {
		return extent.Extent{}, corrupt
	}
	span, m := binary.Uvarint(row[n:])
	if m <= 0 {
		return extent.Extent{}, corrupt
	}
	return extent.Extent{Log: log, First: first, Last: first + length, MinTime: minTime,
		MaxTime: minTime + int64(span)}, nil
}
