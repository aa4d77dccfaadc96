package cache

import (
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// corruption is what becomes of a database that turns out to be corrupt while it is in use. Opening one reads only a
// little of it: a bad block shows when an iterator, a get or a compaction comes to it, and then again at every later
// attempt.
//
// It leaves a mark and ends the process, and the next Open moves the directory aside. A step-down would not help: the
// block stays where it is, and the next claim of the shard meets it again, in this process and after a restart. Nor can
// the database be replaced under those who use it: the other shards of the node are in it too, with batches and
// iterators open and log states in memory that must agree with it. Nothing is lost with it: all of it is a cache, and
// until the process is back the other nodes take its shards over.
type corruption struct {
	dir  string
	opts Options
}

// markName is a file in the directory, which thereby goes aside with it. Pebble takes no notice of it.
const markName = "DAMAGED"

func (d *corruption) mark() string { return d.opts.FS.PathJoin(d.dir, markName) }

// found returns a corruption error when an earlier process has left its mark.
func (d *corruption) found() error {
	if _, err := d.opts.FS.Stat(d.mark()); err != nil {
		return nil // none, or a directory of which opening it says more
	}
	return fmt.Errorf("%w: found while it was in use, see %s", pebble.ErrCorruption, markName)
}

// check passes an error of the database on, unless it says that the database is corrupt.
func (d *corruption) check(err error) error {
	if err != nil && pebble.IsCorruptionError(err) {
		d.giveUp(err)
	}
	return err
}

// giveUp leaves the mark and ends the process. Without the mark, which a failing disk may refuse, the next process
// finds the corruption for itself.
func (d *corruption) giveUp(cause error) {
	d.opts.Logger.Error("the local cache is corrupt; ending this process. No acked entry is lost: start again, and the "+
		"cache is "+
		// the error value would print its stack
		"moved aside and rebuilt from JetStream", "dir", d.dir, "error", cause.Error())
	if err := d.leaveMark(cause); err != nil {
		d.opts.Logger.Error("the corrupt cache could not be marked: delete it by hand before starting again, nothing in it "+
			"is needed", "dir", d.dir, "error", err.Error())
	}
	d.opts.exit(1)
}

func (d *corruption) leaveMark(cause error) error {
	file, err := d.opts.FS.Create(d.mark(), vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = io.WriteString(file, cause.Error()+"\n")
	return errors.Join(err, file.Close())
}
