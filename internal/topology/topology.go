// Package topology makes and checks the streams, consumers and buckets that a Dormouse system lives on, and finds its
// shards.
//
// It moves no entries. What it makes is named in package wire; why each setting must be as it is stands beside it here.
package topology

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/policy"
	"dormouse/internal/shardid"
	"dormouse/internal/wire"
)

// Config is what a system's streams depend on.
type Config struct {
	// source streams over which the tenants are spread, 1 to MaxShards; 0 is what there is, or 1
	Shards       int
	Replicas     int           // of every stream, 1 to 5; 0 is 1. Of streams that exist already it is left alone
	RequeueAfter time.Duration // age limit of the SyncQueue, so that one copy of a work item lives
	Lease        time.Duration // age limit of the leases
	Trim         bool          // source streams will be purged behind the archive: what that would break is refused
	// FirstRecord is where a manifest stream that is made begins; 0 is 1.
	FirstRecord uint64
	// HasArchive tells whether anything of a shard is archived. Without it no stream gets another prefix.
	HasArchive func(context.Context, shardid.Shard) (bool, error)
}

// ErrRefused is wrapped by the errors of streams that exist with a setting that Dormouse cannot work with. Trying again
// does not help; somebody has to decide.
var ErrRefused = errors.New("refused")

// JetStream reserves the bytes that a stream may take when it makes it, and refuses on a disk with less than that (and
// a third) free; so these are modest.
const (
	queueMessages = 100_000   // work items in the SyncQueue, 256 logs each
	queueBytes    = 64 << 20  // of work items
	mergeMessages = 10_000    // one for each level of a shard at most
	mergeBytes    = 16 << 20  // of merges, some 20 KiB each
	rejectedBytes = 128 << 20 // of rejected messages, the oldest go first
	policyBytes   = 32 << 20  // of policies and of what they were before
	policyHistory = 5         // of each pattern, so that a mistake can be seen and taken back
	ackWait       = 30 * time.Second
	maxAckPending = 100_000 // work items; the default of 1,000 would throttle the workers
	maxMerges     = 1_000   // in hand of all processes, each of which does but a few at a time
)

// Ensure makes what is missing and checks what is there; it may run in many processes at once. The warnings name
// settings that are allowed but can lose entries before they are archived.
func Ensure(ctx context.Context, js jetstream.JetStream, cfg Config) (warnings []string, err error) {
	cfg.Replicas = max(cfg.Replicas, 1)
	for _, step := range []func(context.Context, jetstream.JetStream, Config) error{
		ensureSyncQueue, ensureMerges, ensureManifest, ensureRejected, ensureLeases, ensurePolicies,
	} {
		if err := step(ctx, js, cfg); err != nil {
			return nil, err
		}
	}
	sources, err := ensureSources(ctx, js, cfg)
	if err != nil {
		return nil, err
	}
	return checkSources(ctx, js, cfg, sources)
}

// ensureStream makes the stream unless it exists, and returns its configuration as it is.
func ensureStream(ctx context.Context, js jetstream.JetStream, want jetstream.StreamConfig) (jetstream.StreamConfig,
	error) {
	stream, err := js.Stream(ctx, want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		if stream, err = js.CreateStream(ctx, want); errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			stream, err = js.Stream(ctx, want.Name) // another process was faster
		}
	}
	if err != nil {
		return want, fmt.Errorf("making stream %s: %w", want.Name, err)
	}
	return stream.CachedInfo().Config, nil
}

// queue is a work queue that the pools of all processes drain together.
type queue struct {
	stream, description, subjects, pool string
	maxAge                              time.Duration
	messages, bytes                     int64
	maxPending                          int // items that are in hand, or rest after a failure
}

func ensureSyncQueue(ctx context.Context, js jetstream.JetStream, cfg Config) error {
	return queue{wire.SyncQueueStream, "Dormouse: logs that are ready to be archived", wire.SyncQueueSubjects,
		wire.SyncQueuePool, cfg.RequeueAfter, // the owner queues again what is not committed by then
		queueMessages, queueBytes, maxAckPending}.ensure(ctx, js, cfg.Replicas)
}

// mergeAge is how long a merge may wait for a worker. The owner plans anew what is not done some minutes later.
const mergeAge = 10 * time.Minute

