package bucket

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"gocloud.dev/blob"
	"gocloud.dev/blob/fileblob"

	"dormouse/internal/extent"
)

// temporary begins the names of files that are being put. No key has a token that starts with a dot, so what a crash
// leaves behind is never taken for an object.
const temporary = ".put-"

// fileOf returns the path of a key's file.
func (b *Bucket) fileOf(key string) string { return filepath.Join(b.folder, filepath.FromSlash(key)) }

// listFolder yields the objects below a folder of the archive, "" or with a slash at its end, whose keys begin with
// prefix, and returns false when the caller has enough. What vanishes meanwhile was no object: the file of a put that
// has ended.
//
// The bucket library's own list was rejected: it ends with an error then.
func (b *Bucket) listFolder(ctx context.Context, folder, prefix string, yield func(extent.Segment, error) bool) bool {
	entries, err := os.ReadDir(b.fileOf(folder))
	switch err := errors.Join(ctx.Err(), err); {
	case err == nil:
	case folder != "" && errors.Is(err, fs.ErrNotExist):
		return true
	default:
		yield(extent.Segment{}, b.explain("list", prefix, err))
		return false
	}
	key := func(e fs.DirEntry) string { // a folder's sorts as the keys below it do
		if e.IsDir() {
			return folder + e.Name() + "/"
		}
		return folder + e.Name()
	}
	slices.SortFunc(entries, func(x, y fs.DirEntry) int { return strings.Compare(key(x), key(y)) })
	for _, e := range entries {
		on := true
		switch key := key(e); {
		case strings.HasPrefix(e.Name(), "."): // see temporary
		case e.IsDir() && (strings.HasPrefix(key, prefix) || strings.HasPrefix(prefix, key)):
			on = b.listFolder(ctx, key, prefix, yield)
		case e.Type().IsRegular() && strings.HasPrefix(key, prefix):
			on = b.listFile(key, e, yield)
		}
		if !on {
			return false
		}
	}
	return true
}

// listFile is listFolder for one file.
func (b *Bucket) listFile(key string, e fs.DirEntry, yield func(extent.Segment, error) bool) bool {
	info, err := e.Info()
	switch {
	case err == nil:
		return yield(extent.Segment{Key: key, Size: uint64(info.Size())}, nil)
	case errors.Is(err, fs.ErrNotExist):
		return true
	}
	yield(extent.Segment{}, b.explain("list", key, err))
	return false
}

// openFolder makes the folder, durably, and opens it.
func openFolder(folder string, ready func(folder string) error) (*blob.Bucket, error) {
	if err := ready(folder); err != nil {
		return nil, err
	}
	b, err := fileblob.OpenBucket(folder, &fileblob.Options{NoTempDir: true, Metadata: fileblob.MetadataDontWrite})
	if err != nil {
		return nil, fmt.Errorf("%w: cannot open folder %s: %w", ErrURL, folder, err)
	}
	return b, nil
}

// folderMade makes the folder if it is not there.
func folderMade(folder string) error {
	if err := makeFolder(folder); err != nil {
		return fmt.Errorf("%w: cannot make folder %s: %w", ErrURL, folder, err)
	}
	return nil
}

// folderThere makes none: who only reads would leave an empty one where a disk is not mounted, or a name is misspelt.
func folderThere(folder string) error {
	switch err := checkFolder(folder); {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("archive %w: there is no folder %s here", ErrNotFound, folder)
	case err != nil:
		return fmt.Errorf("%w: cannot read folder %s: %w", ErrURL, folder, err)
	}
	return nil
}

// putFile writes the file of key, durably: write a temporary file, fsync, link under its name, fsync the folder.
//
// The bucket library's own writer was rejected: it never fsyncs, so that a power failure after the source stream was
// trimmed would lose entries, and two writers of one key can both pass its check that the file does not exist. A link
// fails when the name is taken, whoever took it.
//
// The archive's folder itself is not made here: when it is gone, so is the archive, and another one in its place would
// be where no reader looks.
func (b *Bucket) putFile(ctx context.Context, key string, data []byte) (err error) {
	if err := errors.Join(ctx.Err(), checkFolder(b.folder)); err != nil {
		return err
	}
	path := b.fileOf(key)
	folder := filepath.Dir(path)
	if err := makeFolder(folder); err != nil {
		return err
	}
	f, err := os.CreateTemp(folder, temporary)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ignoreMissing(os.Remove(f.Name()))) }()
	if err := errors.Join(writeSynced(f, data), f.Close()); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := publish(f.Name(), path); err != nil {
		return err
	}
	return syncFolder(folder)
}

// removeFile removes the file of key. It need not be durable: a file that comes back after a power failure is garbage,
// as it was.
func (b *Bucket) removeFile(ctx context.Context, key string) error {
	if err := errors.Join(ctx.Err(), checkFolder(b.folder)); err != nil {
		return err
	}
	err := os.Remove(b.fileOf(key))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// fsync makes a file, or the names in a folder, durable; a variable for a test that loses what was not synced.
var fsync = (*os.File).Sync

func writeSynced(f *os.File, data []byte) error {
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	return fsync(f)
}

// publishing makes check and rename one step among this process's puts, where links are not to be had.
var publishing sync.Mutex

// publish gives the file the name path unless that is taken.
func publish(temp, path string) error {
	err := os.Link(temp, path)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrExist):
		return ErrExists
	case !errors.Is(err, fs.ErrPermission) && !errors.Is(err, errors.ErrUnsupported):
		return err
	}
	publishing.Lock() // a file system without hard links, such as FAT or some network mounts
	defer publishing.Unlock()
	if _, err := os.Lstat(path); err == nil {
		return ErrExists
	}
	return os.Rename(temp, path)
}

// makeFolder makes folder and what is missing above it; each new name is durable when it returns.
func makeFolder(folder string) error {
	if info, err := os.Stat(folder); err == nil {
		if !info.IsDir() {
			return fmt.Errorf("%s is not a folder", folder)
		}
		return nil
	}
	parent := filepath.Dir(folder)
	if parent != folder {
		if err := makeFolder(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(folder, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncFolder(parent)
}

func syncFolder(folder string) error {
	d, err := os.Open(folder)
	if err != nil {
		return err
	}
	return errors.Join(fsync(d), d.Close())
}

func checkFolder(folder string) error {
	info, err := os.Stat(folder)
	if err == nil && !info.IsDir() {
		err = fmt.Errorf("%s is not a folder", folder)
	}
	return err
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
