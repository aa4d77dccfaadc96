// Package archive is the bucket that holds segments, by URL: a folder, S3 or what speaks its language, Google Cloud
// Storage, Azure, or memory.
//
// An object is put once and never changes: nothing here overwrites or deletes. What has been put is durable when Put
// returns. The package decides no timeouts: every call that touches the bucket ends when its context does.
//
// Open bucket.go, then file.go for what a folder needs beyond the bucket library; store/segment for what is in an
// object.
package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"dormouse/internal/extent"
)

var (
	// ErrExists is wrapped when an object with that key exists already. It is untouched.
	ErrExists = errors.New("object exists already")
	// ErrNotFound is wrapped when there is no object with that key. The error names key and bucket.
	ErrNotFound = errors.New("object not found")
	// ErrKey is wrapped when a key cannot name an object.
	ErrKey = errors.New("not an object key")
)

// Bucket holds objects. It is for any number of goroutines.
type Bucket struct {
	blob   *blob.Bucket
	url    string
	folder string // of file://, else empty
}

// Open opens the bucket that rawURL names:
//
//	file:///absolute/folder    a folder, made if it is not there; file://./relative/folder, relative to where we run
//	s3://bucket/prefix         region=... (default: the environment's, else us-east-1); endpoint=http://host:port for an
//	                           S3-compatible server, in path style; credentials from the standard AWS environment
//	gs://bucket/prefix         Google Cloud Storage, credentials from its standard environment
//	azblob://container/prefix  Azure Blob Storage, likewise
//	mem://                     a new, empty bucket in this process; only this Bucket reaches it
//
// The error wraps ErrURL when the URL is wrong. Open makes no request to a server: use Check.
func Open(ctx context.Context, rawURL string) (*Bucket, error) {
	p, err := parseURL(rawURL)
	if err != nil {
		return nil, err
	}
	b, err := p.openBlob(ctx)
	if err != nil {
		return nil, err
	}
	return &Bucket{blob: b, url: p.public(), folder: p.folder}, nil
}

// URL returns where the bucket is, absolute and without secrets: what readers elsewhere may be told.
func (b *Bucket) URL() string { return b.url }

// Put stores data under key, in one request, and returns when it is durable. It never overwrites: the error wraps
// ErrExists when the key is taken. After any other error the object may exist or not.
func (b *Bucket) Put(ctx context.Context, key string, data []byte) error {
	if err := checkKey(key); err != nil {
		return err
	}
	if b.folder != "" {
		return b.explain("put", key, putFile(ctx, b.folder, key, data))
	}
	return b.explain("put", key, b.upload(ctx, key, data))
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

// List yields the objects whose keys begin with prefix, ascending by key. After an error it ends.
func (b *Bucket) List(ctx context.Context, prefix string) iter.Seq2[extent.Segment, error] {
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
			case o.IsDir || b.folder != "" && isTemporary(o.Key):
				continue
			}
			if !yield(extent.Segment{Key: o.Key, Size: uint64(o.Size)}, nil) {
				return
			}
		}
	}
}

// Check reports whether the bucket is there and can be read, with one small request.
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

// explain names operation, key and bucket, and turns the library's codes into this package's errors.
func (b *Bucket) explain(operation, key string, err error) error {
	if err == nil {
		return nil
	}
	switch gcerrors.Code(err) { // the library's own words add nothing to these two
	case gcerrors.FailedPrecondition:
		err = ErrExists
	case gcerrors.NotFound:
		err = ErrNotFound
	}
	if key == "" {
		return fmt.Errorf("%s archive %s: %w", operation, b.url, err)
	}
	return fmt.Errorf("%s %s in archive %s: %w", operation, key, b.url, err)
}

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