func ensureMerges(ctx context.Context, js jetstream.JetStream, cfg Config) error {
	return queue{wire.MergeStream, "Dormouse: segments that are to be merged", wire.MergeSubjects, wire.MergePool,
		mergeAge, mergeMessages, mergeBytes, maxMerges}.ensure(ctx, js, cfg.Replicas)
}

func (q queue) ensure(ctx context.Context, js jetstream.JetStream, replicas int) error {
	have, err := ensureStream(ctx, js, jetstream.StreamConfig{
		Name:        q.stream,
		Description: q.description,
		Subjects:    []string{q.subjects},
		Retention:   jetstream.WorkQueuePolicy,
		Storage:     jetstream.FileStorage,
		Replicas:    replicas,
		MaxAge:      q.maxAge,
		MaxMsgs:     q.messages,
		MaxBytes:    q.bytes,
		Discard:     jetstream.DiscardNew, // a full queue refuses, and the owner keeps the log and tries again
		Duplicates:  min(2*time.Minute, q.maxAge),
	})
	if err != nil {
		return err
	}
	err = check(have,
		setting{"retention", have.Retention, jetstream.WorkQueuePolicy},
		setting{"storage", have.Storage, jetstream.FileStorage},
		setting{"discard", have.Discard, jetstream.DiscardNew},
		setting{"subjects", fmt.Sprint(have.Subjects), fmt.Sprint([]string{q.subjects})},
		setting{"no_ack", have.NoAck, false})
	if err != nil {
		return err
	}
	if have.MaxAge != q.maxAge {
		have.MaxAge, have.Duplicates = q.maxAge, min(2*time.Minute, q.maxAge)
		if _, err := js.UpdateStream(ctx, have); err != nil {
			return fmt.Errorf("setting max_age of stream %s to %s: %w", have.Name, q.maxAge, err)
		}
	}
	return q.ensurePool(ctx, js)
}

// ensurePool makes the one consumer that all workers of all processes share.
func (q queue) ensurePool(ctx context.Context, js jetstream.JetStream) error {
	consumer, err := js.Consumer(ctx, q.stream, q.pool)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		consumer, err = js.CreateOrUpdateConsumer(ctx, q.stream, jetstream.ConsumerConfig{
			Durable:       q.pool,
			Description:   "Dormouse: the worker pool",
			DeliverPolicy: jetstream.DeliverAllPolicy,
			AckPolicy:     jetstream.AckExplicitPolicy,
			AckWait:       ackWait,
			MaxDeliver:    -1,
			MaxAckPending: q.maxPending,
			MaxWaiting:    4096,
		})
	}
	if err != nil {
		return fmt.Errorf("making consumer %s of stream %s: %w", q.pool, q.stream, err)
	}
	have := consumer.CachedInfo().Config
	where := "consumer " + q.pool + " of stream " + q.stream
	return checkAt(where,
		setting{"ack_policy", have.AckPolicy, jetstream.AckExplicitPolicy},
		setting{"deliver_policy", have.DeliverPolicy, jetstream.DeliverAllPolicy},
		setting{"max_deliver", have.MaxDeliver, -1},
		setting{"filter_subject", have.FilterSubject, ""},
		setting{"filter_subjects", len(have.FilterSubjects), 0})
}

func ensureManifest(ctx context.Context, js jetstream.JetStream, cfg Config) error {
	have, err := ensureStream(ctx, js, jetstream.StreamConfig{
		Name:        wire.ManifestStream,
		Description: "Dormouse: the ordered record of what is archived, the source of truth",
		Subjects:    []string{wire.ManifestSubjects},
		Retention:   jetstream.LimitsPolicy,
		Storage:     jetstream.FileStorage,
		Replicas:    cfg.Replicas,
		DenyDelete:  true,
		AllowDirect: false, // a direct read may come from a replica that is behind, and would hide a record
		FirstSeq:    cfg.FirstRecord,
	})
	if err != nil {
		return err
	}
	return check(have,
		setting{"retention", have.Retention, jetstream.LimitsPolicy},
		setting{"storage", have.Storage, jetstream.FileStorage},
		setting{"subjects", fmt.Sprint(have.Subjects), fmt.Sprint([]string{wire.ManifestSubjects})},
		setting{"max_age", have.MaxAge, time.Duration(0)},
		setting{"max_msgs", have.MaxMsgs, int64(-1)},
		setting{"max_bytes", have.MaxBytes, int64(-1)},
		setting{"max_msgs_per_subject", have.MaxMsgsPerSubject, int64(-1)},
		setting{"allow_direct", have.AllowDirect, false},
		setting{"no_ack", have.NoAck, false})
}

