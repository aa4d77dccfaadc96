package main

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/ingest/shard"
	"dormouse/internal/natsserver"
	"dormouse/internal/outage"
	"dormouse/internal/topology"
)

func (p *server) openNATS(context.Context) error {
	options := serverOptions(p.log, p.refused.note)
	if p.cfg.embedded() {
		var err error
		p.embedded, err = natsserver.Start(natsserver.Config{
			Dir: filepath.Join(p.cfg.data, "nats"), Listen: p.cfg.natsListen,
			SyncInterval: p.cfg.syncInterval, SyncAlways: p.cfg.syncAlways, Logger: p.log,
		})
		if err != nil {
			return err
		}
		p.onClose(p.embedded.Shutdown)
		durability := fmt.Sprintf(
			"a power failure can take the last %s of acked entries, a killed process none",
			p.cfg.syncInterval,
		)
		if p.cfg.syncAlways {
			durability = "every ack follows a sync"
		}
		p.log.Info("embedded NATS server is running", "url", p.embedded.URL(), "durability", durability)
		options = append(options, p.embedded.InProcess())
	}
	nc, api, err := p.cfg.target.dial("dormouse serve", func(err error) { offer(p.closed, err) }, options...)
	if err != nil {
		return err
	}
	p.nc = nc
	p.onClose(func() error { p.nc.Close(); return nil })
	p.js, err = jetstream.NewWithAPIPrefix(p.nc, api)
	return err
}

// refusals are what NATS did not permit to the process.
type refusals struct {
	first chan error // cap 1

	mu   sync.Mutex
	last error
	at   time.Time // of the last one
}

func (r *refusals) note(err error) {
	offer(r.first, err)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last, r.at = err, time.Now()
}

// refusalLasts is how long a refusal keeps the process from being ready: what is refused is tried again more often.
const refusalLasts = 30 * time.Second

// recent returns the last refusal unless it is long ago.
func (r *refusals) recent() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last == nil || time.Since(r.at) > refusalLasts {
		return nil
	}
	return r.last
}

// offer puts an error into a channel that holds one: the first counts.
func offer(to chan<- error, err error) {
	select {
	case to <- err:
	default:
	}
}

// streamsTimeout bounds one try at the streams; while JetStream has no leader they are tried again until ctx ends.
const streamsTimeout = 10 * time.Second

func (p *server) openStreams(ctx context.Context) error {
	cfg := topology.Config{
		Shards:       p.cfg.shards,
		Replicas:     p.cfg.replicas,
		RequeueAfter: p.cfg.requeueAfter,
		Lease:        p.cfg.lease,
		Trim:         p.cfg.trim.value == string(shard.TrimAlways),
	}
	ctx, stop := p.untilRefused(ctx)
	defer stop()
	waiting := outage.New(p.log, "the streams are not ready; trying again", "the streams are ready")
	warn := func(what string, err error) { waiting.Failed(err, "try", what, "replicas", cfg.Replicas) }
	warnings, err := retryStreams(ctx, 0, warn, func() ([]string, error) {
		attempt, cancel := context.WithTimeout(ctx, streamsTimeout)
		defer cancel()
		return topology.Ensure(attempt, p.js, cfg)
	})
	for _, w := range warnings {
		p.log.Warn(w)
	}
	if refused := ended(ctx); refused != nil {
		return refused
	}
	if err != nil {
		return err
	}
	waiting.Over()
	return p.mapTenants(ctx)
}

// untilRefused returns a context that ends also when NATS does not permit something. What makes streams asks for
// nothing that it could do without, and would wait for ever.
func (p *server) untilRefused(ctx context.Context) (_ context.Context, stop func()) {
	ctx, end := context.WithCancelCause(ctx)
	joined := make(chan struct{})
	go func() {
		defer close(joined)
		select {
		case err := <-p.refused.first:
			end(natsEnd{err})
		case <-ctx.Done():
		}
	}()
	return ctx, func() { end(nil); <-joined }
}

// mapTenants lets the embedded server spread the tenants over the shards. An outside server's accounts are its
// operator's.
func (p *server) mapTenants(ctx context.Context) error {
	if p.embedded == nil {
		return nil
	}
	sources, err := topology.Sources(ctx, p.js)
	if err != nil {
		return err
	}
	partitions := topology.Partitions(sources)
	if partitions == 0 {
		return nil
	}
	mapping := topology.PartitionMapping(partitions)
	p.log.Info(
		"the embedded NATS server spreads the tenants over the shards",
		"shards",
		partitions,
		"from",
		mapping.From,
		"to",
		mapping.To,
	)
	return p.embedded.Map(mapping.From, mapping.To)
}

func (p *server) checkNATS(ctx context.Context) error {
	if !p.nc.IsConnected() {
		return fmt.Errorf("not connected to NATS: %s", p.nc.Status())
	}
	if err := p.refused.recent(); err != nil {
		return err
	}
	_, err := p.js.AccountInfo(ctx)
	return err
}

// watchNATS waits for the end of the embedded server or of the connection.
func (p *server) watchNATS(ctx context.Context) error {
	var failed <-chan error // never, with an outside NATS
	if p.embedded != nil {
		failed = p.embedded.Failed()
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return err
	case err := <-p.closed:
		return err
	}
}
