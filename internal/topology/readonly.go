package topology

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/shardid"
	"dormouse/internal/wire"
)

// errMissing is what a look-only JetStream says of what it would have had to make or change.
var errMissing = errors.New("not as it must be")

const provisionAgain = "run dormouse provision with the flags that serve has"

// lookOnly is a JetStream that makes and changes nothing of what Ensure makes and changes.
type lookOnly struct{ jetstream.JetStream }

func (lookOnly) CreateStream(_ context.Context, cfg jetstream.StreamConfig) (jetstream.Stream, error) {
	return nil, fmt.Errorf("%w: there is no stream %s: run dormouse provision", errMissing, cfg.Name)
}

func (lookOnly) UpdateStream(_ context.Context, cfg jetstream.StreamConfig) (jetstream.Stream, error) {
	return nil, fmt.Errorf("%w: the settings of stream %s are others than these flags say: %s", errMissing, cfg.Name,
		provisionAgain)
}

func (lookOnly) CreateOrUpdateConsumer(_ context.Context, stream string,
	cfg jetstream.ConsumerConfig) (jetstream.Consumer, error) {
	return nil, fmt.Errorf("%w: stream %s has no consumer %s: run dormouse provision", errMissing, stream, cfg.Durable)
}

func (lookOnly) CreateKeyValue(_ context.Context, cfg jetstream.KeyValueConfig) (jetstream.KeyValue, error) {
	return nil, fmt.Errorf("%w: there is no bucket %s: run dormouse provision", errMissing, cfg.Bucket)
}

func (lookOnly) UpdateKeyValue(_ context.Context, cfg jetstream.KeyValueConfig) (jetstream.KeyValue, error) {
	return nil, fmt.Errorf("%w: the settings of bucket %s are others than these flags say: %s", errMissing, cfg.Bucket,
		provisionAgain)
}

// Check looks for all that Ensure would make, and makes nothing: what is missing or refused is a problem, and the
// warnings are Ensure's. A RequeueAfter or Lease of 0 is what there is. The error says that something could not be
// looked at.
func Check(ctx context.Context, js jetstream.JetStream, cfg Config) (sources []Source, warnings, problems []string,
	err error) {
	if err := cfg.adopt(ctx, js); err != nil {
		return nil, nil, nil, err
	}
	look := lookOnly{js}
	note := func(err error) error {
		if errors.Is(err, errMissing) || errors.Is(err, ErrRefused) {
			problems = append(problems, err.Error())
			return nil
		}
		return err
	}
	for _, step := range []func(context.Context, jetstream.JetStream, Config) error{
		ensureSyncQueue, ensureMerges, ensureManifest, ensureRejected, ensureLeases, ensurePolicies,
	} {
		if err := note(step(ctx, look, cfg)); err != nil {
			return nil, nil, nil, err
		}
	}
	if sources, err = Sources(ctx, js); err != nil {
		err = note(err)
		return nil, nil, problems, err
	}
	problems = append(problems, missingShards(sources, cfg)...)
	warnings, err = checkSources(ctx, js, cfg, sources)
	err = note(err)
	return sources, warnings, problems, err
}

// adopt takes what is not said from what there is.
func (c *Config) adopt(ctx context.Context, js jetstream.JetStream) error {
	if c.RequeueAfter == 0 {
		stream, err := js.Stream(ctx, wire.SyncQueueStream)
		switch {
		case err == nil:
			c.RequeueAfter = stream.CachedInfo().Config.MaxAge
		case !errors.Is(err, jetstream.ErrStreamNotFound):
			return fmt.Errorf("reading stream %s: %w", wire.SyncQueueStream, err)
		}
	}
	if c.Lease == 0 {
		kv, err := js.KeyValue(ctx, wire.LeaseBucket)
		if errors.Is(err, jetstream.ErrBucketNotFound) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading bucket %s: %w", wire.LeaseBucket, err)
		}
		status, err := kv.Status(ctx)
		if err != nil {
			return fmt.Errorf("reading bucket %s: %w", wire.LeaseBucket, err)
		}
		c.Lease = status.TTL()
	}
	return nil
}

// missingShards names the source streams that there should be, and are not.
func missingShards(sources []Source, cfg Config) (problems []string) {
	have := Partitions(sources)
	if cfg.Shards > 0 {
		if err := checkPartitions(sources, have, cfg.Shards); err != nil {
			return []string{err.Error()}
		}
	}
	if len(sources) == 0 {
		return []string{"there is no source stream: run dormouse provision"}
	}
	if cfg.Shards > 1 && have == 0 {
		return []string{fmt.Sprintf("the tenants are not spread over shards, and %d are wanted: run dormouse provision "+
			"--shards %d", cfg.Shards, cfg.Shards)}
	}
	there := make(map[shardid.Shard]bool)
	for _, s := range sources {
		there[s.Shard] = true
	}
	for shard := range shardid.Shard(have) {
		if !there[shard] {
			problems = append(problems, fmt.Sprintf("there is no stream %s, though tenants are spread over %d shards: run "+
				"dormouse provision, or start serve again", PartitionStream(shard), have))
		}
	}
	return problems
}
