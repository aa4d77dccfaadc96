package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"dormouse/ingest"
	"dormouse/ingest/shard"
	"dormouse/internal/natsserver"
	"dormouse/internal/outage"
	"dormouse/internal/retry"
	"dormouse/internal/wire"
	"dormouse/store/bucket"
	"dormouse/store/cache"
	"dormouse/store/identity"
	"dormouse/workers"
)

// server is the server of one process: everything that serve starts.
type server struct {
	cfg      *serveConfig
	log      *slog.Logger
	registry *prometheus.Registry
	id       string         // tells the process from others; that of its data directory if it has one
	host     string         // where it runs, "" if that is not known
	closers  []func() error // in the order of opening

	embedded *natsserver.Server // nil with an outside NATS
	nc       *nats.Conn
	js       jetstream.JetStream
	closed   chan error // cap 1: why the connection to NATS was closed for good
	refused  refusals

	archive
	node *ingest.Node  // nil without the role
	pool *workers.Pool // nil without the role
	http *httpServer
}

// archive is the bucket.
type archive struct {
	bucket *bucket.Bucket
	ours   *identity.Bucket // the same, used while it is the system's
	whose  *outage.Log      // that it has not said yet whose it is
}

// newServer opens everything, in the order in which the parts need each other; on an error it closes what was opened.
func newServer(ctx context.Context, cfg *serveConfig, log *slog.Logger) (*server, error) {
	p := &server{cfg: cfg, log: log, registry: prometheus.NewRegistry(),
		closed: make(chan error, 1), refused: refusals{first: make(chan error, 1)}}
	p.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	steps := []func(context.Context) error{p.lockData, p.takeName, p.openNATS, p.openBucket, p.openStreams, p.openIdentity,
		p.openMetrics, p.openIngest, p.openWorkers, p.openHTTP, p.openStatus}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return nil, errors.Join(err, p.close())
		}
	}
	p.paceCollector()
	return p, nil
}

func (p *server) onClose(fn func() error) { p.closers = append(p.closers, fn) }

// close closes what was opened, the last first.
func (p *server) close() error {
	var errs []error
	for i := len(p.closers) - 1; i >= 0; i-- {
		errs = append(errs, p.closers[i]())
	}
	p.closers = nil
	return errors.Join(errs...)
}

func (p *server) openBucket(ctx context.Context) error {
	var err error
	if p.bucket, err = bucket.Open(ctx, p.cfg.archive); err != nil {
		return err
	}
	p.onClose(p.bucket.Close)
	return nil
}

// identityTimeout bounds the first look at whose bucket it is: a process can serve without the bucket for a while.
const identityTimeout = 5 * time.Second

// openIdentity makes sure that the bucket is the system's. One that does not answer is asked again while the process
// serves.
func (p *server) openIdentity(ctx context.Context) error {
	p.whose = outage.New(p.log, "whose archive this is is not known yet, and nothing is put into it; asking again",
		"the archive is this system's")
	p.ours = identity.New(identity.Config{JS: p.js, Bucket: p.bucket, Registerer: p.registry, Logger: p.log})
	first, cancel := context.WithTimeout(ctx, identityTimeout)
	defer cancel()
	err := p.ours.Check(first)
	if err != nil && ctx.Err() == nil && !errors.Is(err, identity.ErrRefused) {
		p.whose.Failed(err)
		return nil
	}
	return err
}

// identify asks until the bucket has said whose it is, and fails when it is not the system's.
func (p *server) identify(ctx context.Context) error {
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		if p.ours.ID() != "" {
			return struct{}{}, nil
		}
		err := p.ours.Check(ctx)
		switch {
		case errors.Is(err, identity.ErrRefused):
			err = backoff.Permanent(err)
		case err != nil && ctx.Err() == nil:
			p.whose.Failed(err)
		}
		return struct{}{}, err
	}, backoff.WithBackOff(retry.Patient()), backoff.WithMaxElapsedTime(0))
	if ctx.Err() != nil {
		return nil
	}
	if err == nil {
		p.whose.Over()
	}
	return err
}

func (p *server) openIngest(context.Context) error {
	if !p.cfg.has(roleIngest) {
		return nil
	}
	db, err := cache.Open(filepath.Join(p.cfg.data, "pebble"), cache.Options{Logger: p.log})
	if err != nil {
		return err
	}
	p.onClose(db.Close)
	p.node, err = ingest.New(ingest.Config{Host: p.host, Registerer: p.registry, Config: shard.Config{
		NC: p.nc, JS: p.js, DB: db, Bucket: p.ours, Accepts: p.ours.Accepts, NodeID: p.id, ArchiveURL: p.bucket.URL(),
		MaxDelay: p.cfg.maxDelay, RequeueAfter: p.cfg.requeueAfter, Tick: p.cfg.tick, Lease: p.cfg.lease,
		MaxBytes: uint64(p.cfg.maxBytes), BufferLimit: uint64(p.cfg.bufferLimit),
		Trim: shard.Trim(p.cfg.trim.value), TrimDelay: p.cfg.trimDelay, GCGrace: p.cfg.gcGrace,
		Logger: p.log,
	}})
	return err
}

