package topology

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/jsapi"
	"dormouse/internal/shardid"
	"dormouse/internal/wire"
)

// sourceConfig is a source stream as Dormouse makes it.
func sourceConfig(name string, shard shardid.Shard, prefix string, cfg Config) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:        name,
		Description: "Dormouse: entries that are not archived yet",
		Subjects:    []string{prefix + ".>"},
		Retention:   jetstream.LimitsPolicy,
		Storage:     jetstream.FileStorage,
		Replicas:    cfg.Replicas,
		Discard:     jetstream.DiscardNew, // a full stream refuses publishers; it never drops what it acked
		AllowDirect: true,
		Metadata: map[string]string{
			wire.MetadataShard: shard.String(), wire.MetadataPrefix: prefix, wire.MetadataManaged: "true",
		},
	}
}

// ensureSources makes the source streams that are missing, and returns all there are. It may run in many processes at
// once, and goes on where one of them was interrupted.
func ensureSources(ctx context.Context, js jetstream.JetStream, cfg Config) ([]Source, error) {
	sources, err := Sources(ctx, js)
	if err != nil {
		return nil, err
	}
	have, want := Partitions(sources), cfg.Shards
	if want == 0 {
		if want = have; want == 0 && len(sources) > 0 {
			return sources, nil // streams that users have made or added
		}
		want = max(want, 1)
	}
	if err := checkPartitions(sources, have, want); err != nil {
		return nil, err
	}
	if want == 1 {
		if !slices.ContainsFunc(sources, func(s Source) bool { return s.Stream == wire.DefaultSource }) {
			err = makeSource(ctx, js, cfg, freeShard(sources))
		}
	} else {
		err = makePartitions(ctx, js, cfg, sources, want)
	}
	if err != nil {
		return nil, err
	}
	return Sources(ctx, js)
}

// checkPartitions refuses to change the number of shards that tenants are spread over: a log's entries would be in two
// streams, whose sequences have no order among each other.
func checkPartitions(sources []Source, have, want int) error {
	single := slices.ContainsFunc(sources, func(s Source) bool { return s.Prefix == wire.DefaultPrefix })
	switch {
	case have > 0 && have != want:
		return fmt.Errorf("%w: the tenants are spread over %d shards, and %d are wanted: the number is fixed when they are "+
			"made, since logs would move between shards and lose their order. Leave --shards out, or begin another system "+
			"on an account of its own", ErrRefused, have, want)
	case single && want > 1:
		return fmt.Errorf("%w: there is a stream for all of %s.>, and %d shards are wanted: the number is fixed when they "+
			"are made, since logs would move between shards and lose their order. Leave --shards out, or begin another "+
			"system on an account of its own", ErrRefused, wire.DefaultPrefix, want)
	}
	return nil
}

func makePartitions(ctx context.Context, js jetstream.JetStream, cfg Config, sources []Source, n int) error {
	for shard := range shardid.Shard(n) {
		i := slices.IndexFunc(sources, func(s Source) bool { return s.Shard == shard })
		if i >= 0 && sources[i].Partitions == 0 {
			return fmt.Errorf("%w: stream %s is shard %s already, so that tenants cannot be spread over the shards 0 to %d: "+
				"begin another system on an account of its own", ErrRefused, sources[i].Stream, shard, n-1)
		}
		if i >= 0 {
			continue
		}
		want := partitionConfig(shard, n, cfg)
		var err error
		if want.FirstSeq, err = firstSeq(ctx, js, shard); err != nil {
			return err
		}
		have, err := ensureStream(ctx, js, want)
		if err != nil {
			return err
		}
		if made := have.Metadata[wire.MetadataPartitions]; made != fmt.Sprint(n) { // by another process, at the same moment
			return fmt.Errorf("%w: stream %s is one of %q shards, and %d are wanted", ErrRefused, have.Name, made, n)
		}
	}
	return nil
}

