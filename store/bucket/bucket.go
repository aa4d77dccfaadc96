// Package bucket is the bucket that holds segments, by URL: a folder, S3 or what speaks its language, Google Cloud
// Storage, Azure, or memory.
//
// An object is put once and never changes: nothing here overwrites. What has been put is durable when Put returns. The
// package decides no timeouts: every call that touches the bucket ends when its context does.
//
// Open bucket.go, then file.go for what a folder needs beyond the bucket library; store/segment for what is in an
// object.
package bucket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"path/filepath"
	"strings"

	"gocloud.dev/blob"

	"dormouse/internal/extent"
)

var (
	// ErrExists is wrapped when an object with that key exists already. It is untouched.
	ErrExists = errors.New("object exists already")
	// ErrNotFound is wrapped when there is no object with that key. The error names key and bucket.
	ErrNotFound = errors.New("object not found")
	// ErrKey is wrapped when a key cannot name an object.
	ErrKey = errors.New("not an object key")
	// ErrTooLarge is wrapped when an object is larger than the caller takes.
	ErrTooLarge = errors.New("object is too large")
	// ErrUnable is wrapped when the server cannot do what Dormouse needs of it: trying again does not help.
	ErrUnable = errors.New("this server cannot hold an archive")
	// ErrDenied is wrapped when the credentials do not allow an operation.
	ErrDenied = errors.New("not allowed")
)

// Bucket holds objects. It is for any number of goroutines.
type Bucket struct {
	blob   *blob.Bucket
	url    string
	folder string // of file://, else empty
	memory bool
}

// Open opens the bucket that rawURL names:
//
//	file:///absolute/folder    a folder, made if it is not there; file://./relative/folder, relative to where we run
//	s3://bucket/prefix         region=... (default: the environment's, else us-east-1); endpoint=http://host:port for an
//	                           S3-compatible server, in path style, or with the bucket in the host's name when
//	                           use_path_style=false says so; credentials from the standard AWS environment
//	gs://bucket/prefix         Google Cloud Storage, credentials from its standard environment
//	azblob://container/prefix  Azure Blob Storage, likewise
//	mem://                     a new, empty bucket in this process; only this Bucket reaches it
//
// The error wraps ErrURL when the URL is wrong. Open makes no request to a server: use Check.
func Open(ctx context.Context, rawURL string) (*Bucket, error) { return open(ctx, rawURL, folderMade) }

// OpenToRead is Open for those who only read: a folder that is not there is not made, and the error wraps ErrNotFound.
func OpenToRead(ctx context.Context, rawURL string) (*Bucket, error) {
	return open(ctx, rawURL, folderThere)
}

// open makes ready the folder of file://.
func open(ctx context.Context, rawURL string, ready func(folder string) error) (*Bucket, error) {
	p, err := parseURL(rawURL)
	if err != nil {
		return nil, err
	}
	b, p, err := p.openBlob(ctx, ready)
	if err != nil {
		return nil, err
	}
	return &Bucket{blob: b, url: p.public(), folder: p.folder, memory: p.scheme == "mem"}, nil
}

// URL returns where the bucket is, absolute and without secrets: what readers elsewhere may be told. It has what the
// environment says of the place, too.
func (b *Bucket) URL() string { return b.url }

// InMemory reports whether the bucket ends with this process, and no other one reaches it.
func (b *Bucket) InMemory() bool { return b.memory }

// Local reports whether a request costs nothing worth saving, as with a folder.
func (b *Bucket) Local() bool { return b.memory || b.folder != "" }

// Put stores data under key, in one request, and returns when it is durable. It never overwrites: the error wraps
// ErrExists when the key holds something else. What is there already, byte by byte, counts as put: the answer to a
// request may be lost, and the request be repeated, by the caller or by a library. After any other error the object may
// exist or not.
func (b *Bucket) Put(ctx context.Context, key string, data []byte) error {
	if err := checkKey(key); err != nil {
		return err
	}
	put := b.upload
	if b.folder != "" {
		put = b.putFile
	}
	err := b.explain("put", key, put(ctx, key, data))
	if !errors.Is(err, ErrExists) {
		return err
	}
	same, readErr := b.holds(ctx, key, data)
	switch {
	case readErr != nil:
		return errors.Join(err, readErr)
	case !same:
		return err
	case b.folder != "": // whoever made the name may have failed before that was durable
		return b.explain("put", key, syncFolder(filepath.Dir(b.fileOf(key))))
	}
	return nil
}

