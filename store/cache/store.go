// Package cache opens the Pebble database that one ingest process keeps: the buffers of the shards it owns, what a
// replay meets again, and how far each has come.
//
// All of it is a cache. The source streams hold every entry that is not archived and the manifest holds every commit,
// so nothing here is ever synced: after a crash Pebble comes back with a prefix of its batches, the Position in it says
// which, and the rest is replayed. Deleting the directory while the process is down loses nothing.
//
// Open buffer for what waits to be archived, recent for what a new owner need not archive again.
package cache

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"dormouse/internal/shardid"
)

// The key spaces. A key is the space's byte, the shard (4 bytes, big endian), then what the space's package writes.
const (
	SpaceBuffer = 'b'
	SpaceRecent = 'r'
	spaceMeta   = 'm'
)

// Sizes of a busy database; see Rest for an idle one.
const (
	memTableBytes = 8 << 20 // each process has two or three, however few shards it owns
	cacheBytes    = 8 << 20
	maxOpenFiles  = 256

	indexBlockBytes = 256 << 10 // a file's index is one block, as a rule
)

// Options configure Open. The zero Options are usable.
type Options struct {
	FS     vfs.FS       // nil: the operating system's
	Logger *slog.Logger // nil: slog.Default()

	exit func(code int) // os.Exit, but in tests
}

// Open opens the database in dir, making it when there is none. A database that is corrupt, or turned out to be while
// an earlier process used it, is moved aside to dir+".corrupt" and begun anew, since all of it can be rebuilt. Only one
// process at a time can hold dir.
func Open(dir string, opts Options) (*DB, error) {
	if opts.FS == nil {
		opts.FS = vfs.Default
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	if opts.exit == nil {
		opts.exit = os.Exit
	}
	corruption := &corruption{dir: dir, opts: opts}
	var db *pebble.DB
	err := corruption.found()
	if err == nil {
		db, err = open(dir, opts, corruption)
	}
	if pebble.IsCorruptionError(err) {
		aside := dir + ".corrupt"
		opts.Logger.Warn("the local cache is corrupt: moving it aside and rebuilding it from JetStream",
			"dir", dir, "aside", aside, "error", err.Error()) // the error value would print its stack
		if err := errors.Join(opts.FS.RemoveAll(aside), opts.FS.Rename(dir, aside)); err != nil {
			return nil, fmt.Errorf("moving the corrupt cache %s aside: %w (delete it by hand: nothing in it is needed)", dir,
				err)
		}
		db, err = open(dir, opts, corruption)
	}
	if err != nil {
		return nil, fmt.Errorf("opening the local cache %s: %w (is another process using it? it may be deleted while "+
			"none runs)", dir, err)
	}
	reopen := func() (*pebble.DB, error) { return open(dir, opts, corruption) }
	return &DB{pebble: db, reopen: reopen, corruption: corruption, logger: opts.Logger, exit: opts.exit}, nil
}

func open(dir string, opts Options, corruption *corruption) (*pebble.DB, error) {
	cache := pebble.NewCache(cacheBytes)
	defer cache.Unref()
	options := &pebble.Options{
		FS:                    vfs.OnDiskFull(opts.FS, func() { opts.unwritable(fmt.Errorf("%s: %w", dir, syscall.ENOSPC)) }),
		Cache:                 cache,
		MemTableSize:          memTableBytes,
		L0CompactionThreshold: 8,
		L0StopWritesThreshold: 32,
		MaxOpenFiles:          maxOpenFiles,
		DisableTableStats:     true,
		FormatMajorVersion:    pebble.FormatNewest,
		Logger:                logger{opts},
		LoggerAndTracer:       nil,
		EventListener: &pebble.EventListener{
			DataCorruption: func(info pebble.DataCorruptionInfo) { corruption.giveUp(info.Details) },
			// Pebble would try again without a pause and without an end, and opening it waits for that.
			BackgroundError: func(err error) { opts.unwritable(corruption.check(err)) },
		},
		CompactionConcurrencyRange: func() (int, int) { return 1, 2 },
	}
	for i := range options.Levels {
		level := &options.Levels[i]
		level.IndexBlockSize = indexBlockBytes
		// What reaches the upper levels is buffered entries that are about to be drained: compressing them would only cost.
		level.Compression = func() *sstable.CompressionProfile { return sstable.NoCompression }
	}
	options.Levels[len(options.Levels)-1].Compression = func() *sstable.CompressionProfile {
		return sstable.SnappyCompression
	}
	db, err := pebble.Open(dir, options)
	if err != nil {
		return nil, err
	}
	return db, nil
}

// Prefix returns the beginning of all keys of one shard in one space.
func Prefix(space byte, shard shardid.Shard) []byte {
	return binary.BigEndian.AppendUint32([]byte{space}, uint32(shard))
}

// PrefixEnd returns the smallest key after all that begin with Prefix(space, shard).
func PrefixEnd(space byte, shard shardid.Shard) []byte {
	if shard == ^shardid.Shard(0) {
		return []byte{space + 1}
	}
	return Prefix(space, shard+1)
}

// unwritable ends the process: serving on without the buffer would not do.
func (o Options) unwritable(cause error) {
	o.Logger.Error("the local cache cannot be written; ending this process. No acked entry is lost: "+
		"free or repair the disk and start again", "error", cause.Error()) // the error value would print its stack
	o.exit(1)
}

// logger passes Pebble's messages on. Pebble calls Fatalf when it can no longer write its log (a full disk, a failing
// one) and must not get control back.
type logger struct{ Options }

func (l logger) Infof(format string, args ...any) {
	l.Logger.Debug("pebble: " + fmt.Sprintf(format, args...))
}
func (l logger) Errorf(format string, args ...any) {
	l.Logger.Error("pebble: " + fmt.Sprintf(format, args...))
}
func (l logger) Fatalf(format string, args ...any) { l.unwritable(fmt.Errorf(format, args...)) }