// makeSource makes the default source stream, or takes over one of that name that was there before.
func makeSource(ctx context.Context, js jetstream.JetStream, cfg Config, shard shardid.Shard) error {
	want := sourceConfig(wire.DefaultSource, shard, wire.DefaultPrefix, cfg)
	var err error
	if want.FirstSeq, err = firstSeq(ctx, js, shard); err != nil {
		return err
	}
	have, err := ensureStream(ctx, js, want)
	if isOverlap(err) {
		return fmt.Errorf("%w: another stream already takes subjects below %s.; name it %s, or add it with dormouse "+
			"provision --add-stream: %w", ErrRefused, wire.DefaultPrefix, wire.DefaultSource, err)
	}
	if err != nil {
		return err
	}
	if _, ok := have.Metadata[wire.MetadataShard]; ok {
		return nil
	}
	if !slices.Equal(have.Subjects, []string{wire.DefaultPrefix + ".>"}) {
		return fmt.Errorf("%w: stream %s has subjects %v, and Dormouse needs [%s.>] on a stream of that name",
			ErrRefused, have.Name, have.Subjects, wire.DefaultPrefix)
	}
	stores, err := storedBy(ctx, js, have)
	if err != nil {
		return err
	}
	if stores.under(wire.DefaultPrefix) == noLogs {
		return fmt.Errorf("%w: stream %s stores %v, and Dormouse needs %s.> in a stream of that name: remove its subject "+
			"transform, or say what stands before the LogIDs with dormouse provision --add-stream %s=PREFIX", ErrRefused,
			have.Name, stores, wire.DefaultPrefix, have.Name)
	}
	return markSource(ctx, js, have, shard, wire.DefaultPrefix, cfg)
}

// markSource makes a stream that was there before a shard: it is checked before it is touched, and not called ours.
func markSource(ctx context.Context, js jetstream.JetStream, have jetstream.StreamConfig, shard shardid.Shard,
	prefix string, cfg Config) error {
	if err := checkSource(have, cfg); err != nil {
		return err
	}
	if have.Metadata == nil {
		have.Metadata = make(map[string]string)
	}
	have.Metadata[wire.MetadataShard], have.Metadata[wire.MetadataPrefix] = shard.String(), prefix
	if _, err := js.UpdateStream(ctx, have); err != nil {
		return fmt.Errorf("marking stream %s as shard %s: %w", have.Name, shard, err)
	}
	return nil
}

// freeShard is the lowest number that no source has and that is not used otherwise.
func freeShard(sources []Source, used ...shardid.Shard) (free shardid.Shard) {
	for slices.ContainsFunc(sources, func(s Source) bool { return s.Shard == free }) || slices.Contains(used, free) {
		free++
	}
	return free
}

// Manifests returns the shards that have an archive, ascending. One whose stream was deleted has, and a stream of
// somebody else in its place would have the same sequences.
func Manifests(ctx context.Context, js jetstream.JetStream) (shards []shardid.Shard, err error) {
	stream, err := js.Stream(ctx, wire.ManifestStream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading stream %s: %w", wire.ManifestStream, err)
	}
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(wire.ManifestSubjects))
	if err != nil {
		return nil, fmt.Errorf("reading stream %s: %w", wire.ManifestStream, err)
	}
	for subject := range info.State.Subjects {
		if subject == wire.SystemSubject {
			continue
		}
		shard, err := shardid.Parse(subject[strings.LastIndexByte(subject, '.')+1:])
		if err != nil {
			return nil, fmt.Errorf("stream %s: subject %s: %w", wire.ManifestStream, subject, err)
		}
		shards = append(shards, shard)
	}
	slices.Sort(shards)
	return shards, nil
}

// firstSeq returns where a source stream that is made for shard has to begin: above what was taken in from the one
// before it, if there was one, so that the shard's logs go on in order.
func firstSeq(ctx context.Context, js jetstream.JetStream, shard shardid.Shard) (uint64, error) {
	last, err := jsapi.GetLast(ctx, js, wire.ManifestStream, wire.ManifestSubject(shard))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("reading the last manifest record of shard %s: %w", shard, err)
	}
	headers, err := last.Headers()
	var seq uint64
	if err == nil {
		seq, err = strconv.ParseUint(headers.Get(wire.HeaderSourceSeq), 10, 64)
	}
	if err != nil {
		return 0, fmt.Errorf("manifest record %d of shard %s: header %s: %w", last.Sequence, shard, wire.HeaderSourceSeq, err)
	}
	return seq + 1, nil
}

// errCodeSubjectOverlap is JetStream's error code for subjects that another stream takes.
const errCodeSubjectOverlap = 10065

func isOverlap(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && api.ErrorCode == errCodeSubjectOverlap
}