// holds reports whether the object under key is data. That the sizes are equal would say little: a segment of a worker
// that chose the same name would have about the same.
func (b *Bucket) holds(ctx context.Context, key string, data []byte) (bool, error) {
	r, err := b.blob.NewReader(ctx, key, nil)
	if err != nil {
		return false, b.explain("read", key, err)
	}
	defer r.Close()
	if r.Size() != int64(len(data)) {
		return false, nil
	}
	part := make([]byte, 64<<10)
	for rest := data; ; {
		n, err := r.Read(part)
		if !bytes.HasPrefix(rest, part[:n]) {
			return false, nil
		}
		rest = rest[n:]
		switch {
		case errors.Is(err, io.EOF):
			return len(rest) == 0, nil
		case err != nil:
			return false, b.explain("read", key, err)
		}
	}
}

func (b *Bucket) upload(ctx context.Context, key string, data []byte) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w, err := b.blob.NewWriter(ctx, key, &blob.WriterOptions{
		ContentType:    "application/octet-stream",
		IfNotExist:     true,
		BufferSize:     max(len(data), minPart),
		MaxConcurrency: 1,
	})
	if err != nil {
		return err
	}
	if _, err := w.Write(data); err != nil {
		cancel() // before Close, so that nothing half written is published
		return errors.Join(err, w.Close())
	}
	return w.Close()
}

// minPart is the smallest part size that S3 takes, in bytes. Segments are put as one part: several requests for one
// object would be slower, dearer, and leave parts behind when they are interrupted.
const minPart = 5 << 20

// Delete deletes the object under key. That there is none is no error: whoever deletes it twice, or after a lost
// answer, has what it wants. What is deleted may show for a moment still where the server is a cluster.
func (b *Bucket) Delete(ctx context.Context, key string) error {
	if err := errors.Join(checkKey(key), ctx.Err()); err != nil {
		return err
	}
	remove := b.blob.Delete
	if b.folder != "" {
		remove = b.removeFile
	}
	err := b.explain("delete", key, remove(ctx, key))
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// List yields the objects whose keys begin with prefix, ascending by key. After an error it ends.
func (b *Bucket) List(ctx context.Context, prefix string) iter.Seq2[extent.Segment, error] {
	if b.folder != "" {
		return func(yield func(extent.Segment, error) bool) { b.listFolder(ctx, "", prefix, yield) }
	}
	return func(yield func(extent.Segment, error) bool) {
		objects := b.blob.List(&blob.ListOptions{Prefix: prefix})
		for {
			o, err := objects.Next(ctx)
			switch {
			case errors.Is(err, io.EOF):
				return
			case err != nil:
				yield(extent.Segment{}, b.explain("list", prefix, err))
				return
			case o.IsDir:
				continue
			}
			if !yield(extent.Segment{Key: o.Key, Size: uint64(o.Size)}, nil) {
				return
			}
		}
	}
}

// Check reports whether the bucket is there and can be listed, with one small request.
func (b *Bucket) Check(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if b.folder != "" {
		return b.explain("check", "", checkFolder(b.folder))
	}
	there, err := b.blob.IsAccessible(ctx)
	if err == nil && !there {
		return fmt.Errorf("archive %s does not exist: create the bucket, or correct the URL", b.url)
	}
	return b.explain("check", "", err)
}

// Close releases the bucket; a mem:// bucket is gone then. No call may be running.
func (b *Bucket) Close() error { return b.blob.Close() }

// checkKey allows what every kind of bucket stores under its own name: tokens of letters, digits, `.`, `_` and `-`,
// separated by single slashes, none of which starts with a dot.
func checkKey(key string) error {
	for token := range strings.SplitSeq(key, "/") {
		if token == "" || token[0] == '.' || strings.ContainsFunc(token, notInKey) {
			return fmt.Errorf("%w: %q", ErrKey, key)
		}
	}
	return nil
}

func notInKey(r rune) bool {
	letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
	return !letter && r != '.' && r != '_' && r != '-'
}