// takeName says in every line of the log which process it is of, under the name that `dormouse status` and its leases
// have.
func (p *server) takeName(context.Context) (err error) {
	p.id = uuid.NewString()
	if p.cfg.has(roleIngest) {
		if p.id, err = nodeID(p.cfg.data); err != nil {
			return err
		}
	}
	host, unknown := os.Hostname()
	p.host = host
	p.log = p.log.With("process", wire.ProcessName(p.host, p.id))
	if unknown != nil {
		p.log.Debug("the host's name is not known", "error", unknown)
	}
	return nil
}

func (p *server) openWorkers(context.Context) error {
	if !p.cfg.has(roleWorker) {
		return nil
	}
	var err error
	p.pool, err = workers.New(workers.Config{
		NC: p.nc, JS: p.js, Bucket: p.ours, Segments: p.ours, BucketID: p.ours.ID,
		Size: p.cfg.workers, MergeShare: p.cfg.mergeShare, SegmentBytes: int(p.cfg.segmentBytes),
		Linger: p.cfg.linger, GiveUpAfter: p.cfg.requeueAfter, Grace: p.cfg.grace, Compression: p.cfg.compression.value,
		Metrics: workers.NewMetrics(p.registry), Logger: p.log,
	})
	return err
}

func (p *server) openHTTP(context.Context) error {
	checks := []check{{"nats", p.checkNATS}, {"archive", p.ours.Check},
		{"puts", func(context.Context) error { return p.ours.Failing() }}}
	remarks := func() []string { return nil }
	if p.node != nil {
		checks = append(checks, check{"ingest", func(context.Context) error { return p.node.Ready() }})
		remarks = p.node.Remarks
	}
	var err error
	if p.http, err = newHTTPServer(p.cfg.http, p.registry, checks, remarks, p.log); err != nil {
		return err
	}
	p.onClose(p.http.close)
	return nil
}

// openStatus answers those who ask what processes there are.
func (p *server) openStatus(context.Context) error {
	self := wire.Process{ID: p.id, Host: p.host, Version: buildVersion(), Roles: p.cfg.roles, Started: time.Now(),
		HTTP: p.http.addr(), Archive: p.bucket.URL()}
	sub, err := p.nc.Subscribe(wire.StatusSubject, func(msg *nats.Msg) {
		now := self
		if p.node != nil {
			now.Shards = p.node.Status()
		}
		if p.pool != nil {
			now.Workers, now.Busy = p.pool.Size()
		}
		p.http.health.tell(&now)
		data, err := wire.Encode(now)
		if err == nil {
			err = msg.Respond(data)
		}
		if err != nil {
			p.log.Debug("a question for the status was not answered", "error", err)
		}
	})
	if err != nil {
		return fmt.Errorf("listening for questions for the status: %w", err)
	}
	p.onClose(func() error { _ = sub.Unsubscribe(); return nil }) // the connection may be gone
	return nil
}

// handOverAfter is how long an owner that has somebody to hand its shards over to waits for the workers of its process.
const handOverAfter = 500 * time.Millisecond

// run works until ctx is done or a part fails, and then stops in the order of the data path reversed: the workers
// first, which need the owner to commit what they have in hand. But other processes do not wait for long to take the
// shards over; what the workers had in hand is then done again.
func (p *server) run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, p.close()) }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ownerCtx, stopOwner := context.WithCancel(context.WithoutCancel(ctx))
	defer stopOwner()

	var group errgroup.Group
	part := func(name string, ctx context.Context, run func(context.Context) error, after func()) {
		group.Go(func() error {
			defer cancel() // one part that ends takes the others with it
			defer after()
			if err := run(ctx); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		})
	}
	part("http", ctx, p.http.run, func() {})
	group.Go(func() error {
		err := p.identify(ctx)
		if err != nil {
			cancel()
		}
		return err
	})
	part("nats", ctx, p.watchNATS, func() {})
	if p.node != nil {
		part("ingest", ownerCtx, p.node.Run, func() {})
	}
	if p.pool != nil {
		part("workers", ctx, p.pool.Run, stopOwner)
	} else {
		context.AfterFunc(ctx, stopOwner)
	}
	if p.node != nil {
		defer context.AfterFunc(ctx, func() {
			time.AfterFunc(handOverAfter, func() {
				if p.node.HasPeers() {
					stopOwner()
				}
			})
		})()
	}
	p.log.Info("dormouse is serving", "version", buildVersion(), "roles", p.cfg.roles, "archive", p.bucket.URL(),
		"http", p.http.addr(), "max_delay", p.cfg.maxDelay, "workers", p.cfg.workers)
	context.AfterFunc(ctx, func() { p.log.Info("shutting down; a second signal ends at once", "grace", p.cfg.grace) })
	return group.Wait()
}
