package identity

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"dormouse/internal/extent"
	"dormouse/store/bucket"
	"dormouse/store/segment"
)

const (
	joinTimeout = 30 * time.Second // of the first look at whose bucket it is
	askTimeout  = 5 * time.Second  // of a later one
	askEvery    = 30 * time.Second // between looks while objects are put; a folder is looked at before each
	askAgain    = time.Second      // after one that failed
)

// Config is what a Bucket needs.
type Config struct {
	JS         jetstream.JetStream
	Bucket     *bucket.Bucket
	Registerer prometheus.Registerer // nil: metrics are kept but not exposed
	Logger     *slog.Logger          // nil: slog.Default()
}

// Bucket is a bucket that a process uses only while it is the system's. A bucket that does not answer can be opened:
// nothing is put into it, or read, until it has said whose it is. It is asked again now and then, since a folder may be
// another one when its disk is not mounted. It is for any number of goroutines.
type Bucket struct {
	cfg  Config
	puts *bucket.Puts
	turn chan struct{} // cap 1: held by the one that asks

	mu struct {
		sync.Mutex
		system Identity  // none until it was found
		asked  time.Time // when the bucket last said that it is the system's
		failed time.Time // when that was last asked in vain
		err    error     // of that time
	}
}

// New makes a Bucket; it makes no request. The bucket.Bucket stays the caller's.
func New(cfg Config) *Bucket {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	return &Bucket{cfg: cfg, puts: bucket.NewPuts(cfg.Registerer), turn: make(chan struct{}, 1)}
}

// Check asks the bucket whose it is. The error wraps ErrRefused when it is not the system's.
func (b *Bucket) Check(ctx context.Context) error {
	select {
	case b.turn <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("asking archive %s whose it is: %w", b.cfg.Bucket.URL(), ctx.Err())
	}
	defer func() { <-b.turn }()
	system, err := b.ask(ctx)
	if errors.Is(err, context.Canceled) { // says nothing of the bucket
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil {
		b.mu.failed, b.mu.err, b.mu.asked = time.Now(), err, time.Time{}
		return err
	}
	b.mu.system, b.mu.asked, b.mu.err = system, time.Now(), nil
	return nil
}

func (b *Bucket) ask(ctx context.Context) (Identity, error) {
	b.mu.Lock()
	system := b.mu.system
	b.mu.Unlock()
	if system.none() {
		ctx, cancel := context.WithTimeout(ctx, joinTimeout)
		defer cancel()
		return join(ctx, b.cfg.JS, b.cfg.Bucket, b.cfg.Logger.Warn)
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	held, err := ofBucket(ctx, b.cfg.Bucket)
	if err == nil || errors.Is(err, errMissing) {
		err = compare(system, held, b.cfg.Bucket, err != nil)
	}
	return system, err
}

// ours returns nil when the bucket was the system's lately.
func (b *Bucket) ours(ctx context.Context) error {
	b.mu.Lock()
	lately := !b.cfg.Bucket.Local() && !b.mu.asked.IsZero() && time.Since(b.mu.asked) < askEvery
	err := b.mu.err
	if time.Since(b.mu.failed) > askAgain {
		err = nil
	}
	b.mu.Unlock()
	if lately || err != nil {
		return err
	}
	return b.Check(ctx)
}

// Put stores an object for good, see bucket.Bucket, if the bucket is the system's.
func (b *Bucket) Put(ctx context.Context, key string, data []byte) error {
	err := b.ours(ctx)
	if err == nil {
		err = b.cfg.Bucket.Put(ctx, key, data)
	}
	b.puts.Note(err)
	return err
}

// Failing returns nil, or what is wrong when the last puts have failed.
func (b *Bucket) Failing() error { return b.puts.Failing() }

// Get reads a whole object of a known size, if the bucket is the system's.
func (b *Bucket) Get(ctx context.Context, s extent.Segment) ([]byte, error) {
	if err := b.ours(ctx); err != nil {
		return nil, err
	}
	return b.cfg.Bucket.Get(ctx, s)
}

// Open opens a segment, if the bucket is the system's.
func (b *Bucket) Open(ctx context.Context, s extent.Segment) (*segment.Reader, error) {
	if err := b.ours(ctx); err != nil {
		return nil, err
	}
	object, err := b.cfg.Bucket.Segment(s)
	if err != nil {
		return nil, err
	}
	r, err := segment.Open(ctx, object)
	if err != nil {
		return nil, errors.Join(err, object.Close())
	}
	return r, nil
}

// Contents reads the table of contents of a segment, if the bucket is the system's.
func (b *Bucket) Contents(ctx context.Context, s extent.Segment) ([]extent.Extent, error) {
	if err := b.ours(ctx); err != nil {
		return nil, err
	}
	return segment.ContentsOf(ctx, s, b.cfg.Bucket.Segment)
}

// Delete deletes an object, if the bucket is the system's.
func (b *Bucket) Delete(ctx context.Context, key string) error {
	if err := b.ours(ctx); err != nil {
		return err
	}
	return b.cfg.Bucket.Delete(ctx, key)
}

// List yields the objects whose keys begin with prefix, if the bucket is the system's.
func (b *Bucket) List(ctx context.Context, prefix string) iter.Seq2[extent.Segment, error] {
	return func(yield func(extent.Segment, error) bool) {
		if err := b.ours(ctx); err != nil {
			yield(extent.Segment{}, err)
			return
		}
		b.cfg.Bucket.List(ctx, prefix)(yield)
	}
}

// ID names the bucket, as a worker says it to an owner; empty until the bucket has said whose it is.
func (b *Bucket) ID() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.system.Bucket
}

// Accepts returns nil when id, see ID, names the system's bucket. An owner asks it of workers' commits: it needs
// JetStream for that, but not the bucket.
func (b *Bucket) Accepts(ctx context.Context, id string) error {
	if id != "" && id == b.ID() {
		return nil
	}
	system, _, err := ofSystem(ctx, b.cfg.JS)
	switch {
	case err != nil:
		return err
	case id == "":
		return fmt.Errorf("%w: the worker does not say which bucket its segment is in: it is of an older version, "+
			"start a newer one", ErrRefused)
	case id != system.Bucket:
		return fmt.Errorf("%w: the segment is in bucket %s, which is not this system's: that is %s", ErrRefused, id, system)
	}
	return nil
}