func ensureRejected(ctx context.Context, js jetstream.JetStream, cfg Config) error {
	have, err := ensureStream(ctx, js, jetstream.StreamConfig{
		Name:        wire.RejectedStream,
		Description: "Dormouse: messages that are no entry of a log, with the reason in a header",
		Subjects:    []string{wire.RejectedSubjects},
		Retention:   jetstream.LimitsPolicy,
		Storage:     jetstream.FileStorage,
		Replicas:    cfg.Replicas,
		MaxBytes:    rejectedBytes,
		Discard:     jetstream.DiscardOld, // a full one must not block the logs
	})
	if err != nil {
		return err
	}
	return check(have,
		setting{"retention", have.Retention, jetstream.LimitsPolicy},
		setting{"discard", have.Discard, jetstream.DiscardOld},
		setting{"no_ack", have.NoAck, false})
}

func ensureLeases(ctx context.Context, js jetstream.JetStream, cfg Config) error {
	kv, err := js.KeyValue(ctx, wire.LeaseBucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		kv, err = js.CreateKeyValue(ctx, leaseConfig(cfg))
		if errors.Is(err, jetstream.ErrBucketExists) {
			kv, err = js.KeyValue(ctx, wire.LeaseBucket)
		}
	}
	if err != nil {
		return fmt.Errorf("making bucket %s: %w", wire.LeaseBucket, err)
	}
	status, err := kv.Status(ctx)
	if err != nil {
		return fmt.Errorf("reading bucket %s: %w", wire.LeaseBucket, err)
	}
	if status.TTL() == cfg.Lease {
		return nil
	}
	if _, err := js.UpdateKeyValue(ctx, leaseConfig(cfg)); err != nil {
		return fmt.Errorf("setting the ttl of bucket %s to %s: %w", wire.LeaseBucket, cfg.Lease, err)
	}
	return nil
}

// ensurePolicies makes the bucket of policies. One in which they do not last is refused: with a policy goes what keeps
// entries from expiring.
func ensurePolicies(ctx context.Context, js jetstream.JetStream, cfg Config) error {
	kv, err := js.KeyValue(ctx, wire.PolicyBucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		kv, err = js.CreateKeyValue(ctx, jetstream.KeyValueConfig{
			Bucket: wire.PolicyBucket, Description: "Dormouse: what is settled for logs, by patterns",
			History: policyHistory, MaxValueSize: 2 * policy.MaxValue, MaxBytes: policyBytes, Storage: jetstream.FileStorage,
			Replicas: cfg.Replicas,
		})
		if errors.Is(err, jetstream.ErrBucketExists) {
			kv, err = js.KeyValue(ctx, wire.PolicyBucket)
		}
	}
	if err != nil {
		return fmt.Errorf("making bucket %s: %w", wire.PolicyBucket, err)
	}
	status, err := kv.Status(ctx)
	if err != nil {
		return fmt.Errorf("reading bucket %s: %w", wire.PolicyBucket, err)
	}
	return checkAt("bucket "+wire.PolicyBucket, setting{"ttl", status.TTL(), time.Duration(0)})
}

func leaseConfig(cfg Config) jetstream.KeyValueConfig {
	return jetstream.KeyValueConfig{
		Bucket: wire.LeaseBucket, Description: "Dormouse: which node tries to own which shard",
		History: 1, TTL: cfg.Lease, Storage: jetstream.FileStorage, Replicas: cfg.Replicas,
	}
}

// setting is one that must have a certain value.
type setting struct {
	name       string
	have, want any
}

func check(cfg jetstream.StreamConfig, settings ...setting) error {
	return checkAt("stream "+cfg.Name, settings...)
}

func checkAt(where string, settings ...setting) error {
	var errs []error
	for _, s := range settings {
		if s.have != s.want {
			errs = append(errs, fmt.Errorf("%w: %s has %s %v, and Dormouse needs %v: change it with the nats CLI, or move its "+
				"messages away and delete it", ErrRefused, where, s.name, s.have, s.want))
		}
	}
	return errors.Join(errs...)
}
