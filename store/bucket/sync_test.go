package bucket

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
)

// disk is what a power failure leaves of a folder: of a file what it was when it was synced, of a folder the names that
// were in it then. A name that was not synced may be there or not.
type disk struct {
	files map[string][]byte          // by the name that the file had when it was synced
	names map[string]map[string]bool // by folder
	order []string                   // what was synced, in order
}

// watchSyncs replaces fsync until the test ends.
func watchSyncs(t *testing.T) *disk {
	d := &disk{files: make(map[string][]byte), names: make(map[string]map[string]bool)}
	fsync = func(f *os.File) error {
		d.order = append(d.order, f.Name())
		entries, err := os.ReadDir(f.Name())
		if err != nil { // a file
			d.files[f.Name()], err = os.ReadFile(f.Name())
			return err
		}
		d.names[f.Name()] = make(map[string]bool)
		for _, e := range entries {
			d.names[f.Name()][e.Name()] = true
		}
		return nil
	}
	t.Cleanup(func() { fsync = (*os.File).Sync })
	return d
}

// TestPutIsDurable: when a put returns, the object's bytes, its name, and every folder on the way to it that the bucket
// made would survive a power failure; and no moment of it leaves the name on a file whose bytes would not.
func TestPutIsDurable(t *testing.T) {
	base := t.TempDir()
	d := watchSyncs(t)
	b, err := Open(context.Background(), "file://"+filepath.Join(base, "data", "archive"))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	data := bytes.Repeat([]byte("entry "), 10_000)
	for _, key := range []string{"7/a.sst", "7/b.sst", "7/catalog/c.rows"} {
		clear(d.files)
		if err := b.Put(context.Background(), key, data); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(base, "data", "archive", filepath.FromSlash(key))
		if len(d.files) != 1 {
			t.Fatalf("%s: %d files were synced, want the one that is put", key, len(d.files))
		}
		for name, synced := range d.files {
			if !bytes.Equal(synced, data) {
				t.Errorf("%s: %d of %d bytes were synced", key, len(synced), len(data))
			}
			if name == path {
				t.Errorf("%s had its name before its bytes were synced", key)
			}
		}
		for at := path; at != base; at = filepath.Dir(at) {
			if !d.names[filepath.Dir(at)][filepath.Base(at)] {
				t.Errorf("%s: the name of %s was not synced in its folder; synced were %v", key, at, d.order)
			}
		}
	}
}
